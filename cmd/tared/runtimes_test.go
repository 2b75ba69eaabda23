package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program puts an executable into a directory that is all of PATH.
func program(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

func TestRuntimes(t *testing.T) {
	dir := program(t, "runc", "mine")
	o, err := readOptions(append(config(t, `{
		"runtimes": {"kata": {"path": "/usr/bin/kata", "runtimeArgs": ["--debug", "--x=y"]}, "a": {"runtimeType": "io.containerd.runc.v2"},
		"b": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "mine"}}}, "default-runtime": "runc"
	}`), "--add-runtime", "c=/usr/sbin/c"))
	if err != nil {
		t.Fatal(err)
	}
	got := o.runtimes()
	for name, path := range map[string]string{"tarerun": "", "runc": dir + "/runc", "io.containerd.runc.v2": dir + "/runc", "a": dir + "/runc",
		"b": dir + "/mine", "c": "/usr/sbin/c", "kata": "/usr/bin/kata"} {
		if rt, ok := got[name]; !ok || rt.Path != path {
			t.Errorf("%s: %+v, want %s", name, rt, path)
		}
	}
	if len(got) != 7 || !slices.Equal(got["kata"].Args, []string{"--debug", "--x=y"}) {
		t.Errorf("%+v", got) // no crun: it is not there
	}
	if o, err = readOptions(append(config(t, ""), "--add-runtime", "runc=/own/runc")); err != nil || o.runtimes()["runc"].Path != "/own/runc" {
		t.Errorf("one's own runc does not go before the one in PATH: %v", err)
	}
}

func TestRefusedRuntimes(t *testing.T) {
	program(t)
	for file, want := range map[string]string{
		`{"runtimes": {"a": {"runtimeType": "io.containerd.kata.v2"}}}`:                                       "runtimeType io.containerd.kata.v2 of runtime a is not supported",
		`{"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2", "path": "/x"}}}`:                         "cannot have both path and runtimeType",
		`{"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2", "runtimeArgs": ["x"]}}}`:                 "cannot have runtimeArgs and runtimeType",
		`{"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": "true"}}}}`: "the option SystemdCgroup of runtime a is not supported",
		`{"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2"}}}`:                                       "runtime a: runc is not in PATH",
		`{"runtimes": {"a": {"path": "/x", "options": {"BinaryName": "y"}}}}`:                                 "has a path and options",
		`{"runtimes": {"a": {}}}`:     "either a runtimeType or a path must be configured",
		`{"default-runtime": "runc"}`: "specified default runtime 'runc' does not exist",
	} {
		if _, err := readOptions(config(t, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

func TestDeviceDirectories(t *testing.T) {
	for file, want := range map[string][]string{"": {"/etc/cdi", "/var/run/cdi"}, `{"cdi-spec-dirs": ["/a"]}`: {"/a"}, `{"cdi-spec-dirs": [""]}`: nil} {
		o, err := readOptions(config(t, file))
		if err != nil || !slices.Equal(o.devices().Dirs, want) {
			t.Errorf("%s: %v, %v", file, o.devices().Dirs, err)
		}
	}
}
