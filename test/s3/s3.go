// Package s3 runs an S3 server for tests: versitygw over a directory, a real,
// foreign program, as a process of its own on a loopback port.
package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Credentials of the server.
const (
	AccessKey = "tare"
	SecretKey = "tests-of-tare"
)

// Server is one that runs.
type Server struct {
	Host string // "127.0.0.1:port"
	Root string // directory with a directory for each bucket

	dir     string
	program string
	cert    string
	key     string
	life    io.Closer // the process ends with it
	ended   chan struct{}
}

// Start runs a server, with the buckets, until the test's end.
func Start(t testing.TB, buckets ...string) *Server {
	t.Helper()
	return StartTLS(t, "", "", buckets...)
}

// StartTLS is Start, by TLS with the certificate and its key if they are not "".
func StartTLS(t testing.TB, cert, key string, buckets ...string) *Server {
	t.Helper()
	program, err := Program()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(fastest(), "tare-test-s3-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{dir: dir, Root: filepath.Join(dir, "root"), program: program, cert: cert, key: key}
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log of the S3 server %s:\n%s", s.Host, s.log())
		}
		os.RemoveAll(dir)
	})
	for _, b := range append(buckets, "") {
		if err := os.MkdirAll(filepath.Join(s.Root, b), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	return s
}

// fastest is a directory in memory, if there is one with the attributes that the
// server keeps ETags in; else "", that of temporary files.
func fastest() string {
	const shm = "/dev/shm"
	f, err := os.CreateTemp(shm, "tare-test-s3-")
	if err != nil {
		return ""
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if unix.Fsetxattr(int(f.Fd()), "user.tare", []byte("x"), 0) != nil {
		return ""
	}
	return shm
}

// lifeline runs a command until standard input ends, so that no server outlives
// a test process, however that ends.
const lifeline = `"$@" </dev/null & pid=$!; cat >/dev/null; kill -KILL $pid; wait $pid`

// Up starts the server again after Down, at the same address with the same content.
func (s *Server) Up() error {
	if s.Host == "" {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.Host = l.Addr().String()
		l.Close()
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("sh", "-c", lifeline, "lifeline", s.program, "--quiet", "--keep-alive",
		"--port", s.Host, "--access", AccessKey, "--secret", SecretKey, "--cert", s.cert, "--key", s.key, "posix", s.Root)
	cmd.Stdout, cmd.Stderr = log, log
	if s.life, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func(ended chan struct{}) { _ = cmd.Wait(); close(ended) }(s.ended)
	for deadline := time.Now().Add(30 * time.Second); ; {
		if c, err := net.Dial("tcp4", s.Host); err == nil {
			return c.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("the S3 server ended: %s", s.log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the S3 server does not start: %s", s.log()), s.Down())
		}
	}
}

// Down kills the server's process.
func (s *Server) Down() error {
	if s.life == nil {
		return nil
	}
	s.life.Close()
	s.life = nil
	select {
	case <-s.ended:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the S3 server %s does not end", s.Host)
	}
}

func (s *Server) log() string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(data[max(0, len(data)-2<<10):])
}

// Program is the path of the server, which is built once: for all the test
// processes that have the same directory in TARE_TEST_SHARED, or else for all
// of this user.
var Program = sync.OnceValues(func() (string, error) {
	dir := os.Getenv("TARE_TEST_SHARED")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "tare-test")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
	}
	_, file, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(file), "server")
	module, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "versitygw")
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if built, err := os.ReadFile(path + ".mod"); err == nil && bytes.Equal(built, module) {
		return path, nil
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building versitygw: %w: %s", err, out)
	}
	return path, os.WriteFile(path+".mod", module, 0o600)
})
