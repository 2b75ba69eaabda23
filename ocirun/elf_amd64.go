package ocirun

import "encoding/binary"

const elfMachine = 62 // EM_X86_64

// entryStub loads the interpreter's registers as rawClone does.
func entryStub(header uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x49, 0xbc}, header) // mov r12, header
	return append(b, 0x4d, 0x8b, 0x6c, 0x24, 0x18)                    // mov r13, [r12+24]
}
