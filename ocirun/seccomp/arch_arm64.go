package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// archs are the architectures of this kernel's programs, the native one first.
var archs = [...]arch{
	{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, 64, callsARM64[1:], false},
	{specs.ArchARM, unix.AUDIT_ARCH_ARM, 32, callsARM[1:], false},
}
