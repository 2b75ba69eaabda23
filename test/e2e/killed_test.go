package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// subject is a container of TestKilledContainers: what its clients were told of
// it, and so what must be true of it after a crash. Only one client at a time
// works on it.
type subject struct {
	name  string
	brief bool // prints its lines and exits with code; otherwise it ticks until it is stopped
	lines int
	code  int

	// may lists what it may be now: one of "absent", "created", "up" and
	// "stopped" as long as all was acknowledged, more after a request that was cut off.
	may []string
	pid int // of the run that was seen last; 0 for none
}

// upheaval is a daemon that is killed while clients make, start, stop and remove
// containers.
type upheaval struct {
	d *daemon.Daemon

	mu       sync.Mutex
	free     []*subject // nobody works on these
	serial   int
	finished map[string]int // acknowledged requests, by their verb
}

// TestKilledContainers kills the daemon at moments of chance while clients
// create, start, stop and remove. No acknowledged container is lost or half
// there, none that runs dies, every exit code and line of output is right, and
// nothing is left of what is gone. With TARE_SOAK set to a number it does so that
// often.
func TestKilledContainers(t *testing.T) {
	testutil.RequireRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	u := &upheaval{d: daemon.Start(t), finished: map[string]int{}}
	u.d.ImportBusybox(t)
	rounds := killings
	if n, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		rounds = n
	}
	for round := 0; round < rounds || u.missing() != "" && round < 10*rounds; round++ {
		if round%5 == 4 { // some die while they take over what the last one left
			u.d.Begin(t)
			kill(t, u.d, time.Duration(random.IntN(60))*time.Millisecond)
		}
		if round > 0 {
			u.d.Up(t)
		}
		u.check(t)
		killAmid(t, u.d, 4, random.Uint64(), time.Duration(5+random.IntN(500))*time.Millisecond, u.step)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	u.d.Up(t)
	u.check(t)
	if verb := u.missing(); verb != "" {
		t.Errorf("no %s was acknowledged before a kill: %v", verb, u.finished)
	}
}

func (u *upheaval) missing() string {
	for _, verb := range []string{"create", "run", "start", "stop", "rm"} {
		if u.finished[verb] == 0 {
			return verb
		}
	}
	return ""
}

// step takes a container and does one thing with it.
func (u *upheaval) step(random *rand.Rand) {
	s := u.take(random)
	switch s.may[0] {
	case "absent":
		verb, then := "create", "created"
		if random.IntN(2) == 0 {
			verb, then = "run", "up"
		}
		args := []string{verb}
		if verb == "run" {
			args = append(args, "-d")
		}
		network := []string{"none", "bridge"}[random.IntN(2)]
		u.try(s, then, append(args, "--name", s.name, "--network", network, "busybox", "sh", "-c", s.script())...)
	case "created":
		u.try(s, "up", "start", s.name)
	case "up":
		if random.IntN(3) == 0 {
			u.try(s, "absent", "rm", "-f", s.name)
		} else {
			u.try(s, "stopped", "stop", "-t", "0", s.name)
		}
	default:
		u.try(s, "absent", "rm", s.name)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.free = append(u.free, s)
}

// take picks a container that nobody works on, or invents one. What a request
// that was cut off has made of it must be looked at first.
func (u *upheaval) take(random *rand.Rand) *subject {
	u.mu.Lock()
	defer u.mu.Unlock()
	known := slices.DeleteFunc(slices.Clone(u.free), func(s *subject) bool { return len(s.may) != 1 })
	if len(known) < 8 || random.IntN(4) == 0 && len(u.free) < 40 {
		u.serial++
		return &subject{name: fmt.Sprintf("killed%d", u.serial), brief: random.IntN(2) == 0, lines: 1 + random.IntN(20),
			code: random.IntN(100), may: []string{"absent"}}
	}
	s := known[random.IntN(len(known))]
	u.free = slices.DeleteFunc(u.free, func(other *subject) bool { return other == s })
	return s
}

// script is the container's program.
func (s *subject) script() string {
	if s.brief {
		return fmt.Sprintf("i=0; while test $i -lt %d; do i=$((i+1)); echo line $i; sleep 0.02; done; exit %d", s.lines, s.code)
	}
	return "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
}

// try runs a command after which the container is what then says.
func (u *upheaval) try(s *subject, then string, args ...string) {
	s.may, s.pid = append(s.may, then), 0
	if args[0] == "run" { // it creates first
		s.may = append(s.may, "created")
	}
	if args[0] == "rm" && s.may[0] == "up" { // it kills first
		s.may = append(s.may, "stopped")
	}
	if _, err := u.d.Try(args...); err != nil {
		return
	}
	s.may = []string{then}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.finished[args[0]]++
}

// seen is what the daemon tells of a container.
type seen struct {
	ID    string `json:"Id"`
	State struct {
		Status        string
		Pid, ExitCode int
		Error         string
		StartedAt     string
	}
}

// check holds the daemon, which has just started, against what was acknowledged.
func (u *upheaval) check(t *testing.T) {
	t.Helper()
	listed := strings.Fields(u.d.Tare(t, "ps", "-a", "--format", "{{.Names}}"))
	known := map[string]bool{}
	alive := 0
	for _, s := range u.free {
		known[s.name] = true
		if !slices.Contains(listed, s.name) {
			if !slices.Contains(s.may, "absent") {
				t.Errorf("%s is lost: it was acknowledged as %v", s.name, s.may)
			}
			s.may, s.pid = []string{"absent"}, 0
			continue
		}
		if u.checkOne(t, s) {
			alive++
		}
	}
	for _, name := range listed {
		if !known[name] {
			t.Errorf("%s is there, and nobody asked for it", name)
		}
	}
	u.free = slices.DeleteFunc(u.free, func(s *subject) bool { return s.may[0] == "absent" })
	u.checkLeftovers(t, alive, len(listed))
}

// checkOne looks at one container that is there and tells whether it runs.
func (u *upheaval) checkOne(t *testing.T, s *subject) bool {
	t.Helper()
	now := u.look(t, s)
	if s.brief && now.State.Status == "running" {
		testutil.Eventually(t, 20*time.Second, s.name+" ends", func() bool {
			now = u.look(t, s)
			return now.State.Status != "running"
		})
	}
	was := s.may
	switch now.State.Status {
	case "created":
		s.may, s.pid = []string{"created"}, 0
	case "running":
		if s.pid != 0 && s.pid != now.State.Pid && slices.Equal(was, []string{"up"}) {
			t.Errorf("%s ran as %d and runs as %d", s.name, s.pid, now.State.Pid)
		}
		s.may, s.pid = []string{"up"}, now.State.Pid
		if syscall.Kill(now.State.Pid, 0) != nil {
			t.Errorf("%s runs as %d, which is no more", s.name, now.State.Pid)
		}
	case "exited":
		s.may, s.pid = []string{"stopped"}, 0
		ended := s.brief && slices.Contains(was, "up") // by itself, perhaps before it was stopped
		if !ended && !slices.Contains(was, "stopped") {
			t.Errorf("%s has ended with %d, and was %v: %s", s.name, now.State.ExitCode, was, now.State.Error)
		}
		if s.brief && slices.Equal(was, []string{"up"}) && now.State.ExitCode != s.code {
			t.Errorf("%s ended with %d, not %d: %s", s.name, now.State.ExitCode, s.code, now.State.Error)
		}
		if code := now.State.ExitCode; code != 137 && !(s.brief && code == s.code) {
			t.Errorf("%s ended with %d: %s", s.name, code, now.State.Error)
		}
	default:
		t.Errorf("%s is %s", s.name, now.State.Status)
	}
	if !slices.Contains(was, s.may[0]) && !(s.brief && s.may[0] == "stopped" && slices.Contains(was, "up")) {
		t.Errorf("%s is %s, and was acknowledged as %v", s.name, now.State.Status, was)
	}
	u.checkLog(t, s, now)
	return now.State.Status == "running"
}

func (u *upheaval) look(t *testing.T, s *subject) seen {
	t.Helper()
	var list []seen
	if err := json.Unmarshal([]byte(u.d.Tare(t, "inspect", s.name)), &list); err != nil || len(list) != 1 {
		t.Fatalf("%s: %v", s.name, err)
	}
	return list[0]
}

// checkLog compares the output with what the program says: each line once, in
// order, and all of them if it ended by itself.
func (u *upheaval) checkLog(t *testing.T, s *subject, now seen) {
	t.Helper()
	lines := strings.Split(u.d.Tare(t, "logs", s.name), "\n")
	if lines[0] == "" {
		lines = lines[1:]
	}
	for i, line := range lines {
		if line != fmt.Sprintf("line %d", i+1) {
			t.Errorf("line %d of %s says %q", i+1, s.name, line)
			return
		}
	}
	if s.brief && now.State.Status == "exited" && now.State.ExitCode == s.code && len(lines) != s.lines {
		t.Errorf("%s has said %d lines, not %d", s.name, len(lines), s.lines)
	}
}

// checkLeftovers counts what containers have on the machine.
func (u *upheaval) checkLeftovers(t *testing.T, alive, all int) {
	t.Helper()
	for _, c := range []struct {
		what, pattern string
		most          int
	}{
		{"bundles", u.d.Dir + "/exec/c/*", alive},
		{"cgroups", "/sys/fs/cgroup/pids" + u.d.Cgroup + "/" + strings.Repeat("?", 64), alive},
		{"records", u.d.Dir + "/data/containers/*", all},
		{"writable layers", u.d.Dir + "/data/snapshot/active/*", all},
	} {
		var found []string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if found, _ = filepath.Glob(c.pattern); len(found) == c.most {
				break
			}
		}
		if len(found) != c.most {
			t.Errorf("there are %d %s, not %d: %v", len(found), c.what, c.most, found)
		}
	}
}
