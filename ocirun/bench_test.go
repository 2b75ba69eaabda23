package ocirun

import (
	"context"
	"fmt"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// both runs a benchmark with init executed from a memfd and without execution.
func both(b *testing.B, f func(b *testing.B)) {
	old := sealed
	defer func() { sealed = old }()
	for _, raw := range []bool{true, false} {
		sealed = func() bool { return raw }
		b.Run(fmt.Sprint("memfd ", !raw), f)
	}
}

// BenchmarkRun is a container of /bin/true from Create to Delete.
func BenchmarkRun(b *testing.B) {
	both(b, func(b *testing.B) {
		dir, s := bundle(b, "true")
		p, err := profile.GetDefaultProfile(s)
		if err != nil {
			b.Fatal(err)
		}
		s.Linux.Seccomp = p
		for b.Loop() {
			c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(b)})
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Wait(); err != nil {
				b.Fatal(err)
			}
			if err := c.Delete(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkExec is /bin/true in a container that runs, with and without a user
// namespace.
func BenchmarkExec(b *testing.B) {
	for _, user := range []bool{false, true} {
		b.Run(fmt.Sprint("user namespace ", user), func(b *testing.B) {
			both(b, func(b *testing.B) { benchmarkExec(b, user) })
		})
	}
}

func benchmarkExec(b *testing.B, user bool) {
	dir, s := bundle(b, "sleep", "1000")
	if user {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Delete()
	defer c.Wait()
	defer c.Signal(unix.SIGKILL, false)
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	p := *s.Process
	p.Args = []string{"/bin/true"}
	for b.Loop() {
		proc, err := c.Exec(context.Background(), ExecOptions{Process: &p})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := proc.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
