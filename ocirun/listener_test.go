package ocirun

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// agent answers every call that it hears of with ENOMEDIUM, for as many
// processes as it is told of.
func agent(t *testing.T, path string, states chan<- specs.ContainerProcessState) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Error(err)
		return
	}
	var answering sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		answering.Wait() // their containers have ended
	})
	answering.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			text, rights := make([]byte, 8192), make([]byte, unix.CmsgSpace(4))
			n, oobn, _, _, err := conn.ReadMsgUnix(text, rights)
			conn.Close()
			if err != nil {
				t.Error(err)
				continue
			}
			var s specs.ContainerProcessState
			if err := json.Unmarshal(text[:n], &s); err != nil {
				t.Error(err)
			}
			messages, _ := unix.ParseSocketControlMessage(rights[:oobn])
			fds, _ := unix.ParseUnixRights(&messages[0])
			states <- s
			answering.Go(func() { answer(fds[0]) })
		}
	})
}

func answer(fd int) {
	defer unix.Close(fd)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} // old kernels leave who waits for a notification waiting
		if _, err := unix.Poll(ready, -1); err == unix.EINTR {
			continue
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return // the last process is gone
		}
		notification, response := make([]byte, 80), make([]byte, 24) // struct seccomp_notif, seccomp_notif_resp
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&notification[0]))); e != 0 {
			return
		}
		copy(response, notification[:8])
		e := int32(unix.ENOMEDIUM)
		binary.NativeEndian.PutUint32(response[16:], uint32(-e))
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&response[0])))
	}
}

// TestBusyAgent: the agent's queue is full and it takes nobody.
func TestBusyAgent(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "true")
	path := filepath.Join(t.TempDir(), "agent")
	socket := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	listener, first := socket(), socket()
	defer unix.Close(listener)
	defer unix.Close(first)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 0), unix.Connect(first, &unix.SockaddrUnix{Name: path})); err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: path,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := Create(ctx, Options{Bundle: dir, Spec: s, ID: containerID(t)}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > agentPatience/2 {
		t.Error(err)
	}
	seccomp := s.Linux.Seccomp
	s.Linux.Seccomp, s.Process.Args = nil, []string{"sleep", "60"}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	s.Linux.Seccomp = seccomp
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, ExecOptions{Process: s.Process}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("exec:", err)
	}
	defer func(old time.Duration) { agentPatience = old }(agentPatience)
	agentPatience = 50 * time.Millisecond
	if _, err := c.Exec(context.Background(), ExecOptions{Process: s.Process}); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}

func TestSeccompAgent(t *testing.T) {
	for _, noNewPrivileges := range []bool{true, false} {
		dir, s := shell(t, "mkdir /tmp/x; true")
		path, states := filepath.Join(t.TempDir(), "agent"), make(chan specs.ContainerProcessState, 4)
		s.Process.NoNewPrivileges = noNewPrivileges
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "meta",
			Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
		if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "failed to connect with seccomp agent") {
			t.Error(err)
		}
		agent(t, path, states)
		if out, _ := run(t, dir, s); !strings.Contains(out, "No medium found") {
			t.Errorf("no new privileges %v: got %q", noNewPrivileges, out)
		}
		if state := <-states; state.Metadata != "meta" || state.State.Status != specs.StateCreating || state.Pid == 0 || state.Pid != state.State.Pid {
			t.Errorf("got %+v", state)
		}
		s.Process.Args = []string{"sleep", "60"}
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Error(err)
		}
		p := *s.Process
		p.Args = []string{"mkdir", "/tmp/y"}
		if out, code := execIn(t, c, &p); code == 0 || !strings.Contains(out, "No medium found") {
			t.Errorf("exec: got %q, code %d", out, code)
		}
		<-states
		if state := <-states; state.State.Status != specs.StateRunning || state.Pid == state.State.Pid {
			t.Errorf("exec: got %+v", state)
		}
		stop(t, c)
	}
}
