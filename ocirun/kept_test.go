package ocirun

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	profiles "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestKeptFilters: another process finds the filter of the same profile, and
// nothing in a file that is not to be trusted, or of another profile.
func TestKeptFilters(t *testing.T) {
	last, of := lastFilter.Load(), lastProfile.Load()
	t.Cleanup(func() { keptIn = ""; lastFilter.Store(last); lastProfile.Store(of) })
	KeepFilters(t.TempDir())
	s := Default("/", "true")
	var err error
	if s.Linux.Seccomp, err = profiles.GetDefaultProfile(s); err != nil {
		t.Fatal(err)
	}
	again := func() (*specs.Spec, *filter) { // as a process of its own would
		t.Helper()
		lastFilter.Store(nil)
		lastProfile.Store(nil)
		text, err := json.MarshalIndent(s, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		read := new(specs.Spec)
		if err := decodeSpec(text, read); err != nil {
			t.Fatal(err)
		}
		f, err := compileFilter(read.Linux.Seccomp)
		if err != nil {
			t.Fatal(err)
		}
		return read, f
	}
	kept := func(s *specs.Spec) bool { return s.Linux.Seccomp.DefaultAction == "kept" }
	read, first := again()
	if kept(read) {
		t.Fatal("found before it was kept")
	}
	read, second := again()
	if !kept(read) || !bytes.Equal(first.code, second.code) || first.flags != second.flags {
		t.Fatal("compiled again, or another filter")
	}
	if read.Hostname != s.Hostname || len(read.Linux.MaskedPaths) != len(s.Linux.MaskedPaths) {
		t.Error("what stands around the profile was misread")
	}
	lastFilter.Store(nil)
	if _, err := compileFilter(read.Linux.Seccomp); err == nil {
		t.Error("what stands for a kept profile was compiled")
	}

	files, _ := os.ReadDir(keptIn)
	if len(files) != 1 || ValidID(files[0].Name()) == nil {
		t.Fatalf("kept in %v", files)
	}
	name := keptIn + "/" + files[0].Name()
	good, _ := os.ReadFile(name)
	for what, spoil := range map[string]func(){
		"writable by others": func() { _ = os.Chmod(name, 0o602) },
		"a link":             func() { _ = os.Rename(name, keptIn+"/x"); _ = os.Symlink("x", name) },
		"of another program": func() { _ = os.WriteFile(name, append([]byte{good[0] ^ 1}, good[1:]...), 0o600) },
		"of another profile": func() {
			_ = os.WriteFile(name, bytes.Replace(good, []byte("SCMP_ACT_ALLOW"), []byte("SCMP_ACT_ALLOX"), 1), 0o600)
		},
		"with a part of the filter": func() { _ = os.WriteFile(name, good[:len(good)-8], 0o600) },
		"with nothing written": func() {
			_ = os.WriteFile(name, append(good[:len(good)-len(first.code):len(good)-len(first.code)], make([]byte, len(first.code))...), 0o600)
		},
		"half":  func() { _ = os.WriteFile(name, good[:len(good)-len(first.code)], 0o600) },
		"empty": func() { _ = os.WriteFile(name, nil, 0o600) },
		"with a length too large": func() {
			_ = os.WriteFile(name, append(append(good[:36:36], 0xff, 0xff, 0xff, 0xff), good[40:]...), 0o600)
		},
	} {
		spoil()
		if read, f := again(); kept(read) || !bytes.Equal(f.code, first.code) {
			t.Errorf("a file %s was believed", what)
		}
		if read, _ := again(); !kept(read) {
			t.Errorf("a file %s was not replaced", what)
		}
		_ = os.Remove(keptIn + "/x")
	}

	s.Linux.Seccomp.ListenerPath = "/run/agent"
	again()
	if read, _ := again(); kept(read) {
		t.Error("a profile with an agent was kept")
	}
	s.Linux.Seccomp.ListenerPath = ""
	s.Linux.Seccomp.DefaultAction = specs.ActLog
	if read, f := again(); kept(read) || bytes.Equal(f.code, first.code) {
		t.Error("another profile has the same filter")
	}
	if !strings.HasPrefix(files[0].Name(), keptName) {
		t.Error(files[0].Name())
	}
	s.Linux.Seccomp.DefaultAction = specs.ActKillProcess
	s.Linux.Seccomp.Syscalls[0].Names = append(s.Linux.Seccomp.Syscalls[0].Names, strings.Repeat("x", keptMost))
	before, _ := os.ReadDir(keptIn)
	again()
	if after, _ := os.ReadDir(keptIn); len(after) != len(before) {
		t.Error("a file was written that is too large to be read")
	}
}
