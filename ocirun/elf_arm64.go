package ocirun

import "encoding/binary"

const elfMachine = 183 // EM_AARCH64

// exitHandler is a signal's handler: exit_group(128 + signal).
func exitHandler() (b []byte) {
	for _, w := range []uint32{
		0x11020000, // add w0, w0, 128
		0x52800bc8, // mov w8, 94
		0xd4000001, // svc 0
	} {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// entryStub loads the interpreter's registers as rawClone does.
func entryStub(header uint64) []byte {
	var b []byte
	for _, w := range []uint32{
		0x58000093, // ldr x19, +16
		0xf9400e74, // ldr x20, [x19, 24]
		0x14000004, // b +16
		0xd503201f, // nop
	} {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return binary.LittleEndian.AppendUint64(b, header)
}
