package ocirun

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// Hooks of the kinds createContainer and startContainer run inside the
// container's namespaces, so init itself starts them: it clones a child that
// shares its memory until it executes, and waits for its end. The container's
// state comes to them from one memory file, what they say goes to another.

// innerHooks are the two files; -1 when no hook needs them.
type innerHooks struct{ state, out int }

func hasInnerHooks(h *specs.Hooks) bool {
	return h != nil && len(h.CreateContainer)+len(h.StartContainer) > 0
}

// openInner makes the files before the child exists.
func (a *attempt) openInner(floor int) error {
	for _, to := range []*int{&a.b.inner.state, &a.b.inner.out} {
		fd, err := unix.MemfdCreate("hook", unix.MFD_CLOEXEC)
		if err != nil {
			return fault.New(fault.Internal, "make a file for hooks: %w", err)
		}
		if *to, err = a.above(fd, floor); err != nil {
			return err
		}
	}
	return nil
}

// tellInner writes the state that inner hooks read.
func (c *Container) tellInner(a *attempt, status specs.ContainerState) error {
	text, err := json.Marshal(c.hookState(status))
	if err == nil {
		err = unix.Ftruncate(a.b.inner.state, int64(len(text)))
	}
	if err == nil {
		_, err = unix.Pwrite(a.b.inner.state, text, 0)
	}
	if err != nil {
		return fault.New(fault.Internal, "write the state for hooks: %w", err)
	}
	return nil
}

// hookSteps appends the run of hooks in order. The first that fails goes to the
// steps that failed appends for it, with the slot of its wait status.
func (b *builder) hookSteps(kind string, hooks []specs.Hook, env []string, failed func(i int, status value)) error {
	p := b.program
	for i := range hooks {
		h := &hooks[i]
		what := "run the hook " + kind
		child, parent, ended, bad, done := p.label(), p.label(), p.label(), p.label(), p.label()
		pid, pidfd, status := p.words(num(0)), p.words(num(uint64(unix.POLLIN)<<32)), p.words(num(0))
		p.do(what, h.Path, unix.SYS_LSEEK, num(b.inner.state), num(0), num(0))
		p.do(what, h.Path, unix.SYS_CLONE, num(unix.CLONE_VM|unix.CLONE_VFORK|unix.CLONE_PIDFD|int(unix.SIGCHLD)), num(0), pidfd).into(slotAt(pid, 0))
		p.do("compare", "", 0, slotAt(pid, 0), num(0)).then(child).otherwise(parent).nr = opCompare
		p.here(child)
		p.do(what, h.Path, unix.SYS_DUP3, num(b.inner.state), num(0), num(0)).ignore()
		p.do(what, h.Path, unix.SYS_DUP3, num(b.inner.out), num(1), num(0)).ignore()
		p.do(what, h.Path, unix.SYS_DUP3, num(b.inner.out), num(2), num(0)).ignore()
		argv, vars := h.Args, h.Env
		if len(argv) == 0 {
			argv = []string{h.Path}
		}
		if vars == nil {
			vars = env
		}
		p.do(what, h.Path, unix.SYS_EXECVE, p.str(h.Path), p.vector(argv), p.vector(vars)).ignore()
		sorry := "it cannot be executed\n"
		p.do(what, h.Path, unix.SYS_WRITE, num(2), p.str(sorry), num(len(sorry))).ignore()
		p.do(what, h.Path, unix.SYS_EXIT_GROUP, num(127)).ignore()
		p.here(parent)
		if h.Timeout != nil {
			if *h.Timeout <= 0 {
				return fault.New(fault.Invalid, "the time-out of the hook %s must be greater than zero", kind)
			}
			b.hookDeadline(what, h, slotAt(pidfd, 0), slotAt(pid, 0), ended)
		}
		p.here(ended)
		p.close(slotAt(pidfd, 0))
		p.do(what, h.Path, unix.SYS_WAIT4, slotAt(pid, 0), status, num(0), num(0))
		p.do("compare", "", 0, slotAt(status, 0), num(0)).then(done).otherwise(bad).nr = opCompare
		p.here(bad)
		failed(i, slotAt(status, 0))
		p.here(done)
	}
	return nil
}

// hookDeadline kills a hook that runs too long; its wait status tells the rest.
// The kernel wrote the pidfd's four bytes to the begin of a struct pollfd.
func (b *builder) hookDeadline(what string, h *specs.Hook, pidfd, pid value, ended label) {
	p := b.program
	p.do(what, h.Path, unix.SYS_PPOLL, value{address, pidfd.n}, num(1), p.words(num(*h.Timeout), num(0)), num(0), num(0)).wants(1).then(ended).otherwise(following)
	p.do(what, h.Path, unix.SYS_KILL, pid, num(int(unix.SIGKILL))).ignore()
}

// containerHooks appends the hooks createContainer, in the new root directory
// while paths still lead to the host.
func (b *builder) containerHooks() error {
	h := b.spec.Hooks
	if h == nil || len(h.CreateContainer) == 0 {
		return nil
	}
	b.report(recordInner)
	b.pause()
	b.enter("run hooks in", "/", b.root.fd)
	return b.hookSteps("createContainer", h.CreateContainer, nil, func(i int, status value) {
		b.refuse("error running createContainer hook #"+strconv.Itoa(i)+":", h.CreateContainer[i].Path)
		b.hookStatus = append(b.hookStatus, hookStatus{len(b.steps) - 1, status})
	})
}

// hookStatus is where a failed hook's wait status lies.
type hookStatus struct {
	step   int
	status value
}

// hookFailure adds to a failed step how its hook ended and what it said; nothing
// for other steps. The child has not left the shared memory by then.
func (a *attempt) hookFailure(step int) string {
	for _, h := range a.b.hookStatus {
		if h.step != step {
			continue
		}
		at := stepsAt + len(a.b.steps)*stepSize + int(h.status.n)
		ws := unix.WaitStatus(*(*uint32)(unsafe.Pointer(&a.arena.mem[at])))
		end := "exit status " + strconv.Itoa(ws.ExitStatus())
		if ws.Signaled() {
			end = "signal: " + ws.Signal().String()
		}
		return ": " + end + ", output: " + strings.TrimSpace(a.said())
	}
	return ""
}

// said is the output of inner hooks.
func (a *attempt) said() string {
	b := make([]byte, 4096)
	n, _ := unix.Pread(a.b.inner.out, b, 0)
	return string(b[:max(n, 0)])
}

// startHooks appends the hooks startContainer, in the container just before its
// program. There is nobody to tell but the process's standard error.
func (b *builder) startHooks(proc *specs.Process) error {
	h := b.spec.Hooks
	if b.inner.state < 0 || h == nil {
		return nil
	}
	return b.hookSteps("startContainer", h.StartContainer, b.environment(proc), func(i int, status value) {
		text := "error running startContainer hook #" + strconv.Itoa(i) + ": " + h.StartContainer[i].Path + "\n"
		for _, sig := range []unix.Signal{unix.SIGSYS, unix.SIGKILL, unix.SIGSEGV} { // the likely ones
			other, died := b.label(), "signal: "+sig.String()+"\n"
			b.do("compare", "", 0, status, num(sig)).otherwise(other).nr = opCompare
			b.do("tell", "", unix.SYS_WRITE, num(2), b.str(died), num(len(died))).ignore()
			b.here(other)
		}
		b.do("tell", "", unix.SYS_SENDFILE, num(2), num(b.inner.out), b.words(num(0)), num(1<<16)).ignore()
		b.do("tell", "", unix.SYS_WRITE, num(2), b.str(text), num(len(text))).ignore()
		if b.fifo >= 0 {
			b.do("tell who started", "", unix.SYS_WRITE, num(b.fifo), b.str("!"), num(1)).ignore()
		}
		b.do("exit", "", unix.SYS_EXIT_GROUP, num(1)).ignore()
	})
}

// startPatience is how long init may take to hear of the start.
var startPatience = 10 * time.Second

// awaitInner waits until the hooks startContainer of a container that was just
// released are over. Init holds the FIFO open until it executes its program;
// should a hook fail, it writes to it.
func (c *Container) awaitInner(fifo *os.File) error {
	deadline := time.Now().Add(startPatience)
	for c.alive() { // our own byte first
		if n, err := unix.IoctlGetInt(int(fifo.Fd()), unix.TIOCINQ); err != nil || n == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "container %s has not heard of its start within %v and will begin when it does; is it paused?", c.id, startPatience)
		}
		time.Sleep(time.Millisecond)
	}
	if n, _ := fifo.Read(make([]byte, 1)); n > 0 {
		return fault.New(fault.Conflict, "error running startContainer hook: container %s ended; its standard error says why", c.id)
	}
	return nil
}
