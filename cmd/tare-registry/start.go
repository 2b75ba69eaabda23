package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// One registry in the background, by user. Its files are of this boot:
//
//	registry.pid   its process and its addresses; locked as long as it runs
//	registry.log   what it logs
//	registry.sock  where it tells start that it is ready
const (
	pidFile   = "registry.pid"
	logFile   = "registry.log"
	readySock = "registry.sock"

	startTime = time.Minute
	stopTime  = time.Minute
)

// stateDir is the directory of such files, which nobody else can write to.
func (o *options) stateDir() (string, error) {
	dir := o.execRoot
	switch uid, run := os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"); {
	case dir != "":
	case uid == 0:
		dir = "/run/tare-registry"
	case filepath.IsAbs(run):
		dir = filepath.Join(run, "tare-registry")
	default:
		dir = filepath.Join(os.TempDir(), fmt.Sprint("tare-registry-", uid))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if owner := st.Sys().(*syscall.Stat_t).Uid; !st.IsDir() || int(owner) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return "", fault.New(fault.Forbidden, "%s is not yours alone: give a directory that is with --exec-root", dir)
	}
	return dir, nil
}

// claim opens the file of the process and locks it. It is fault.Conflict, with
// what the file says, while a registry runs.
func claim(dir string) (f *os.File, running string, err error) {
	f, err = os.OpenFile(filepath.Join(dir, pidFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return f, "", nil
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return nil, string(text), errors.Join(err, f.Close(), fault.New(fault.Conflict, "the registry is running already"))
}

// startInBackground runs serve with the same flags as a process of its own, and
// returns when that answers.
func startInBackground(ctx context.Context, out, _ io.Writer, o *options) error {
	dir, err := o.stateDir()
	if err != nil {
		return err
	}
	lock, running, err := claim(dir)
	if errors.Is(err, fault.Conflict) {
		_, err := fmt.Fprintln(out, "is running already:", describeProcess(dir, running))
		return err
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	sock := filepath.Join(dir, readySock)
	os.Remove(sock)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer os.Remove(sock)
	defer ready.Close()
	c, log, err := o.background(dir, sock, lock)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	answers, err := await(ctx, ready, ended)
	if err != nil {
		c.Process.Kill()
		return fault.New(fault.Unavailable, "%s", lastLine(log, err))
	}
	text := fmt.Sprintf("%d %s\n", c.Process.Pid, answers)
	if _, err := lock.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	if err := lock.Truncate(int64(len(text))); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "started:", describeProcess(dir, text))
	return err
}

// background starts the process. It inherits the lock and never lets it go.
func (o *options) background(dir, sock string, lock *os.File) (*exec.Cmd, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	name := filepath.Join(dir, logFile)
	log, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	line := []string{"serve"}
	o.flags.Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			if f.Name != "exec-root" {
				line = append(line, "--"+f.Name+"="+v)
			}
		}
	})
	c := exec.Command(self, line...)
	c.Stdout, c.Stderr, c.ExtraFiles = log, log, []*os.File{lock}
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+sock)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What this process was given, such as the end of somebody's pipe, is not for
	// one that stays. Old kernels cannot do that.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	return c, name, c.Start()
}

// await waits for the process to be ready, and gives its addresses.
func await(ctx context.Context, ready *net.UnixConn, ended <-chan error) (string, error) {
	told := make(chan string, 1)
	go func() {
		buf := make([]byte, 4096)
		n, _ := ready.Read(buf)
		told <- string(buf[:n])
	}()
	limit, release := context.WithTimeout(ctx, startTime)
	defer release()
	select {
	case state := <-told:
		_, status, _ := strings.Cut(state, "STATUS=")
		return strings.TrimSpace(status), nil
	case err := <-ended:
		return "", fmt.Errorf("the registry ended at once: %w", err)
	case <-limit.Done():
		return "", errors.New("the registry is not ready after a minute")
	}
}

// lastLine is what a process that ended has said last.
func lastLine(log string, err error) string {
	text, _ := os.ReadFile(log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return strings.TrimPrefix(last, "tare-registry: ")
	}
	return err.Error()
}

// describeProcess tells people what the file of the process says.
func describeProcess(dir, text string) string {
	pid, answers, _ := strings.Cut(strings.TrimSpace(text), " ")
	return fmt.Sprintf("%s (process %s, log %s)", answers, pid, filepath.Join(dir, logFile))
}

// findRunning gives the process of the registry in the background, which is there.
func (o *options) findRunning() (dir, text string, pid int, err error) {
	none := fault.New(fault.NotFound, "no registry is running in the background: begin with start")
	if dir, err = o.stateDir(); err != nil {
		return "", "", 0, err
	}
	lock, text, err := claim(dir)
	switch {
	case err == nil:
		return "", "", 0, errors.Join(lock.Close(), none)
	case !errors.Is(err, fault.Conflict):
		return "", "", 0, err
	}
	first, _, _ := strings.Cut(text, " ")
	if pid, err = strconv.Atoi(first); err != nil {
		return "", "", 0, fault.New(fault.Unavailable, "the registry is starting: try again")
	}
	return dir, text, pid, nil
}

func stopInBackground(ctx context.Context, out, _ io.Writer, o *options) error {
	dir, _, pid, err := o.findRunning()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	limit, release := context.WithTimeout(ctx, stopTime)
	defer release()
	for {
		lock, _, err := claim(dir)
		if err == nil {
			_, err = fmt.Fprintln(out, "stopped")
			return errors.Join(lock.Close(), err)
		}
		select {
		case <-limit.Done():
			return fault.New(fault.Unavailable, "the registry, process %d, has not ended yet: requests are under way", pid)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func showBackground(_ context.Context, out, _ io.Writer, o *options) error {
	dir, text, _, err := o.findRunning()
	if err == nil {
		_, err = fmt.Fprintln(out, "running:", describeProcess(dir, text))
	}
	return err
}
