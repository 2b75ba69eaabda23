package publish

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is compiled for each socket that is given a classic one, which costs
// more than the socket itself; an extended one is loaded once and shared.

// instruction is one of the kernel's struct bpf_insn, linux/bpf.h.
type instruction struct {
	code      uint8
	registers uint8 // the destination in the low four bits
	jump      int16
	value     int32
}

// program is what the kernel runs for a packet: its result is how much of the
// packet passes.
func (p pass) program() []instruction {
	const (
		set      = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		load     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS // into register 0; the packet is in register 6
		unequal  = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		exit     = unix.BPF_JMP | unix.BPF_EXIT
		header   = -0x100000 // SKF_NET_OFF
		target   = header + 24
		packet   = 6
		argument = 1 << 4
	)
	nothing := []instruction{{code: set}, {code: exit}}
	if p == passNothing {
		return nothing
	}
	out := []instruction{{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X, registers: packet | argument}}
	for i, word := range [...]int32{0, 0, 0, 1} {
		// To where nothing passes: over the other words and what lets pass.
		out = append(out, instruction{code: load, value: target + 4*int32(i)}, instruction{code: unequal, jump: int16(2*(3-i) + 2), value: word})
	}
	return append(append(out, instruction{code: set, value: -1}, instruction{code: exit}), nothing...)
}

// loaded are the programs in the kernel; nil where it takes none.
var loaded = [...]func() *int{
	passNothing:  sync.OnceValue(passNothing.load),
	passLoopback: sync.OnceValue(passLoopback.load),
}

// load puts the program into the kernel for as long as the process lives.
func (p pass) load() *int {
	program, license := p.program(), []byte("GPL\x00")
	attr := struct {
		kind, count      uint32
		program, license unsafe.Pointer
		level, size      uint32
		log              uint64
		version, flags   uint32
	}{kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(program)), program: unsafe.Pointer(&program[0]), license: unsafe.Pointer(&license[0])}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil
	}
	unix.CloseOnExec(int(fd))
	n := int(fd)
	return &n
}

// filter makes the socket drop what shall not reach it.
func (p pass) filter(fd int) error {
	if p == passAll {
		return nil
	}
	if program := loaded[p](); program != nil {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, *program)
	}
	return p.filterClassic(fd)
}

// filterClassic is for a kernel without bpf(2), or one that refuses it.
func (p pass) filterClassic(fd int) error {
	const (
		load, equal, give = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		networkHeader     = 0xfff00000 // SKF_NET_OFF
		destination       = networkHeader + 24
	)
	program := []unix.SockFilter{{Code: give, K: 0}}
	if p == passLoopback {
		program = nil
		for i, word := range [...]uint32{0, 0, 0, 1} {
			program = append(program, unix.SockFilter{Code: load, K: destination + 4*uint32(i)}, unix.SockFilter{Code: equal, K: word, Jf: uint8(2*(3-i) + 1)})
		}
		program = append(program, unix.SockFilter{Code: give, K: ^uint32(0)}, unix.SockFilter{Code: give, K: 0})
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
