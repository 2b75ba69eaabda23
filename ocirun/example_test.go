package ocirun_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun"
)

// rootOf makes a root file system of busybox in a temporary directory.
func rootOf(dir string) string {
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		_ = os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755)
	}
	_ = os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), box, 0o755)
	for _, name := range []string{"sh", "echo", "sleep", "dd", "true", "test"} {
		_ = os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", name))
	}
	return filepath.Join(dir, "rootfs")
}

// A container runs a program and is gone again. Stdio is what the program has;
// the exit status is a shell's.
func ExampleCreate() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	spec := ocirun.Default(rootOf(dir), "sh", "-c", "echo hello from $(hostname); exit 3")
	spec.Hostname = "box"

	c, err := ocirun.Create(context.Background(), ocirun.Options{Bundle: dir, Spec: spec, ID: "example-create",
		Stdio: [3]*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	status, err := c.Wait()
	fmt.Println(status.Code(), err)
	// hello from box
	// 3 <nil>
}

// What another process created is found by the directory of its state, and can
// be paused, asked, signalled and removed from there.
func ExampleLoad() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	config := `{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["sleep","60"],"env":["PATH=/bin"],"user":{"uid":0,"gid":0}},
		"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}`
	rootOf(dir)
	_ = os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)
	states := filepath.Join(dir, "states")
	created, err := ocirun.Create(context.Background(), ocirun.Options{Bundle: dir, ID: "example-load", StateDir: states})
	if err != nil {
		log.Fatal(err)
	}

	c, err := ocirun.Load(states, "example-load")
	if err != nil {
		log.Fatal(err)
	}
	tell := func() { fmt.Println(c.State().Status) }
	tell()
	_ = c.Start()
	tell()
	_ = c.Pause()
	tell()
	_ = c.Resume()
	_ = c.Signal(unix.SIGKILL, false)
	status, _ := created.Wait() // by its parent alone
	tell()
	fmt.Println(status.Code(), c.Delete())
	_, err = ocirun.Load(states, "example-load")
	fmt.Println(err)
	// created
	// running
	// paused
	// stopped
	// 137 <nil>
	// container does not exist: example-load
}

// sleeper is a container that waits for what is done to it.
func sleeper(dir, id string) *ocirun.Container {
	c, err := ocirun.Create(context.Background(), ocirun.Options{Bundle: dir, Spec: ocirun.Default(rootOf(dir), "sleep", "60"), ID: id})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	return c
}

// A further process in a container has what isolates the first, and its own
// user, directory and streams.
func ExampleContainer_Exec() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	c := sleeper(dir, "example-exec")
	defer func() { _ = c.Signal(unix.SIGKILL, true); _, _ = c.Wait(); _ = c.Delete() }()

	process := *c.Spec().Process
	process.Args, process.Cwd, process.User = []string{"sh", "-c", "pwd; id -u; exit 7"}, "/tmp", specs.User{UID: 7}
	p, err := c.Exec(context.Background(), ocirun.ExecOptions{Process: &process, Stdio: [3]*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		log.Fatal(err)
	}
	status, err := p.Wait()
	fmt.Println(status.Code(), err)
	// /tmp
	// 7
	// 7 <nil>
}

// Limits change while a container runs, and what the kernel counts is there to
// be read.
func ExampleContainer_Update() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	c := sleeper(dir, "example-update")
	defer func() { _ = c.Signal(unix.SIGKILL, true); _, _ = c.Wait(); _ = c.Delete() }()

	limit := int64(17)
	if err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err != nil {
		log.Fatal(err)
	}
	stats, err := c.Stats()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Pids.Current, stats.Pids.Limit)
	// 1 17
}

// Want of memory is told of when the kernel kills, and the end of the container
// when it comes, to whoever asks.
func ExampleContainer_NotifyOOM() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	limit := int64(16 << 20)
	spec := ocirun.Default(rootOf(dir), "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	c, err := ocirun.Create(context.Background(), ocirun.Options{Bundle: dir, Spec: spec, ID: "example-oom"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Delete()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ooms, err := c.NotifyOOM(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	<-ooms
	fmt.Println("short of memory")
	fmt.Println(c.AwaitExit(ctx))
	status, _ := c.Wait()
	fmt.Println(status.Code(), c.OOMKilled())
	// short of memory
	// <nil>
	// 137 true
}

// Pressure is told of before the kernel kills, for a container that can give
// something back.
func ExampleContainer_NotifyMemoryPressure() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	limit := int64(24 << 20)
	spec := ocirun.Default(rootOf(dir), "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2: pressure is time that is lost
		spec.Linux.Resources.Unified = map[string]string{"memory.high": "22M"}
	}
	c, err := ocirun.Create(context.Background(), ocirun.Options{Bundle: dir, Spec: spec, ID: "example-pressure"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Delete()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pressure, err := c.NotifyMemoryPressure(ctx, ocirun.PressureLow)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	_, told := <-pressure
	fmt.Println(told)
	status, _ := c.Wait()
	fmt.Println(status.Code())
	// true
	// 137
}

// A container goes to files and comes back from them, by CRIU: its processes go
// on where they were, under what the specification says now.
func ExampleContainer_Checkpoint() {
	dir, _ := os.MkdirTemp("", "bundle")
	defer os.RemoveAll(dir)
	spec := ocirun.Default(rootOf(dir), "sh", "-c", "echo once; while ! test -e /tmp/now; do sleep 0.05; done; echo and on")
	options := ocirun.Options{Bundle: dir, Spec: spec, ID: "example-checkpoint", Stdio: [3]*os.File{nil, os.Stdout, os.Stderr}}
	c, err := ocirun.Create(context.Background(), options)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	images := ocirun.CheckpointOptions{Images: filepath.Join(dir, "images"), CRIU: criuProgram}
	if err := c.Checkpoint(context.Background(), images); err != nil { // which ends it
		log.Fatal(err)
	}
	_, _ = c.Wait()
	if err := c.Delete(); err != nil {
		log.Fatal(err)
	}

	limit := int64(17)
	spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	if c, err = ocirun.Restore(context.Background(), options, images); err != nil {
		log.Fatal(err)
	}
	defer c.Delete()
	stats, _ := c.Stats()
	fmt.Println(stats.Pids.Limit)
	_ = os.WriteFile(filepath.Join(dir, "rootfs/tmp/now"), nil, 0o644)
	status, err := c.Wait()
	fmt.Println(status.Code(), err)
	// once
	// 17
	// and on
	// 0 <nil>
}

// criuProgram is for machines whose criu is not in PATH.
var criuProgram string

// TestExamples runs the examples, which need root, and compares what they print
// with the comment at their end.
func TestExamples(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox (Debian's busybox-static)")
	}
	criuProgram = testutil.CRIU(t)
	text, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, example := range map[string]func(){"ExampleCreate": ExampleCreate, "ExampleLoad": ExampleLoad, "ExampleContainer_Exec": ExampleContainer_Exec,
		"ExampleContainer_Update": ExampleContainer_Update, "ExampleContainer_NotifyOOM": ExampleContainer_NotifyOOM,
		"ExampleContainer_NotifyMemoryPressure": ExampleContainer_NotifyMemoryPressure, "ExampleContainer_Checkpoint": ExampleContainer_Checkpoint} {
		_, body, _ := strings.Cut(string(text), "func "+name+"() {\n")
		body, _, _ = strings.Cut(body, "\n}\n")
		var want strings.Builder
		for line := range strings.Lines(body + "\n") {
			if said, ok := strings.CutPrefix(line, "\t// "); ok {
				want.WriteString(said)
			}
		}
		if got := printed(t, example); got != want.String() {
			t.Errorf("%s printed %q, not %q", name, got, want.String())
		}
	}
}

// printed gives what a function writes to the standard output.
func printed(t *testing.T, f func()) string {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	old := os.Stdout
	os.Stdout = w
	f()
	os.Stdout = old
	w.Close()
	out, _ := io.ReadAll(r)
	return string(out)
}
