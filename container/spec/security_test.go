package spec

import (
	"slices"
	"testing"

	wire "github.com/moby/moby/api/types/container"
)

// TestSecurityModules: what is asked for of AppArmor and SELinux reaches the processes,
// where the kernel has them.
func TestSecurityModules(t *testing.T) {
	all := Modules{AppArmor: true, SELinux: true}
	for opt, ok := range map[string]bool{"apparmor=mine": true, "apparmor:mine": true, "label=type:x": true, "label:level:s0:c1,c2": true, "label=disable": true,
		"apparmor=a name": true, "apparmor=unconfined\x00mine": false, "apparmor=unconfined\n": false, "apparmor= unconfined": false} {
		if err := CheckSecurity([]string{opt}, all); (err == nil) != ok {
			t.Errorf("%s: %v", opt, err)
		}
	}
	if got := Labels([]string{"label=type:x", "seccomp=unconfined", "label:level:s0:c1,c2", "disable"}); !slices.Equal(got, []string{"type:x", "level:s0:c1,c2", "disable"}) {
		t.Errorf("labels: %q", got)
	}
	for _, c := range []struct {
		opts           []string
		privileged     bool
		standard, want string
	}{
		{nil, false, "docker-default", "docker-default"}, {nil, false, "", ""}, {nil, true, "docker-default", "unconfined"}, {nil, true, "", ""},
		{[]string{"apparmor=mine"}, true, "docker-default", "mine"}, {[]string{"apparmor=mine"}, false, "", "mine"},
		{[]string{"apparmor=unconfined"}, false, "docker-default", "unconfined"}, {[]string{"apparmor=unconfined"}, false, "", ""},
	} {
		in := Input{ID: "x", Path: "true", Config: &wire.Config{}, AppArmor: c.standard, ProcessLabel: "p", MountLabel: "m",
			HostConfig: &wire.HostConfig{SecurityOpt: c.opts, Privileged: c.privileged}}
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Exec(&wire.ExecCreateRequest{Cmd: []string{"true"}}, in)
		if err != nil {
			t.Fatal(err)
		}
		if s.Process.ApparmorProfile != c.want || p.ApparmorProfile != c.want || s.Process.SelinuxLabel != "p" || p.SelinuxLabel != "p" || s.Linux.MountLabel != "m" {
			t.Errorf("%+v: profiles %q and %q, labels %q, %q and %q", c, s.Process.ApparmorProfile, p.ApparmorProfile, s.Process.SelinuxLabel, p.SelinuxLabel, s.Linux.MountLabel)
		}
	}
}
