package ocirun

import (
	"os"
	"reflect"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/ocirun/cgroup"
	"github.com/tarehq/tare/ocirun/seccomp"
)

// Rehearse does for a config.json all of Create that touches nothing outside
// this process: it decodes and checks it, compiles its filter, which is kept
// for a Create with the same one, and builds the program. A process that waits
// for its container does so once, and finds its code and memory in place when
// it matters.
func Rehearse(config []byte) error {
	spec := new(specs.Spec)
	d := newDecoder(config)
	if err := d.document(spec); err != nil {
		return err
	}
	if err := check(spec); err != nil {
		return err
	}
	a, err := newAttempt(stepsOfInit, spec, spec.Process, [3]*os.File{}, nil, nil, false)
	if err != nil {
		return err
	}
	defer a.abort()
	b := a.b
	b.bundle, b.rootfs, b.home = "/", "/", "/"
	b.isDir = func(string) (bool, error) { return false, nil } // sources of mounts that are not there yet
	b.stage = 1                                                // as for nearly all
	if b.group, err = cgroup.At(groupPath(spec, "rehearsal")); err != nil {
		return err
	}
	if err := compile(spec.Linux.Seccomp)(b); err != nil {
		return err
	}
	if f := lastFilter.Load(); f != nil && d.profile != "" {
		lastFilter.Store(&filter{f.of, d.profile, f.code, f.flags})
	}
	if err := b.build(); err != nil {
		return err
	}
	a.arena, err = place(b.program, b.initFD, false)
	b.program.reuse()
	return err
}

// filter is a compiled seccomp filter.
type filter struct {
	of    *specs.LinuxSeccomp
	text  string // what it was decoded from, of a rehearsed one
	code  []byte
	flags uint
}

// lastFilter is the filter compiled last. Nearly all containers have the same
// profile, and compiling it is a tenth of a start.
var lastFilter atomic.Pointer[filter]

// compileFilter compiles a profile, or takes the last one's filter if it is
// the same profile.
func compileFilter(s *specs.LinuxSeccomp) (*filter, error) {
	if last := lastFilter.Load(); last != nil && reflect.DeepEqual(last.of, s) {
		if last.of != s { // the next comparison is of two pointers
			last = &filter{s, last.text, last.code, last.flags}
			lastFilter.Store(last)
		}
		return last, nil
	}
	code, flags, err := seccomp.Compile(s)
	if err != nil {
		return nil, err
	}
	f := &filter{s, "", code, flags}
	lastFilter.Store(f)
	if p := lastProfile.Load(); keptIn != "" && p != nil && p.of == s {
		keepFilter(p, f)
	}
	return f, nil
}

// SeccompArchitectures lists what linux.seccomp.architectures may name here.
func SeccompArchitectures() []string { return seccomp.Architectures() }
