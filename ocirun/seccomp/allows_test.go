package seccomp

import (
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestAllows asks of each native call, with what the whole filter says of it as
// the judge.
func TestAllows(t *testing.T) {
	s, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	code, _, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	yes, no := 0, 0
	archs[0].each(func(name string, nr uint32) {
		allowed := Allows(code, nr)
		if allowed {
			yes++
		} else {
			no++
		}
		if bare := evaluate(t, code, archs[0].audit, nr, [6]uint64{}) == unix.SECCOMP_RET_ALLOW; allowed && !bare {
			t.Errorf("%s is told to be allowed", name)
		} else if bare && !allowed && name != "personality" && name != "socket" && name != "clone" {
			t.Errorf("%s is told not to be allowed", name)
		}
	})
	if yes < 250 || no < 50 {
		t.Errorf("%d allowed, %d not", yes, no)
	}
	if Allows(code, unix.SYS_PERSONALITY) {
		t.Error("a call of which some arguments are refused is told to be allowed")
	}
	if Allows(nil, unix.SYS_READ) {
		t.Error("an empty filter allows")
	}
}
