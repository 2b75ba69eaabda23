package seccomp

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// oracle has libseccomp compile a list of rules, by Python's ctypes: this module
// is built without C.
//
//go:embed testdata/oracle.py
var oracle string

// asked is what the oracle reads.
type asked struct {
	Default uint32      `json:"default"`
	Archs   []uint32    `json:"archs"` // AUDIT_ARCH_*, which but for x32 are libseccomp's tokens
	Rules   []askedRule `json:"rules"`
}

type askedRule struct {
	Name   string      `json:"name"`
	Answer uint32      `json:"answer"`
	Args   [][4]uint64 `json:"args"` // index, operator, two values
}

// operatorNumbers are enum scmp_compare.
var operatorNumbers = map[specs.LinuxSeccompOperator]uint64{specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4,
	specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7}

// compiled is what the oracle writes.
type compiled struct {
	Code    []byte
	Unknown []string // names that are newer than the library
}

// libseccomp gives the filters of several profiles.
func libseccomp(t *testing.T, list []*specs.LinuxSeccomp) []compiled {
	t.Helper()
	var in []asked
	for _, s := range list {
		dflt, _ := answer(s.DefaultAction, s.DefaultErrnoRet)
		a := asked{Default: dflt}
		chosen, _ := chooseArchs(s.Architectures)
		for _, c := range chosen {
			token := c.audit
			if c.x32 {
				token = 0x4000003e // SCMP_ARCH_X32
			}
			a.Archs = append(a.Archs, token)
		}
		for _, c := range s.Syscalls {
			v, _ := answer(c.Action, c.ErrnoRet)
			if v == dflt {
				continue // libseccomp refuses such a rule
			}
			var args [][4]uint64
			for _, x := range c.Args {
				args = append(args, [4]uint64{uint64(x.Index), operatorNumbers[x.Op], x.Value, x.ValueTwo})
			}
			for _, name := range c.Names {
				a.Rules = append(a.Rules, askedRule{name, v, args})
			}
		}
		in = append(in, a)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-c", oracle)
	cmd.Stdin = strings.NewReader(string(text))
	var out, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		if strings.Contains(problem.String(), "no libseccomp") || problem.Len() == 0 {
			t.Skip("needs python3 and libseccomp.so.2")
		}
		t.Fatalf("%v: %s", err, problem.String())
	}
	var codes []compiled
	if err := json.Unmarshal([]byte(out.String()), &codes); err != nil || len(codes) != len(list) {
		t.Fatalf("%d filters, %v", len(codes), err)
	}
	return codes
}

// invent makes a profile by chance: every action, operator and combination of
// architectures comes up. A call has one rule, for libseccomp and runc differ in
// how several of one call meet.
func invent(r *rand.Rand) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace,
		specs.ActAllow, specs.ActLog, specs.ActNotify}
	archs := [][]specs.Arch{nil, {specs.ArchX86}, {specs.ArchX32}, {specs.ArchX86, specs.ArchX32, specs.ArchX86_64}, {specs.ArchARM, specs.ArchX86}}
	pick := func(list []specs.LinuxSeccompAction) (specs.LinuxSeccompAction, *uint) {
		errno := uint(r.IntN(200))
		a := list[r.IntN(len(list))]
		if a == specs.ActErrno || a == specs.ActTrace {
			return a, &errno
		}
		return a, nil
	}
	s := &specs.LinuxSeccomp{Architectures: archs[r.IntN(len(archs))]}
	s.DefaultAction, s.DefaultErrnoRet = pick(actions[:len(actions)-1])
	names := []string{"read", "openat", "clone", "personality", "ioctl", "socket", "mount", "kill", "ptrace", "bpf", "clone3", "chmod", "mmap", "exit_group"}
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:1+r.IntN(len(names))] {
		c := specs.LinuxSyscall{Names: []string{name}}
		c.Action, c.ErrnoRet = pick(actions)
		for _, i := range r.Perm(6)[:r.IntN(4)] {
			values := []uint64{0, 1, 8, 0x20000, 0xffffffff, 0x100000000, 0x100000003, 0x7e020000, 1 << 63}
			a := specs.LinuxSeccompArg{Index: uint(i), Value: values[r.IntN(len(values))], Op: ops[r.IntN(len(ops))]}
			if a.Op == specs.OpMaskedEqual {
				a.ValueTwo = values[r.IntN(len(values))] & a.Value
			}
			c.Args = append(c.Args, a)
		}
		s.Syscalls = append(s.Syscalls, c)
	}
	return s
}

// TestAgainstLibseccomp: both filters answer every call alike, but for calls
// newer than the profile, which ours refuses with ENOSYS as runc's does.
func TestAgainstLibseccomp(t *testing.T) {
	docker, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_PTRACE"}}}})
	if err != nil {
		t.Fatal(err)
	}
	errno := uint(38)
	list := []*specs.LinuxSeccomp{docker, {DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 16, Op: specs.OpNotEqual}}}}}}
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		list = append(list, invent(r))
	}
	theirs := libseccomp(t, list)
	values := []uint64{0, 1, 7, 8, 0x20000, 0x20008, 0xffffffff, 0x100000000, 0x100000003, 0x7e020000, 1 << 63, ^uint64(0)}
	compared := 0
	for n, s := range list {
		code, _, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		chosen, _ := chooseArchs(s.Architectures)
		for _, a := range chosen {
			named, wide := map[string]bool{}, map[string]uint64{}
			for _, c := range s.Syscalls {
				for _, name := range c.Names {
					named[name] = true
					for _, x := range c.Args {
						wide[name] |= x.Value | x.ValueTwo
					}
				}
			}
			a.each(func(name string, nr uint32) {
				if slices.Contains(theirs[n].Unknown, name) {
					return
				}
				for i, v := range values {
					if i > 0 && !named[name] {
						break
					}
					for _, w := range []uint64{0, v, ^v} {
						args := [6]uint64{v, w, v, w, w, v}
						if a.x32 && (v|w|wide[name])>>32 != 0 {
							continue // libseccomp looks at 32 bits there, though the kernel has all
						}
						got, want := evaluate(t, code, a.audit, nr, args), evaluate(t, theirs[n].Code, a.audit, nr, args)
						compared++
						if got != want && !(got == unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) && !named[name]) {
							text, _ := json.Marshal(s)
							t.Fatalf("profile %d, %s %s (%#x) %#x: %#x here, %#x by libseccomp: %s", n, a.name, name, nr, args, got, want, fmt.Sprintf("%.3000s", text))
						}
					}
				}
			})
		}
	}
	t.Logf("%d answers compared", compared)
	if compared < 10000 {
		t.Error("too few comparisons")
	}
}
