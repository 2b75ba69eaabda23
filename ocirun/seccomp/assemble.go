package seccomp

import (
	"encoding/binary"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// Instructions of classic BPF as seccomp uses them.
const (
	loadAbs = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	and     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	ret     = unix.BPF_RET | unix.BPF_K
	always  = unix.BPF_JMP | unix.BPF_JA
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	greater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K

	offNumber, offArch, offArgs = 0, 4, 16 // in struct seccomp_data
	maxCode                     = 4096
)

// assembler collects a program backwards: all jumps go forward, so each target
// is known when its jump is made. A position counts from the program's end.
type assembler struct {
	insns []unix.SockFilter
	rets  map[uint32]int
}

func (m *assembler) emit(code uint16, k uint32) int {
	m.insns = append(m.insns, unix.SockFilter{Code: code, K: k})
	return len(m.insns) - 1
}

// answer is the position of a return, shared while it is in reach of a jump.
func (m *assembler) answer(v uint32) int {
	if at, ok := m.rets[v]; ok && len(m.insns)-at < 200 {
		return at
	}
	if m.rets == nil {
		m.rets = map[uint32]int{}
	}
	m.rets[v] = m.emit(ret, v)
	return m.rets[v]
}

// branch makes a conditional jump. Targets out of reach get a far jump in
// front of them.
func (m *assembler) branch(code uint16, k uint32, yes, no int) int {
	if yes == no {
		return yes
	}
	yes, no = m.near(yes), m.near(no)
	if len(m.insns)-yes-1 > 255 { // the second far jump may have pushed the first away
		yes = m.near(yes)
	}
	at := len(m.insns)
	m.insns = append(m.insns, unix.SockFilter{Code: code, K: k, Jt: uint8(at - yes - 1), Jf: uint8(at - no - 1)})
	return at
}

func (m *assembler) near(at int) int {
	if len(m.insns)-at <= 250 {
		return at
	}
	if i := m.insns[at]; i.Code == ret {
		return m.emit(ret, i.K)
	}
	return m.emit(always, uint32(len(m.insns)-at-1))
}

// follow makes an instruction that runs on into the code at a position.
func (m *assembler) follow(code uint16, k uint32, next int) int {
	if next != len(m.insns)-1 {
		if i := m.insns[next]; i.Code == ret {
			m.emit(ret, i.K)
		} else {
			m.emit(always, uint32(len(m.insns)-next-1))
		}
	}
	return m.emit(code, k)
}

// filter makes the whole program and gives its entry.
func (m *assembler) filter(archs []*arch, rules map[string][]rule, dflt uint32) int {
	next := m.answer(unix.SECCOMP_RET_KILL_THREAD)
	x32 := next
	for _, a := range archs {
		if a.x32 {
			x32 = m.tree(a, a.spans(rules, dflt), dflt)
		}
	}
	for i := len(archs) - 1; i >= 0; i-- {
		a := archs[i]
		if a.x32 {
			continue
		}
		body := m.tree(a, a.spans(rules, dflt), dflt)
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			body = m.branch(atLeast, x32Bit, x32, body)
		}
		body = m.follow(loadAbs, offNumber, body)
		next = m.branch(equal, a.audit, body, next)
	}
	return m.follow(loadAbs, offArch, next)
}

// tree makes the search among spans; the call's number is loaded.
func (m *assembler) tree(a *arch, spans []span, dflt uint32) int {
	if len(spans) == 1 {
		if spans[0].rules == nil {
			return m.answer(spans[0].answer)
		}
		return m.chain(a, spans[0].rules, dflt)
	}
	mid := len(spans) / 2
	high := m.tree(a, spans[mid:], dflt)
	low := m.tree(a, spans[:mid], dflt)
	return m.branch(atLeast, spans[mid].first, high, low)
}

// chain tries rules in order and ends in the default.
func (m *assembler) chain(a *arch, rules []rule, dflt uint32) int {
	next := m.answer(dflt)
	for i := len(rules) - 1; i >= 0; i-- {
		at := m.answer(rules[i].answer)
		for j := len(rules[i].args) - 1; j >= 0; j-- {
			at = m.condition(a, &rules[i].args[j], at, next)
		}
		next = at
	}
	return next
}

// operator is a comparison of the kernel's and whether it is the opposite of
// the one that is meant.
type operator struct {
	code     uint16
	opposite bool
}

var operators = map[specs.LinuxSeccompOperator]operator{
	specs.OpEqualTo: {equal, false}, specs.OpNotEqual: {equal, true}, specs.OpMaskedEqual: {equal, false},
	specs.OpGreaterEqual: {atLeast, false}, specs.OpLessThan: {atLeast, true},
	specs.OpGreaterThan: {greater, false}, specs.OpLessEqual: {greater, true},
}

// condition compares an argument, in halves of 32 bits. The arguments of 32-bit
// programs have only the lower one.
func (m *assembler) condition(a *arch, c *specs.LinuxSeccompArg, yes, no int) int {
	op := operators[c.Op]
	if op.opposite {
		yes, no = no, yes
	}
	mask, want := ^uint64(0), c.Value
	if c.Op == specs.OpMaskedEqual {
		mask, want = c.Value, c.ValueTwo
	}
	off := uint32(offArgs + 8*c.Index)
	at := m.branch(op.code, uint32(want), yes, no)
	at = m.half(off, uint32(mask), at)
	if a.bits == 32 {
		return at
	}
	high := uint32(want >> 32)
	at = m.branch(equal, high, at, no)
	if op.code != equal {
		at = m.branch(greater, high, yes, at)
	}
	return m.half(off+4, uint32(mask>>32), at)
}

// half loads 32 bits of an argument under a mask.
func (m *assembler) half(off, mask uint32, next int) int {
	if mask != ^uint32(0) {
		next = m.follow(and, mask, next)
	}
	return m.follow(loadAbs, off, next)
}

// code gives the program in the kernel's form.
func (m *assembler) code(entry int) ([]byte, error) {
	if entry != len(m.insns)-1 {
		m.emit(always, uint32(len(m.insns)-entry-1))
	}
	if len(m.insns) > maxCode {
		return nil, fault.New(fault.Invalid, "the seccomp filter has %d instructions; the kernel takes %d", len(m.insns), maxCode)
	}
	out := make([]byte, 0, 8*len(m.insns))
	for i := len(m.insns) - 1; i >= 0; i-- {
		f := m.insns[i]
		out = binary.NativeEndian.AppendUint16(out, f.Code)
		out = append(out, f.Jt, f.Jf)
		out = binary.NativeEndian.AppendUint32(out, f.K)
	}
	return out, nil
}
