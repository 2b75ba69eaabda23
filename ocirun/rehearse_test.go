package ocirun

import (
	"encoding/json"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A profile with the text of the rehearsed one is not decoded again, and another
// one is.
func TestRehearsedProfile(t *testing.T) {
	old := lastFilter.Load()
	t.Cleanup(func() { lastFilter.Store(old) })
	s := Default("/", "true")
	var err error
	if s.Linux.Seccomp, err = profile.GetDefaultProfile(s); err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/no/such/file", Options: []string{"rbind"}})
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := Rehearse(text); err != nil { // to its end, though the source is not there
		t.Fatal(err)
	}
	same := new(specs.Spec)
	if err := decodeSpec(text, same); err != nil {
		t.Fatal(err)
	}
	if same.Linux.Seccomp != lastFilter.Load().of {
		t.Error("the rehearsed profile was decoded again")
	}
	if same.Hostname != s.Hostname || len(same.Linux.MaskedPaths) != len(s.Linux.MaskedPaths) {
		t.Error("what stands around the profile was misread")
	}
	s.Linux.Seccomp.DefaultAction = specs.ActLog
	if text, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	other := new(specs.Spec)
	if err := decodeSpec(text, other); err != nil {
		t.Fatal(err)
	}
	if other.Linux.Seccomp.DefaultAction != specs.ActLog {
		t.Errorf("another profile is read as %v", other.Linux.Seccomp.DefaultAction)
	}
}
