package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// archs are the architectures of this kernel's programs, the native one first.
var archs = [...]arch{
	{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, 64, callsX86_64[1:], false},
	{specs.ArchX86, unix.AUDIT_ARCH_I386, 32, callsX86[1:], false},
	{specs.ArchX32, unix.AUDIT_ARCH_X86_64, 64, callsX86_64[1:], true},
}
