package buildkit

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

func TestMain(m *testing.M) {
	code := daemon.Isolated(m)
	sid.Clean()
	os.Exit(code)
}

// builder is BuildKit's own client at a daemon that has busybox.
func builder(t *testing.T) (*daemon.Daemon, *client.Client) {
	t.Helper()
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	return d, connect(t, d)
}

func connect(t *testing.T, d *daemon.Daemon) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), d.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// write makes files below dir.
func write(t *testing.T, dir string, list map[string]string) string {
	t.Helper()
	for name, text := range list {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// files are a directory to lend to a build.
func files(t *testing.T, list map[string]string) map[string]fsutil.FS {
	t.Helper()
	tree, err := fsutil.NewFS(write(t, t.TempDir(), list))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]fsutil.FS{"context": tree, "dockerfile": tree}
}

// output collects what is told of a build: names of vertices, output, warnings.
func output() (chan *client.SolveStatus, func() string) {
	ch, done := make(chan *client.SolveStatus), make(chan struct{})
	var text bytes.Buffer
	go func() {
		defer close(done)
		for s := range ch {
			for _, v := range s.Vertexes {
				text.WriteString("vertex " + v.Name + "\n")
			}
			for _, l := range s.Logs {
				text.Write(l.Data)
			}
			for _, w := range s.Warnings {
				text.WriteString("warning " + string(w.Short) + "\n")
			}
		}
	}()
	return ch, func() string { <-done; return text.String() }
}

var programs sync.Map // built, by package

// program builds a Go program, statically linked.
func program(t *testing.T, pkg string) string {
	t.Helper()
	build := sync.OnceValues(func() (string, error) {
		name := filepath.Join(daemon.Bin(t), "other-"+filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, pkg)
		cmd.Dir, cmd.Env = daemon.Root(), append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		return name + string(out), err
	})
	f, _ := programs.LoadOrStore(pkg, build)
	name, err := f.(func() (string, error))()
	if err != nil {
		t.Fatal(err, name)
	}
	return name
}

// image makes an image of one program, which is its entry point.
func image(t *testing.T, d *daemon.Daemon, name, pkg string, lines ...string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Link(program(t, pkg), dir+"/program"); err != nil {
		data, err := os.ReadFile(program(t, pkg))
		if err == nil {
			err = os.WriteFile(dir+"/program", data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nCOPY program /program\nENTRYPOINT [\"/program\"]\n" + strings.Join(lines, "\n")})
	d.Tare(t, "build", "-q", "-t", name, dir)
}
