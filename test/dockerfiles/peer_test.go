package dockerfiles

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/served"
	"github.com/tarehq/tare/test/sid"
)

// rig is our daemon, the peer, and Docker's client for both.
type rig struct {
	d        *daemon.Daemon
	peer     string // its socket
	programs string
	server   string // http://ADDRESS:PORT of what builds fetch
	served   string // its directory

	debian sync.Once
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{d: daemon.Start(t), served: t.TempDir()}
	place := sid.New(t)
	r.programs = place.Programs(t, "docker")
	r.peer = place.Dockerd(t)
	served.Repository(t, r.served+"/git/project.git")
	r.server = "http://" + net.JoinHostPort(addressOf(t, "up0"), served.Serve(t, r.served))
	r.d.ImportBusybox(t)
	r.lend(t, "busybox")
	return r
}

// addressOf is the address of an interface, which both daemons reach.
func addressOf(t *testing.T, name string) string {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := i.Addrs()
	if err != nil || len(addrs) == 0 {
		t.Fatalf("%s has no address: %v", name, err)
	}
	ip, _, err := net.ParseCIDR(addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return ip.String()
}

// lend gives the peer an image of ours.
func (r *rig) lend(t *testing.T, image string) {
	t.Helper()
	file := filepath.Join(r.d.Dir, "lent.tar")
	r.d.Tare(t, "save", "-o", file, image)
	if out, err := r.script(t, r.peer, r.d.Dir, "docker load -i "+file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// script is a shell script with the client of one of the engines. What it calls
// must be seen in the place: files are below /tmp.
func (r *rig) script(t *testing.T, host, dir, text string, env ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "sh", "-euc", "eventually() { for i in $(seq 300); do \"$@\" >/dev/null 2>&1 && return; sleep 0.1; done; echo \"still not: $*\" >&2; return 1; }\n"+text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "DOCKER_HOST="+host, "DOCKER_CONFIG="+r.d.Dir+"/client", "HOME="+r.d.Dir, "PATH="+r.programs+":"+os.Getenv("PATH"),
		"BUILDX_NO_DEFAULT_ATTESTATIONS=1", "BUILDKIT_PROGRESS=plain", "SERVER="+r.server)...)
	return cmd
}

// build builds a case by one of the engines and returns the names of its images.
func (r *rig) build(t *testing.T, host, dir string, e example) []string {
	t.Helper()
	text, own := e.read(t, "build")
	if !own {
		text = "docker buildx build -t $IMAGE " + strings.Join(e.lines(t, "flags"), " ") + " context"
	}
	began := time.Now()
	if out, err := r.script(t, host, dir, text, "IMAGE="+e.image()).CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", text, err, out)
	}
	t.Logf("built in %.1f s at %s", time.Since(began).Seconds(), filepath.Base(host))
	out, err := r.script(t, host, dir, "docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=example/*'").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		repository, _, _ := strings.Cut(name, ":")
		return repository != e.image() && !strings.HasPrefix(repository, e.image()+"-of-")
	})
	slices.Sort(names)
	if len(names) == 0 {
		t.Fatalf("no image %s: %s", e.image(), out)
	}
	return names
}

// save reads an image, without its base.
func (r *rig) save(t *testing.T, host, name string) *saved {
	t.Helper()
	var known []string
	for _, base := range []string{"busybox", "debian:bookworm"} {
		if out, err := r.d.Try("image", "inspect", "--format", "{{json .RootFS.Layers}}", base); err == nil {
			var ids []string
			if err := json.Unmarshal([]byte(out), &ids); err != nil {
				t.Fatal(err)
			}
			known = append(known, ids...)
		}
	}
	cmd := r.script(t, host, "/", "docker save "+name)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s, err := readSaved(out, known...)
	if werr := cmd.Wait(); werr != nil {
		t.Fatalf("docker save: %v: %s", werr, problems.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAgainstBuildKit builds each case by Docker's client and buildx, with our
// daemon and with Docker's own, compares, and lets the images show that they work.
func TestAgainstBuildKit(t *testing.T) {
	if os.Getenv("TARE_TEST_CLIENTS") != "1" {
		t.Skip("make compat runs this")
	}
	testutil.RequireRoot(t)
	r := newRig(t)
	for _, e := range examples(t) {
		t.Run(e.name, func(t *testing.T) { r.run(t, e) })
	}
}

func (r *rig) run(t *testing.T, e example) {
	_, alone := e.read(t, "alone")
	if e.needs(t, "debian:bookworm") {
		r.debian.Do(func() {
			r.d.Tare(t, "import", images.Debian(t), "debian:bookworm")
			r.lend(t, "debian:bookworm")
		})
	}
	dir := e.checkout(t)
	if err := os.CopyFS(r.served, os.DirFS(filepath.Join(dir, "served"))); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	began := time.Now().Unix()
	names := r.build(t, r.d.Host, dir, e)
	if !alone {
		if theirs := r.build(t, r.peer, dir, e); !slices.Equal(names, theirs) {
			t.Errorf("the images are %q, want %q", names, theirs)
		}
		for _, name := range names {
			want := r.save(t, r.peer, name)
			for _, line := range r.save(t, r.d.Host, name).differences(want, began, e.lines(t, "loose")) {
				t.Errorf("%s: %s", name, line)
			}
			if _, golden := e.read(t, "golden"); golden && *update {
				if err := want.write(filepath.Join(e.dir, "golden")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if text, checked := e.read(t, "check"); checked {
		if out, err := r.script(t, r.d.Host, dir, text, "IMAGE="+e.image()).CombinedOutput(); err != nil {
			t.Errorf("its check: %v\n%s", err, out)
		}
	}
	if out, err := r.script(t, r.d.Host, dir, "docker ps -aq | xargs -r docker rm -fv").CombinedOutput(); err != nil {
		t.Error(fmt.Errorf("%w: %s", err, out))
	}
}
