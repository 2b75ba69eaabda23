// Package seccomp compiles the seccomp section of a specification to a filter
// program for the kernel.
package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
)

func Compile(s *specs.LinuxSeccomp) ([]byte, uint, error) {
	return nil, 0, fault.New(fault.NotImplemented, "seccomp is not supported yet")
}
