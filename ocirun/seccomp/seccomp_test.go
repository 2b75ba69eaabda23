package seccomp

import (
	"encoding/binary"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// evaluate runs a filter as the kernel does.
func evaluate(t *testing.T, code []byte, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.NativeEndian.PutUint32(data, nr)
	binary.NativeEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.NativeEndian.PutUint64(data[16+8*i:], a)
	}
	acc := uint32(0)
	for pc := 0; pc < len(code)/8; pc++ {
		b := code[pc*8:]
		op, k := binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint32(b[4:])
		jump := func(c bool) {
			if c {
				pc += int(b[2])
			} else {
				pc += int(b[3])
			}
		}
		switch op {
		case loadAbs:
			acc = binary.NativeEndian.Uint32(data[k:])
		case and:
			acc &= k
		case ret:
			return k
		case always:
			pc += int(k)
		case equal:
			jump(acc == k)
		case greater:
			jump(acc > k)
		case atLeast:
			jump(acc >= k)
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	t.Fatal("ran off the end")
	return 0
}

// plain answers a call by reading the rules one after the other.
func plain(s *specs.LinuxSeccomp, a *arch, name string, args [6]uint64) uint32 {
	dflt, _ := answer(s.DefaultAction, s.DefaultErrnoRet)
	result, decided := dflt, false
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		v, _ := answer(c.Action, c.ErrnoRet)
		for _, n := range c.Names {
			if n != name || v == dflt {
				continue
			}
			if len(c.Args) == 0 {
				return v
			}
			if !decided && holds(a, c.Args, args) {
				result, decided = v, true
			}
		}
	}
	return result
}

func holds(a *arch, conditions []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, c := range conditions {
		x, v, two := args[c.Index], c.Value, c.ValueTwo
		if a.bits == 32 {
			x, v, two = uint64(uint32(x)), uint64(uint32(v)), uint64(uint32(two))
		}
		ok := map[specs.LinuxSeccompOperator]bool{specs.OpEqualTo: x == v, specs.OpNotEqual: x != v, specs.OpLessThan: x < v,
			specs.OpLessEqual: x <= v, specs.OpGreaterThan: x > v, specs.OpGreaterEqual: x >= v, specs.OpMaskedEqual: x&v == two}[c.Op]
		if !ok {
			return false
		}
	}
	return true
}

// check compares the compiled filter with the plain reading for all calls.
func check(t *testing.T, s *specs.LinuxSeccomp) {
	t.Helper()
	code, _, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	chosen, _ := chooseArchs(s.Architectures)
	values := []uint64{0, 1, 2, 3, 7, 8, 9, 40, 45, 0x20000, 0x20008, 0xffffffff, 0x100000000, 0x100000003, 0x7e020000, 1 << 63, ^uint64(0), 0x10000000}
	for _, a := range chosen {
		named := map[uint32]string{}
		a.each(func(name string, nr uint32) { named[nr] = name })
		seen := map[uint32]bool{}
		a.each(func(name string, nr uint32) {
			if seen[nr] {
				return
			}
			seen[nr] = true
			for _, v := range values {
				for _, w := range []uint64{0, v} {
					args := [6]uint64{v, w, v, w, v, w}
					got := evaluate(t, code, a.audit, nr, args)
					want := plain(s, a, name, args)
					if got != want && !(got == unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)) && named[nr] == name {
						t.Fatalf("%s %s(%#x, %#x): got %#x, want %#x", a.name, name, v, w, got, want)
					}
				}
			}
		})
	}
}

func TestDefaultProfile(t *testing.T) {
	s, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s)
	code, _, _ := Compile(s)
	t.Logf("%d instructions", len(code)/8)
	native := &archs[0]
	if v := evaluate(t, code, native.audit, 5000, [6]uint64{}); v != unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
		t.Errorf("a call of the future: %#x", v)
	}
	if v := evaluate(t, code, 0x1234, 1, [6]uint64{}); v != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("a foreign architecture: %#x", v)
	}
}

func TestOperators(t *testing.T) {
	for op := range operators {
		for _, v := range []uint64{0, 1, 8, 0xffffffff, 0x100000000, 0x100000003, 1 << 63} {
			errno := uint(13)
			check(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32},
				Syscalls: []specs.LinuxSyscall{
					{Names: []string{"read", "write"}, Action: specs.ActErrno, ErrnoRet: &errno, Args: []specs.LinuxSeccompArg{
						{Index: 0, Value: v, ValueTwo: v & 3, Op: op}, {Index: 1, Value: 3, Op: specs.OpLessEqual}}},
					{Names: []string{"read"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Index: 2, Value: v, ValueTwo: v, Op: op}}},
					{Names: []string{"kill"}, Action: specs.ActKillProcess}}})
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, s := range []*specs.LinuxSeccomp{
		{DefaultAction: specs.ActNotify}, {DefaultAction: "NONSENSE"},
		{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActNotify}}},
		{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}},
		{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"NONSENSE"}},
		{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"NONSENSE"}},
		{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActTrap,
			Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, _, err := Compile(s); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}

func TestFlags(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	for _, c := range []struct {
		s    specs.LinuxSeccomp
		want uint
	}{
		{specs.LinuxSeccomp{}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{}}, 0},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}}, unix.SECCOMP_FILTER_FLAG_LOG},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}}, 0}, // of one thread
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, Syscalls: notify},
			unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
	} {
		c.s.DefaultAction = specs.ActAllow
		if _, got, err := Compile(&c.s); err != nil || got != c.want {
			t.Errorf("%v: %#x, %v, not %#x", c.s.Flags, got, err, c.want)
		}
	}
}

func BenchmarkDefaultProfile(b *testing.B) {
	s, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}
