package seccomp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Allows tells whether a filter lets the native system call with a number through
// whatever its arguments are, by doing as the kernel does.
func Allows(code []byte, nr uint32) bool {
	acc := uint32(0)
	for pc := 0; pc < len(code)/8; pc++ {
		b := code[8*pc:][:8]
		k, holds := binary.NativeEndian.Uint32(b[4:]), false
		switch binary.NativeEndian.Uint16(b) {
		case loadAbs:
			switch k {
			case offNumber:
				acc = nr
			case offArch:
				acc = archs[0].audit
			default: // an argument
				return false
			}
			continue
		case ret:
			return k == unix.SECCOMP_RET_ALLOW
		case always:
			pc += int(k)
			continue
		case equal:
			holds = acc == k
		case greater:
			holds = acc > k
		case atLeast:
			holds = acc >= k
		default:
			return false
		}
		if holds {
			pc += int(b[2])
		} else {
			pc += int(b[3])
		}
	}
	return false
}
