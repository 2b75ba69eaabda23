package supervise

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/seqpacket"
)

// Keeper is a connection to the supervising process of one container. Its
// methods may be called concurrently. After Close, or once the process is
// gone, they fail with fault.Unavailable.
type Keeper struct {
	*line
	Execs  Execs // what runs in the container besides
	dir    string
	reap   func()        // collects the process if it is our child
	reaped chan struct{} // closed when the process has been collected

	exited   chan struct{} // closed when exit is set
	detached chan DetachEvent
	rotated  chan struct{} // one token
	oom      chan struct{}

	mu     sync.Mutex
	status Status
}

// newKeeper starts to read from conn. reap, if not nil, is called once after
// the end of the connection.
func newKeeper(dir string, conn *seqpacket.Conn, reap func()) *Keeper {
	l := newLine(conn)
	k := &Keeper{
		line: l, Execs: Execs{l}, dir: dir, reap: reap,
		reaped:   make(chan struct{}),
		exited:   make(chan struct{}),
		detached: make(chan DetachEvent, 16),
		rotated:  make(chan struct{}, 1),
		oom:      make(chan struct{}, 16),
	}
	go k.hear()
	return k
}

// hear takes what the process tells, until the end of the connection.
func (k *Keeper) hear() {
	k.read(k.event)
	if k.reap != nil {
		k.reap()
	}
	close(k.reaped)
}

func (k *Keeper) event(m Message) {
	switch m.Method {
	case EventExit:
		var e Exit
		if json.Unmarshal(m.Body, &e) == nil {
			k.setExit(e)
		}
	case EventDetach:
		var e DetachEvent
		if json.Unmarshal(m.Body, &e) == nil {
			select {
			case k.detached <- e:
			default: // nobody listens
			}
		}
	case EventOOM:
		select {
		case k.oom <- struct{}{}:
		default: // nobody listens
		}
	case EventRotate:
		select {
		case k.rotated <- struct{}{}:
		default: // it is known already
		}
	}
}

func (k *Keeper) setExit(e Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status.Exit == nil {
		k.status.Phase, k.status.Exit = PhaseExited, &e
		close(k.exited)
	}
}

// hello opens the connection and learns the container's status.
func (k *Keeper) hello(ctx context.Context) error {
	var h Hello
	if err := k.call(ctx, MethodHello, Hello{Version: ProtocolVersion}, &h); err != nil {
		return err
	}
	if h.Version > ProtocolVersion {
		return tooNew(h.Version)
	}
	k.setStatus(h.Status)
	return nil
}

func (k *Keeper) setStatus(s Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	exit := k.status.Exit
	k.status = s
	switch {
	case exit != nil: // its event was faster than the answer that tells of the start
		k.status.Phase, k.status.Exit = PhaseExited, exit
	case s.Exit != nil:
		close(k.exited)
	}
}

// Pid returns the container's init, 0 before it exists.
func (k *Keeper) Pid() int { return k.Status().Pid }

// Status returns what is known here of the container without asking.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Gone is closed when the process has ended or the connection was closed.
func (k *Keeper) Gone() <-chan struct{} { return k.gone }

// Start lets the container's init execute its program. When it fails nothing
// of the container is left and the process ends: no Release is needed. An
// error about the program is fault.Invalid with the runtime's words.
func (k *Keeper) Start(ctx context.Context) (pid int, startedAt time.Time, err error) {
	var s Started
	if err := k.call(ctx, MethodStart, nil, &s); err != nil {
		return 0, time.Time{}, err
	}
	k.setStatus(s.Status)
	return s.Pid, s.Status.StartedAt, nil
}

// Attach hands the client's socket to the process, which passes bytes between
// it and the container from then on. The caller closes its own copy of conn.
// Nothing that the container writes after Attach has returned is missed. The
// process shuts the socket down at the end of the output, and at a detach.
func (k *Keeper) Attach(ctx context.Context, o AttachOptions, conn *os.File) error {
	return k.call(ctx, MethodAttach, o, nil, conn)
}

// AttachHeld is Attach of a client that is told only then that it is attached: it
// gets nothing before greet, which tells it, has returned. A process of an older
// version refuses it with fault.Invalid, and greet is not called.
func (k *Keeper) AttachHeld(ctx context.Context, o AttachOptions, conn *os.File, greet func() error) error {
	held, release, err := os.Pipe()
	if err != nil {
		return err
	}
	defer release.Close()
	err = k.call(ctx, MethodAttach, o, nil, conn, held)
	held.Close()
	if err != nil {
		return err
	}
	return greet()
}

// Resize sets the size of the container's terminal, in characters.
func (k *Keeper) Resize(ctx context.Context, height, width uint16) error {
	return k.call(ctx, MethodResize, ResizeRequest{"", height, width}, nil)
}

// Signal sends sig to the container's init; fault.Conflict when it has ended.
func (k *Keeper) Signal(ctx context.Context, sig syscall.Signal) error {
	return k.call(ctx, MethodSignal, SignalRequest{int(sig)}, nil)
}

// Wait waits for the container's end. When the process vanishes without a
// record the error is fault.Unavailable, and the container's init may be
// alive: see KillInit.
func (k *Keeper) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-k.exited:
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	case <-k.gone:
		select {
		case <-k.exited:
		default:
			e, err := ReadExit(k.dir)
			if err != nil {
				return Exit{}, errGone()
			}
			k.setExit(e)
		}
	}
	return *k.Status().Exit, nil
}

// Freeze makes all processes of the container stand still, until a Thaw for
// each Freeze, or until the connection ends: a container does not stay frozen
// when its daemon dies. Before the start and after the exit it is
// fault.Conflict.
func (k *Keeper) Freeze(ctx context.Context) error {
	return k.call(ctx, MethodFreeze, nil, nil)
}

// Thaw takes a Freeze back; fault.Conflict when there is none.
func (k *Keeper) Thaw(ctx context.Context) error {
	return k.call(ctx, MethodThaw, nil, nil)
}

// Pause makes all processes of the container stand still until Unpause, with or
// without a daemon; a Freeze and its Thaw in between change nothing of that.
// fault.Conflict when it is paused already or does not run.
func (k *Keeper) Pause(ctx context.Context) error {
	return k.settle(ctx, MethodPause)
}

// Unpause lets the container's processes go on; fault.Conflict when it is not
// paused.
func (k *Keeper) Unpause(ctx context.Context) error {
	return k.settle(ctx, MethodUnpause)
}

// settle calls a method that answers with the status.
func (k *Keeper) settle(ctx context.Context, method string) error {
	var s Status
	if err := k.call(ctx, method, nil, &s); err != nil {
		return err
	}
	k.setStatus(s)
	return nil
}

// Checkpoint writes the container's processes to files. It is finished also when
// ctx ends, or the daemon does. fault.Conflict when it does not run, or something
// goes on in it that cannot be part of a checkpoint.
func (k *Keeper) Checkpoint(ctx context.Context, c Checkpoint) error {
	return k.call(ctx, MethodDump, c, nil)
}

// Update changes limits of the running container; what r does not name stays.
// When a part is refused nothing has changed, as far as the runtime keeps to
// that.
func (k *Keeper) Update(ctx context.Context, r *specs.LinuxResources) error {
	return k.call(ctx, MethodUpdate, UpdateRequest{*r}, nil)
}

// Relay has the process serve these relays with the sockets that it holds,
// instead of those before.
func (k *Keeper) Relay(ctx context.Context, relays []Relay) error {
	return k.call(ctx, MethodRelay, RelayRequest{relays}, nil)
}

// Unpublish has the process close the sockets of published ports that it holds, and
// serve none of them any more.
func (k *Keeper) Unpublish(ctx context.Context) error { return k.call(ctx, MethodUnpublish, nil, nil) }

// Detached delivers the detaches by keys. An event is lost when 16 wait
// already.
func (k *Keeper) Detached() <-chan DetachEvent { return k.detached }

// OOM delivers each shortage of memory that cost a process of the container its
// life, if Config.WatchOOM asked for it. One is lost when 16 wait already.
func (k *Keeper) OOM() <-chan struct{} { return k.oom }

// Rotated holds a token when a file of the log has become full.
func (k *Keeper) Rotated() <-chan struct{} { return k.rotated }

// Release acknowledges the exit. When it returns the container's cgroups and
// its root mount are gone; the process ends as soon as its clients have taken
// the rest of the output. Before the exit it is fault.Conflict.
func (k *Keeper) Release(ctx context.Context) error { return k.release(ctx, ReleaseRequest{}) }

// Leave is Release that may leave the cgroups, if nobody can be in them. They are
// the caller's to remove, before a container of the same ID is made.
func (k *Keeper) Leave(ctx context.Context) error { return k.release(ctx, ReleaseRequest{Leave: true}) }

func (k *Keeper) release(ctx context.Context, r ReleaseRequest) error {
	err := k.call(ctx, MethodRelease, r, nil)
	if fault.KindOf(err) == fault.Unavailable {
		select {
		case <-k.exited: // the process has ended by itself
			return nil
		default:
		}
	}
	return err
}

// Kill ends the container's init by SIGKILL, through the process or, if that
// does not answer before ctx ends, without it. The exit is still to be waited
// for and released.
func (k *Keeper) Kill(ctx context.Context) error {
	err := k.Signal(ctx, syscall.SIGKILL)
	switch {
	case err == nil, fault.KindOf(err) == fault.Conflict:
		return nil
	case fault.KindOf(err) == fault.Unavailable, ctx.Err() != nil:
		return KillInit(k.dir)
	}
	return err
}

// Close drops the connection; the process and its container live on.
func (k *Keeper) Close() error { return k.conn.Close() }
