package ocirun

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
)

// A program is the ordered list of system calls that a child works through
// before it executes the user's program. It is built without side effects and
// printed by String; load places it in memory that is not the Go heap.
type program struct {
	steps  []step
	labels []int  // label -> index of a step; -1 while not placed
	data   []byte // strings, structures and slots that the steps point to
	fixups []fixup
	fail   label // where a step goes whose error nobody expects
	reborn label // where the executed memfd continues; unset if there is none
}

// step is one system call, or one of the two steps without a call.
type step struct {
	what, object string // "mount proc at", "/proc": the sentence of its failure
	nr           uint64
	args         [6]value
	keep         value // slot that receives the result; the zero value drops it
	want         uint64
	next, other  label // after success; after an error that is not listed
	on           [2]branch
}

// branch sends a step's error to a label.
type branch struct {
	errno unix.Errno
	to    label
}

type label int

const (
	unset     label = 0  // next: the following step; other: the program's fail
	following label = -1 // the following step

	opMove    = ^uint64(0)     // result = first argument
	opCompare = ^uint64(0) - 1 // succeeds when both arguments are equal
	opRefuse  = 0xfffff        // no such call: always an error, to be told as one

	errShort = unix.Errno(4095) // the result was not the wanted one
)

type kind uint8

const (
	immediate kind = iota
	text           // address of a NUL-terminated string in data
	address        // address of data
	slot           // contents of 8 bytes in data
	failure        // the errno of the last step that failed
	verdict        // address of the last failed step's number and errno, 16 bytes
)

type value struct {
	kind kind
	n    uint64
}

type fixup struct {
	at int
	v  value
}

func num[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr](n T) value {
	return value{immediate, uint64(n)}
}

// cwd is AT_FDCWD as an argument.
var cwd = num(unix.AT_FDCWD)

// programs are empty ones whose memory is used again: a process that serves execs
// would leave as much garbage behind each.
var programs = sync.Pool{New: func() any { return new(program) }}

// newProgram gives an empty program with room for a number of steps.
func newProgram(steps int) *program {
	p := programs.Get().(*program)
	if cap(p.steps) < steps { // at once, or growing would touch twice the memory
		p.steps, p.data, p.labels, p.fixups = make([]step, 0, steps), make([]byte, 0, 36*steps), make([]int, 0, steps/3), make([]fixup, 0, steps/3)
	}
	p.labels = append(p.labels, 0)
	p.data = append(p.data, 0, 0, 0, 0, 0, 0, 0, 0) // the slot of dropped results
	p.fail = p.label()
	return p
}

// reuse gives the program's memory to a later one.
func (p *program) reuse() {
	clear(p.steps) // they hold strings of the specification
	*p = program{steps: p.steps[:0], labels: p.labels[:0], data: p.data[:0], fixups: p.fixups[:0]}
	programs.Put(p)
}

func (p *program) label() label {
	p.labels = append(p.labels, -1)
	return label(len(p.labels) - 1)
}

func (p *program) here(l label) { p.labels[l] = len(p.steps) }

func (p *program) str(s string) value {
	v := value{text, uint64(len(p.data))}
	p.data = append(append(p.data, s...), 0)
	return v
}

func (p *program) align() {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
}

func (p *program) bytes(b []byte) value {
	p.align()
	v := value{address, uint64(len(p.data))}
	p.data = append(p.data, b...)
	return v
}

// words lays 64-bit words down; addresses among them are filled in by load.
func (p *program) words(vs ...value) value {
	p.align()
	at := value{address, uint64(len(p.data))}
	for _, v := range vs {
		if v.kind != immediate {
			p.fixups = append(p.fixups, fixup{len(p.data), v})
			v.n = 0
		}
		p.data = binary.LittleEndian.AppendUint64(p.data, v.n)
	}
	return at
}

// slot makes a place for a result. Its value is what steps take as argument.
func (p *program) slot() value { return value{slot, p.words(num(0)).n} }

// slotAt makes the word at an offset of laid-down data usable as a slot.
func slotAt(v value, offset uint64) value { return value{slot, v.n + offset} }

// do appends a system call. The returned step may be changed until the next
// call of do.
func (p *program) do(what, object string, nr uintptr, args ...value) *step {
	p.steps = append(p.steps, step{what: what, object: object, nr: uint64(nr)})
	s := &p.steps[len(p.steps)-1]
	copy(s.args[:], args)
	return s
}

func (p *program) move(what string, to, v value) *step {
	s := p.do(what, "", 0, v)
	s.nr, s.keep = opMove, to
	return s
}

// jump continues at l.
func (p *program) jump(l label) {
	s := p.do("jump", "", 0)
	s.nr, s.next = opMove, l
}

// refuse ends the program with a sentence of its own.
func (p *program) refuse(what, object string) {
	p.do(what, object, opRefuse)
}

func (s *step) into(v value) *step      { s.keep = v; return s }
func (s *step) wants(n uint64) *step    { s.want = n; return s }
func (s *step) then(l label) *step      { s.next = l; return s }
func (s *step) otherwise(l label) *step { s.other = l; return s }
func (s *step) ignore() *step           { s.other = following; return s }

// when sends one errno to a label; at most two per step.
func (s *step) when(e unix.Errno, l label) *step {
	i := 0
	if s.on[0].to != unset {
		i = 1
	}
	s.on[i] = branch{e, l}
	return s
}

// Layout of a loaded program. At its start stands an ELF header, so that the
// same bytes in a memfd can be executed and continue where the child was.
const (
	headerAt = 192 // entry step, failed step, its errno, entry of the memfd, rounds left
	codeAt   = 256 // the interpreter's copy, for execution from the memfd
	stepsAt  = 2048
	stepSize = 128

	again = 1 << 6 // beside the arguments that are slots: EAGAIN has the step done again, as openat.Open does
)

// size is the number of bytes that load fills.
func (p *program) size() int { return stepsAt + len(p.steps)*stepSize + len(p.data) }

// load writes the program for an address: mem will be mapped at base.
func (p *program) load(mem []byte, base uint64) {
	le := binary.LittleEndian
	dataAt := base + stepsAt + uint64(len(p.steps))*stepSize
	stepAt := func(i int) uint64 { return base + stepsAt + uint64(i)*stepSize }
	target := func(i int, l, dflt label) uint64 {
		if l == unset {
			l = dflt
		}
		if l == following {
			return stepAt(i + 1)
		}
		return stepAt(p.labels[l])
	}
	le.PutUint64(mem[headerAt:], stepAt(0))
	le.PutUint64(mem[headerAt+32:], openat.Rounds)
	if p.reborn != unset {
		le.PutUint64(mem[headerAt+24:], stepAt(p.labels[p.reborn]))
	}
	for i := range p.steps {
		s := &p.steps[i]
		b := mem[stepsAt+i*stepSize:][:stepSize]
		le.PutUint64(b, s.nr)
		refs := uint64(0)
		for j, a := range s.args {
			n := a.n
			if a.kind != immediate {
				n += dataAt
			}
			if a.kind == failure {
				n = base + headerAt + 16
			}
			if a.kind == verdict {
				n = base + headerAt + 8
			}
			if a.kind == slot || a.kind == failure {
				refs |= 1 << j
			}
			le.PutUint64(b[8+8*j:], n)
		}
		if s.nr == unix.SYS_OPENAT2 {
			refs |= again
		}
		le.PutUint64(b[56:], refs)
		le.PutUint64(b[64:], dataAt+s.keep.n)
		le.PutUint64(b[72:], s.want)
		le.PutUint64(b[80:], target(i, s.next, following))
		for j, br := range s.on {
			le.PutUint64(b[88+16*j:], uint64(br.errno))
			if br.to != unset {
				le.PutUint64(b[96+16*j:], target(i, br.to, following))
			}
		}
		le.PutUint64(b[120:], target(i, s.other, p.fail))
	}
	data := mem[stepsAt+len(p.steps)*stepSize:]
	copy(data, p.data)
	for _, f := range p.fixups {
		le.PutUint64(data[f.at:], f.v.n+dataAt)
	}
}

// sentence says what the step with this number did when it met errno.
func (p *program) sentence(i int, errno unix.Errno) string {
	s := &p.steps[i]
	out := s.what
	if s.object != "" {
		out += " " + s.object
	}
	if s.nr == opRefuse {
		return out
	}
	if errno == errShort {
		return out + ": the kernel took only a part"
	}
	return out + ": " + errno.Error()
}

// String lists the steps in order, one per line, with the calls' names and the
// branches that errors take.
func (p *program) String() string {
	var b strings.Builder
	for i := range p.steps {
		s := &p.steps[i]
		fmt.Fprintf(&b, "%3d %s", i, p.callText(s))
		if s.keep.kind == slot {
			fmt.Fprintf(&b, " -> s%d", s.keep.n/8)
		}
		if s.next > 0 {
			fmt.Fprintf(&b, " then %d", p.labels[s.next])
		}
		for _, br := range s.on {
			if br.to != unset {
				fmt.Fprintf(&b, " %s:%s", unix.ErrnoName(br.errno), p.labelText(i, br.to))
			}
		}
		if s.other != unset {
			fmt.Fprintf(&b, " else:%s", p.labelText(i, s.other))
		}
		fmt.Fprintf(&b, " # %s", s.what)
		if s.object != "" {
			b.WriteString(" " + s.object)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (p *program) labelText(i int, l label) string {
	if l == following {
		return fmt.Sprint(i + 1)
	}
	return fmt.Sprint(p.labels[l])
}

func (p *program) callText(s *step) string {
	name := callNames[s.nr]
	switch {
	case s.nr == opMove:
		name = "move"
	case s.nr == opCompare:
		name = "compare"
	case s.nr == opRefuse:
		name = "refuse"
	case name == "":
		name = fmt.Sprintf("call%d", s.nr)
	}
	last := 0
	for j, a := range s.args {
		if a != (value{}) {
			last = j + 1
		}
	}
	var args []string
	for _, a := range s.args[:last] {
		args = append(args, p.valueText(a))
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

func (p *program) valueText(v value) string {
	switch v.kind {
	case text:
		rest := p.data[v.n:]
		return fmt.Sprintf("%q", rest[:strings.IndexByte(string(rest), 0)])
	case address:
		return "&data"
	case slot:
		return fmt.Sprintf("s%d", v.n/8)
	case failure:
		return "errno"
	case verdict:
		return "&verdict"
	}
	if v == cwd {
		return "cwd"
	}
	if int64(v.n) < 10 {
		return fmt.Sprint(int64(v.n))
	}
	return fmt.Sprintf("%#x", v.n)
}

// callNames are the calls that programs use, for String.
var callNames = map[uint64]string{
	unix.SYS_CAPSET: "capset", unix.SYS_CHDIR: "chdir", unix.SYS_CLOSE: "close",
	unix.SYS_CLOSE_RANGE: "close_range", unix.SYS_DUP3: "dup3", unix.SYS_EXECVE: "execve",
	unix.SYS_EXECVEAT: "execveat", unix.SYS_EXIT_GROUP: "exit_group", unix.SYS_FACCESSAT2: "faccessat2",
	unix.SYS_FCHDIR: "fchdir", unix.SYS_FCHOWN: "fchown", unix.SYS_FCHOWNAT: "fchownat",
	unix.SYS_FCNTL: "fcntl", unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount",
	unix.SYS_FSOPEN: "fsopen", unix.SYS_IOCTL: "ioctl", unix.SYS_KEYCTL: "keyctl",
	unix.SYS_MKDIRAT: "mkdirat", unix.SYS_MKNODAT: "mknodat", unix.SYS_MOUNT: "mount",
	unix.SYS_MOUNT_SETATTR: "mount_setattr", unix.SYS_MOVE_MOUNT: "move_mount",
	unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2", unix.SYS_OPEN_TREE: "open_tree",
	unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_PRCTL: "prctl", unix.SYS_PRLIMIT64: "prlimit64",
	unix.SYS_READ: "read", unix.SYS_RT_SIGPROCMASK: "rt_sigprocmask", unix.SYS_RT_SIGACTION: "rt_sigaction", unix.SYS_SECCOMP: "seccomp",
	unix.SYS_SENDMSG: "sendmsg", unix.SYS_SETDOMAINNAME: "setdomainname", unix.SYS_SETGID: "setgid",
	unix.SYS_SETGROUPS: "setgroups", unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_SETNS: "setns",
	unix.SYS_SETRESGID: "setresgid", unix.SYS_SETRESUID: "setresuid", unix.SYS_SETSID: "setsid",
	unix.SYS_SETUID: "setuid", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_UMASK: "umask",
	unix.SYS_UMOUNT2: "umount2", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_UNSHARE: "unshare",
	unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev", unix.SYS_CHROOT: "chroot",
	unix.SYS_SCHED_SETAFFINITY: "sched_setaffinity", unix.SYS_SCHED_SETATTR: "sched_setattr",
	unix.SYS_IOPRIO_SET: "ioprio_set", unix.SYS_PERSONALITY: "personality", unix.SYS_SET_MEMPOLICY: "set_mempolicy",
	unix.SYS_WAIT4: "wait4", unix.SYS_LSEEK: "lseek", unix.SYS_CLONE: "clone", unix.SYS_FACCESSAT: "faccessat",
	unix.SYS_GETPID: "getpid", unix.SYS_SOCKET: "socket", unix.SYS_PPOLL: "ppoll", unix.SYS_KILL: "kill", unix.SYS_SENDFILE: "sendfile",
	unix.SYS_FSTATFS: "fstatfs",
}
