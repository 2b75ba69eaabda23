package ocirun

import "encoding/binary"

const elfMachine = 62 // EM_X86_64

// exitHandler is a signal's handler: exit_group(128 + signal).
func exitHandler() []byte {
	return []byte{0x81, 0xc7, 128, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05} // add edi, 128; mov eax, 231; syscall
}

// entryStub loads the interpreter's registers as rawClone does.
func entryStub(header uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x49, 0xbc}, header) // mov r12, header
	return append(b, 0x4d, 0x8b, 0x6c, 0x24, 0x18)                    // mov r13, [r12+24]
}
