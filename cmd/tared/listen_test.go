package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

func TestUnixSocket(t *testing.T) {
	// Longer than a socket's path may be.
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "s.sock")
	if _, err := listenUnix(path, "no-such-group"); !errors.Is(err, fault.Invalid) || inodeOf(path) != 0 {
		t.Errorf("a group that does not exist: %v", err)
	}
	l, err := listenUnix(path, defaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := groupID(defaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode != unix.S_IFSOCK|0o660 || os.Geteuid() == 0 && (st.Uid != 0 || int(st.Gid) != gid) {
		t.Errorf("%v mode %o of %d:%d", err, st.Mode, st.Uid, st.Gid)
	}
	if _, err := listenUnix(path, "0"); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second daemon: %v", err)
	}
	// As a killed daemon leaves it.
	l.(unixListener).UnixListener.Close()
	l, err = listenUnix(path, "0")
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, "0"); !errors.Is(err, fault.Conflict) {
		t.Errorf("over a file: %v", err)
	}
}

func TestGroupOfDockersSocket(t *testing.T) {
	o := &options{Group: defaultGroup}
	for path, want := range map[string]string{"/var/run/docker.sock": "docker", "/run/tare/tare.sock": "tare"} {
		if got := o.groupOf(path); got != want {
			t.Errorf("%s is of %s, want %s", path, got, want)
		}
	}
	o.Group = "wheel"
	if got := o.groupOf("/var/run/docker.sock"); got != "wheel" {
		t.Errorf("the group that was chosen gave way to %s", got)
	}
}

func TestBusyDaemonIsNotDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until its backlog is full
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			defer conn.Close()
		}
	}
	if _, err := listenUnix(path, "0"); !errors.Is(err, fault.Conflict) {
		t.Errorf("the socket of a daemon with a full backlog was taken: %v", err)
	}
}

func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := listenUnix(path, "0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := listenUnix(path, "0")
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	old.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestNoActivation(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if _, err := activated("", &options{}); err == nil || !strings.Contains(err.Error(), "no sockets found via socket activation") {
		t.Error(err)
	}
}

func TestRoots(t *testing.T) {
	dir := t.TempDir()
	o := &options{DataRoot: dir + "/d", ExecRoot: dir + "/e", Pidfile: dir + "/p"}
	r, err := openRoots(o)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]*options{
		"data root": {DataRoot: o.DataRoot, ExecRoot: dir + "/e2", Pidfile: dir + "/p2"},
		"exec root": {DataRoot: dir + "/d2", ExecRoot: o.ExecRoot, Pidfile: dir + "/p2"},
	} {
		if _, err := openRoots(other); !errors.Is(err, fault.Conflict) {
			t.Errorf("the same %s: %v", name, err)
		}
	}
	if st, err := os.Stat(o.DataRoot); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("who is not root may go through the data root: %v, %v", st.Mode(), err)
	}
	id := r.id
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Pidfile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the PID file: %v", err)
	}
	if r, err = openRoots(o); err != nil || r.id != id || len(id) != 36 {
		t.Fatalf("again: %v, identifiers %s and %s", err, id, r.id)
	}
	if err := os.WriteFile(o.Pidfile, []byte("1"), 0o600); err != nil { // a daemon of other roots
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Pidfile); err != nil {
		t.Errorf("another's PID file: %v", err)
	}
	if err := os.WriteFile(o.DataRoot+"/version", []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRoots(o); err == nil || !strings.Contains(err.Error(), "has format 2, which is newer than this tared's 1") {
		t.Error(err)
	}
}

// A stop ends streams that would never end, and lets a request that is under
// way finish.
func TestAnswerStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenUnix(path, "0")
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		begun <- struct{}{}
		if r.URL.Path == "/short" {
			select {
			case <-time.After(drainTime / 3):
				io.WriteString(w, "done")
			case <-r.Context().Done():
			}
			return
		}
		<-r.Context().Done()
		io.WriteString(w, "ended")
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- answer(ctx, handler, []net.Listener{l}, slog.New(slog.DiscardHandler)) }()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	get := func(path string) *http.Response {
		resp, err := client.Get("http://x" + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	short, long := get("/short"), get("/long")
	<-begun
	<-begun
	cancel()
	for resp, want := range map[*http.Response]string{short: "done", long: "ended"} {
		if text, err := io.ReadAll(resp.Body); string(text) != want || err != nil {
			t.Errorf("%q %v, want %s", text, err, want)
		}
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// The test runs itself as the program that systemd starts: the socket is
// descriptor 3, and the PID is known only there.
func TestActivation(t *testing.T) {
	if os.Getenv("TARE_TEST_ACTIVATED") != "" {
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		t.Setenv("LISTEN_FDS", "1")
		if _, err := activated("4", &options{}); err == nil {
			t.Error("descriptor 4 was not passed")
		}
		listeners, err := activated("3", &options{})
		if err != nil || len(listeners) != 1 {
			t.Fatal(listeners, err)
		}
		conn, err := listeners[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "here"); err != nil {
			t.Fatal(err)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestActivation$")
	child.Env = append(os.Environ(), "TARE_TEST_ACTIVATED=1")
	child.ExtraFiles = []*os.File{f}
	result := make(chan error, 1)
	go func() {
		out, err := child.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		result <- err
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); string(text) != "here" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// The test runs itself as a daemon whose log has lost its reader.
func TestLogWithoutReader(t *testing.T) {
	if os.Getenv("TARE_TEST_LOG") != "" {
		outliveLog()
		if _, err := io.WriteString(os.Stderr, "nobody reads this"); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLogWithoutReader$")
	child.Env, child.Stderr = append(os.Environ(), "TARE_TEST_LOG=1"), w
	if err := child.Run(); err != nil {
		t.Error(err)
	}
}

func TestPassedTCPSocketNeedsVerification(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	on := true
	for _, o := range []*options{{}, {TLS: &on}} {
		if _, err := guardTCP(l, o); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s was no reason to refuse: %v", o.missing(), err)
		}
	}
	off := false
	for _, o := range []*options{{InsecureTCP: true}, {TLS: &off}, {TLSVerify: &off}} { // our word for it, and dockerd's two
		if _, err := guardTCP(l, o); err != nil {
			t.Error(err)
		}
	}
}

// A daemon that was killed holds its locks until the kernel is done with it.
func TestLockWaitsForTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	dead, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { dead.Close() })
	f, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
