// Package seccomp compiles the seccomp section of a specification to a filter
// program for the kernel, without libseccomp.
//
// For each architecture the system calls' numbers are cut into ranges that have
// the same answer, and the ranges are searched as a binary tree. Where several
// rules name one call, one without arguments wins, otherwise the first that
// matches. As with runc, calls above all that the profile names fail with
// ENOSYS instead of a denying default, so that programs fall back from calls
// which are newer than the profile.
package seccomp

import (
	"slices"
	"sort"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// arch is an architecture that the kernel can execute.
type arch struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_*
	bits  int
	calls string // "name number" pairs
	x32   bool   // shares the audit value of x86-64, with a bit in the number
}

const x32Bit = 0x40000000

// answers are the return values of actions, see seccomp(2).
var answers = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill: unix.SECCOMP_RET_KILL_THREAD, specs.ActKillThread: unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS, specs.ActTrap: unix.SECCOMP_RET_TRAP,
	specs.ActErrno: unix.SECCOMP_RET_ERRNO, specs.ActTrace: unix.SECCOMP_RET_TRACE,
	specs.ActAllow: unix.SECCOMP_RET_ALLOW, specs.ActLog: unix.SECCOMP_RET_LOG, specs.ActNotify: unix.SECCOMP_RET_USER_NOTIF,
}

func answer(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	v, ok := answers[a]
	if !ok {
		return 0, fault.New(fault.Invalid, "the seccomp action %q is not known", a)
	}
	if v == unix.SECCOMP_RET_ERRNO || v == unix.SECCOMP_RET_TRACE {
		if errno == nil {
			return v | uint32(unix.EPERM), nil
		}
		return v | uint32(*errno)&unix.SECCOMP_RET_DATA, nil
	}
	return v, nil
}

// rule is one way to an answer: all conditions hold.
type rule struct {
	args   []specs.LinuxSeccompArg
	answer uint32
}

// Architectures names those that a filter can be made for here.
func Architectures() []string {
	out := make([]string, 0, len(archs))
	for _, a := range archs {
		out = append(out, string(a.name))
	}
	return out
}

// Compile makes the filter: an array of struct sock_filter, and the flags for
// seccomp(2).
func Compile(s *specs.LinuxSeccomp) (code []byte, flags uint, err error) {
	if flags, err = parseFlags(s.Flags); err != nil {
		return nil, 0, err
	}
	dflt, err := answer(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, 0, err
	}
	rules, err := parseRules(s, dflt)
	if err != nil {
		return nil, 0, err
	}
	notify, err := notifies(s)
	if err != nil {
		return nil, 0, err
	}
	if notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	} else if flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 {
		return nil, 0, fault.New(fault.Invalid, "the seccomp flag %s needs a rule with the action %s", specs.LinuxSeccompFlagWaitKillableRecv, specs.ActNotify)
	}
	archs, err := chooseArchs(s.Architectures)
	if err != nil {
		return nil, 0, err
	}
	var asm assembler
	entry := asm.filter(archs, rules, dflt)
	code, err = asm.code(entry)
	return code, flags, err
}

func parseFlags(list []specs.LinuxSeccompFlag) (uint, error) {
	if list == nil { // what is not said is as with runc: no mitigation that slows the process down
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uint
	for _, f := range list {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // the process has one thread
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fault.New(fault.Invalid, "the seccomp flag %q is not known", f)
		}
	}
	return flags, nil
}

// notifies tells whether an agent answers some calls. It cannot answer all, nor
// the one by which it is told of the first.
func notifies(s *specs.LinuxSeccomp) (bool, error) {
	if s.DefaultAction == specs.ActNotify {
		return false, fault.New(fault.Invalid, "%s cannot be used as the default seccomp action", specs.ActNotify)
	}
	any := false
	for i := range s.Syscalls {
		if c := &s.Syscalls[i]; c.Action == specs.ActNotify {
			any = true
			if slices.Contains(c.Names, "write") {
				return false, fault.New(fault.Invalid, "%s cannot be used for the write syscall", specs.ActNotify)
			}
		}
	}
	return any, nil
}

// parseRules orders the rules by call. A rule with the default's answer says
// nothing but that the profile knows the call.
func parseRules(s *specs.LinuxSeccomp, dflt uint32) (map[string][]rule, error) {
	out := make(map[string][]rule, 512)
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		v, err := answer(c.Action, c.ErrnoRet)
		if err != nil {
			return nil, err
		}
		if v == dflt {
			for _, name := range c.Names { // known to the profile all the same
				if out[name] == nil {
					out[name] = []rule{}
				}
			}
			continue
		}
		ways, err := splitArgs(c.Args, v)
		if err != nil {
			return nil, err
		}
		for _, name := range c.Names {
			have := out[name]
			if have == nil && len(ways) == 1 {
				out[name] = ways // shared: append below copies, for the capacity is 1
				continue
			}
			out[name] = append(have[:len(have):len(have)], ways...)
		}
	}
	return out, nil
}

// splitArgs makes one rule of conditions on different arguments. Two conditions
// on the same argument are alternatives, as in runc.
func splitArgs(args []specs.LinuxSeccompArg, v uint32) ([]rule, error) {
	var seen [6]bool
	twice := false
	for _, a := range args {
		if a.Index > 5 {
			return nil, fault.New(fault.Invalid, "a seccomp rule names the argument %d; there are 0 to 5", a.Index)
		}
		if _, ok := operators[a.Op]; !ok {
			return nil, fault.New(fault.Invalid, "the seccomp operator %q is not known", a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return []rule{{args, v}}, nil
	}
	var out []rule
	for i := range args {
		out = append(out, rule{args[i : i+1], v})
	}
	return out, nil
}

// chooseArchs gives the native architecture and the named ones that this
// kernel's programs can use. For others no call ever reaches the filter.
func chooseArchs(names []specs.Arch) ([]*arch, error) {
	out := []*arch{&archs[0]}
	for _, n := range names {
		if !knownArchs[n] {
			return nil, fault.New(fault.Invalid, "the seccomp architecture %q is not known", n)
		}
		for i := range archs {
			a := &archs[i]
			if a.name == n && !containsArch(out, a) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

func containsArch(list []*arch, a *arch) bool {
	for _, x := range list {
		if x == a {
			return true
		}
	}
	return false
}

var knownArchs = map[specs.Arch]bool{specs.ArchX86: true, specs.ArchX86_64: true, specs.ArchX32: true, specs.ArchARM: true,
	specs.ArchAARCH64: true, specs.ArchMIPS: true, specs.ArchMIPS64: true, specs.ArchMIPS64N32: true, specs.ArchMIPSEL: true,
	specs.ArchMIPSEL64: true, specs.ArchMIPSEL64N32: true, specs.ArchPPC: true, specs.ArchPPC64: true, specs.ArchPPC64LE: true,
	specs.ArchS390: true, specs.ArchS390X: true, specs.ArchPARISC: true, specs.ArchPARISC64: true, specs.ArchRISCV64: true,
	specs.ArchLOONGARCH64: true, specs.ArchM68K: true, specs.ArchSH: true, specs.ArchSHEB: true}

// span is a run of call numbers, to the next span's first, with one outcome:
// rules of their own, or the answer alone.
type span struct {
	first  uint32
	rules  []rule
	answer uint32
}

// spans cuts the numbers of an architecture into runs.
func (a *arch) spans(rules map[string][]rule, dflt uint32) []span {
	type numbered struct {
		nr    uint32
		rules []rule
	}
	var calls []numbered
	a.each(func(name string, nr uint32) {
		if r := rules[name]; r != nil {
			calls = append(calls, numbered{nr, unconditional(r)})
		}
	})
	sort.Slice(calls, func(i, j int) bool { return calls[i].nr < calls[j].nr })
	out := []span{{0, nil, dflt}}
	add := func(s span) {
		last := &out[len(out)-1]
		if s.first == last.first {
			*last = s
			return
		}
		if s.rules == nil && last.rules == nil && s.answer == last.answer {
			return
		}
		out = append(out, s)
	}
	next := uint32(0)
	for i, c := range calls {
		if i > 0 && c.nr == calls[i-1].nr { // two names of one call
			continue
		}
		if c.nr > next {
			add(span{next, nil, dflt})
		}
		switch {
		case len(c.rules) == 0:
			add(span{c.nr, nil, dflt})
		case len(c.rules[0].args) == 0:
			add(span{c.nr, nil, c.rules[0].answer})
		default:
			add(span{c.nr, c.rules, 0})
		}
		next = c.nr + 1
	}
	add(span{next, nil, unknownAnswer(dflt, len(calls) > 0)})
	return out
}

// unknownAnswer is for calls above all that the profile names.
func unknownAnswer(dflt uint32, named bool) uint32 {
	if !named || dflt == unix.SECCOMP_RET_ALLOW || dflt == unix.SECCOMP_RET_LOG || dflt&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_TRACE {
		return dflt
	}
	return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
}

// unconditional reduces the rules of a call to the first without arguments, if
// there is one.
func unconditional(rules []rule) []rule {
	for i := range rules {
		if len(rules[i].args) == 0 {
			return rules[i : i+1]
		}
	}
	return rules
}

// each calls f for each system call of the architecture.
func (a *arch) each(f func(name string, nr uint32)) {
	s := a.calls
	for i := 0; i < len(s); {
		start := i
		for s[i] != ' ' {
			i++
		}
		name := s[start:i]
		i++
		nr := uint32(0)
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			nr = nr*10 + uint32(s[i]-'0')
			i++
		}
		for i < len(s) && (s[i] == ' ' || s[i] == '\n') {
			i++
		}
		if a.x32 {
			other, ok := x32Calls[name]
			switch {
			case ok && other == 0:
				continue
			case ok:
				nr = other
			}
			nr |= x32Bit
		}
		f(name, nr)
	}
}

// x32Calls are the calls that x32 numbers differently from x86-64, and with 0
// those that it does not have.
var x32Calls = map[string]uint32{"rt_sigaction": 512, "rt_sigreturn": 513, "ioctl": 514, "readv": 515, "writev": 516,
	"recvfrom": 517, "sendmsg": 518, "recvmsg": 519, "execve": 520, "ptrace": 521, "rt_sigpending": 522,
	"rt_sigtimedwait": 523, "rt_sigqueueinfo": 524, "sigaltstack": 525, "timer_create": 526, "mq_notify": 527,
	"kexec_load": 528, "waitid": 529, "set_robust_list": 530, "get_robust_list": 531, "vmsplice": 532,
	"move_pages": 533, "preadv": 534, "pwritev": 535, "rt_tgsigqueueinfo": 536, "recvmmsg": 537, "sendmmsg": 538,
	"process_vm_readv": 539, "process_vm_writev": 540, "setsockopt": 541, "getsockopt": 542, "io_setup": 543,
	"io_submit": 544, "execveat": 545, "preadv2": 546, "pwritev2": 547,
	"uselib": 0, "_sysctl": 0, "create_module": 0, "get_kernel_syms": 0, "query_module": 0, "nfsservctl": 0, "set_thread_area": 0,
	"get_thread_area": 0, "epoll_ctl_old": 0, "epoll_wait_old": 0, "vserver": 0, "map_shadow_stack": 0, "uretprobe": 0, "uprobe": 0}
