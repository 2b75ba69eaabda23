package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// killedBuild has all that a build may leave behind: steps with caches and trees of
// their own, copies, stages beside each other.
const killedBuild = `FROM busybox AS one
RUN --mount=type=cache,target=/c --mount=target=/ctx,rw echo one > /one; echo x >> /c/x; touch /ctx/new; sleep 0.05
COPY . /copied
RUN head -c 3000000 /dev/urandom > /random && sha256sum /random > /sum
FROM busybox AS two
RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c,sharing=locked sleep 0.1; echo two > /two
FROM one
COPY --from=two /two /
RUN cat /one /two > /both
`

// buildsKilled is how often something is killed; see TestKilledBuilds.
const buildsKilled = 8

// TestKilledBuilds kills the client, the process that builds, or the daemon at
// moments of chance during builds. The client gets an error, nothing is left,
// images that were acknowledged are whole, and the next build works. With
// TARE_SOAK set to a number it does so that often.
func TestKilledBuilds(t *testing.T) {
	testutil.RequireRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	k := &buildKiller{d: daemon.Start(t), dir: t.TempDir()}
	k.d.ImportBusybox(t)
	for name, size := range map[string]int{"a": 10, "b": 2_000_000} {
		if err := os.WriteFile(filepath.Join(k.dir, name), bytes.Repeat([]byte(name), size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(k.dir, "Dockerfile"), []byte(killedBuild), 0o644); err != nil {
		t.Fatal(err)
	}
	k.d.Tare(t, "build", "-q", "-t", "whole:0", k.dir)
	rounds := buildsKilled
	if n, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		rounds = n
	}
	for round := 1; round <= rounds && !t.Failed(); round++ {
		k.round(t, round, random)
	}
	k.d.Tare(t, "build", "-q", "-t", "whole:end", k.dir)
	k.check(t, "whole:end")
	k.check(t, "whole:0")
}

type buildKiller struct {
	d   *daemon.Daemon
	dir string // the context
}

// round kills during one build.
func (k *buildKiller) round(t *testing.T, round int, random *rand.Rand) {
	t.Helper()
	name := fmt.Sprintf("whole:%d", round)
	cmd := k.d.Command(t, "tare", "build", "-q", "--no-cache", "-t", name, k.dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond) // the moment of chance
	who := []string{"client", "builder", "daemon"}[round%3]
	switch who {
	case "client":
		_ = cmd.Process.Signal([]os.Signal{syscall.SIGTERM, syscall.SIGKILL, os.Interrupt}[random.IntN(3)])
	case "builder":
		_ = exec.Command("pkill", "-9", "-f", "tare-build --dir "+k.d.Dir+"/").Run() // it may have ended
	case "daemon":
		k.d.Signal(t, syscall.SIGKILL)
	}
	err := cmd.Wait()
	if who == "daemon" {
		k.d.Up(t)
	}
	if err == nil {
		k.check(t, name)
	} else if who != "client" && strings.TrimSpace(said.String()) == "" {
		t.Errorf("the %s was killed, and the client is told nothing: %v", who, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for left := k.left(t); len(left) > 0; left = k.left(t) {
		if time.Now().After(deadline) {
			t.Fatalf("round %d, the %s was killed; left is:\n%s", round, who, strings.Join(left, "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// check tells whether an image is whole: its archive is that of its files.
func (k *buildKiller) check(t *testing.T, name string) {
	t.Helper()
	if out := k.d.Tare(t, "run", "--rm", "--network", "none", name, "sh", "-c", "sha256sum -c /sum >&2 && cat /both"); out != "one\ntwo" {
		t.Errorf("%s holds %q", name, out)
	}
	if out, err := k.d.Command(t, "sh", "-c", k.d.Program("tare")+" save "+name+" | tar t >/dev/null").CombinedOutput(); err != nil {
		t.Errorf("%s cannot be saved: %v: %s", name, err, out)
	}
}

// left lists what a build has left.
func (k *buildKiller) left(t *testing.T) (list []string) {
	t.Helper()
	for _, pattern := range []string{"exec/b/steps/*", "exec/b/steps/.*", "data/snapshot/active/*", "data/build/scratch/*", "data/build/*/new*", "data/content/ingest/*", "data/content/index.soon.json"} {
		found, err := filepath.Glob(filepath.Join(k.d.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if filepath.Base(path) != "places" {
				list = append(list, path)
			}
		}
	}
	for _, left := range k.d.Left() { // the mounts, groups and processes of steps; interfaces wait for the next container
		if strings.Contains(left, "build-") {
			list = append(list, left)
		}
	}
	return list
}
