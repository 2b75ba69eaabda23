// Package keeper is the inside of tare-supervise, the process that one
// container has for itself: it mounts the root in a mount namespace of its
// own, has the container made, holds its stdio, writes its log, passes bytes
// between it and the clients' own sockets, reaps it and records its exit. See
// package supervise for the daemon's side and the protocol.
//
// The process obeys its daemon and nobody else: SIGTERM, SIGINT and SIGHUP are
// without effect, as they would take a container's exit code and output away.
// SIGKILL ends it without a record; the container's init lives on then, and
// the daemon, which notices at once, ends it (supervise.KillInit).
//
// The end of a container, in this order: the init has died; what it wrote is
// read until the end of file, or for drainTime if another process holds the
// pipe; log, exit.json; the exit event to each connected daemon; release by
// one of them, or none connected; mounts go, and cgroups unless they are left to it; clients take the rest
// of the output; the process ends.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/stage"
	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/supervise/relay"
)

// drainTime bounds how long output is read after its process has died. It
// matters only when a process outside the container's pid namespace, or left
// behind by an exec, holds the pipe or the terminal.
const drainTime = time.Second

// keeper is the one container of this process.
type keeper struct {
	reaper *reaper
	execs  execs

	activity activity
	renewal  *renewal
	frost    frost
	limits   sync.Mutex // held by a change of the limits

	// set by create, before anything else uses them
	cfg      supervise.CreateRequest
	stage    *os.File // for the container's mounts, see Options.Stage of ocirun
	listener *seqpacket.Listener
	rootfs   bool // mounted by us
	box      container
	stdio    *stdio
	out      *output
	oom      oomWatch // while it is watched; changes bar the renewal

	relaying sync.Mutex // held by a change of the relays
	starting sync.Mutex // held by a start under way
	dumping  sync.Mutex // held by a checkpoint under way
	aborted  bool       // guarded by starting: the start failed

	clients sync.WaitGroup // sessions
	over    chan struct{}  // closed when the container is gone, or never was
	left    error          // what could not be removed; valid once over is closed

	mu       sync.Mutex
	changed  sync.Cond // of peers, requests and released
	peers    map[*seqpacket.Conn]bool
	held     []*os.File
	relays   *relay.Relay
	status   supervise.Status
	creating bool
	released bool
	leave    bool // the daemon removes the cgroups
	requests int
	astir    int  // what goes on beside the requests that a renewal would lose
	finished bool // over is closed
}

// Run serves the daemon at the other end of socket fd, and whoever connects
// later, until the container that the daemon asks for is over and released, or
// the daemon has gone without asking for one. The next descriptor may be a stage
// (internal/stage).
func Run(fd int) error {
	first, err := seqpacket.New(fd)
	if err != nil {
		return err
	}
	k := newKeeper()
	k.stage = stage.At(fd + 1)
	if k.reaper, err = newReaper(); err != nil {
		return err
	}
	// A number that no file is ever received at, as create puts the network
	// namespace there.
	if err := unix.Dup3(0, netNSFile, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	if err := nameProcess(); err != nil {
		return err
	}
	// Mounts made on the host from now on are to come in, none to go out.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	warm()
	k.join(first)
	k.outlive()
	return nil
}

func newKeeper() *keeper {
	k := &keeper{
		over:    make(chan struct{}),
		peers:   map[*seqpacket.Conn]bool{},
		status:  supervise.Status{Phase: supervise.PhaseWaiting},
		renewal: newRenewal(),
	}
	k.changed.L = &k.mu
	k.activity.rest = k.rest
	return k
}

// nameProcess names it for ps, which would show the descriptor that the program
// was executed from.
func nameProcess() error { return os.WriteFile("/proc/self/comm", []byte("tare-supervise"), 0) }

// outlive returns when the container is over and nobody waits for anything.
func (k *keeper) outlive() {
	<-k.over
	k.clients.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.requests > 0 {
		k.changed.Wait()
	}
}

// join serves one daemon's connection.
func (k *keeper) join(c *seqpacket.Conn) {
	k.mu.Lock()
	k.peers[c] = true
	k.mu.Unlock()
	go func() {
		k.serve(c)
		k.mu.Lock()
		delete(k.peers, c)
		idle := len(k.peers) == 0 && k.status.Phase == supervise.PhaseWaiting && !k.creating
		k.changed.Broadcast()
		k.mu.Unlock()
		if idle { // nobody is left to ask for a container
			k.finish()
		}
	}()
}

// finish lets the process end.
func (k *keeper) finish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.finished {
		k.finished = true
		close(k.over)
	}
}

// hold keeps files open until the container is released.
func (k *keeper) hold(files []*os.File) {
	k.mu.Lock()
	k.held = append(k.held, files...)
	k.mu.Unlock()
}

// relay serves these relays instead of those before.
func (k *keeper) relay(list []supervise.Relay) error {
	k.relaying.Lock()
	defer k.relaying.Unlock()
	k.mu.Lock()
	held, before := slices.Clone(k.held), k.relays
	k.relays, k.cfg.Relays = nil, list
	k.mu.Unlock()
	before.Close() // which may be about to take k.mu
	if len(list) == 0 {
		return nil
	}
	rules := make([]relay.Rule, len(list))
	for i, r := range list {
		rules[i] = relay.Rule(r)
	}
	made, err := relay.New(held, rules, relay.Busy{Begin: k.stir, End: k.calm})
	k.mu.Lock()
	k.relays = made
	k.mu.Unlock()
	return err
}

// unpublish closes the sockets of published ports.
func (k *keeper) unpublish() error {
	if err := k.relay(nil); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = slices.DeleteFunc(k.held, func(f *os.File) bool {
		domain, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
		isPort := err == nil && (domain == unix.AF_INET || domain == unix.AF_INET6)
		if isPort {
			f.Close()
		}
		return isPort
	})
	return nil
}

// current returns the status.
func (k *keeper) current() supervise.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// start releases the init into the user's program. When that fails nothing is
// left of the container.
func (k *keeper) start() (supervise.Started, error) {
	s, aborted, err := k.tryStart()
	if aborted {
		<-k.over
	}
	return s, err
}

func (k *keeper) tryStart() (s supervise.Started, aborted bool, err error) {
	k.starting.Lock()
	defer k.starting.Unlock()
	if phase := k.current().Phase; phase != supervise.PhaseCreated {
		return s, false, fault.New(fault.Conflict, "the container cannot be started: it is %s", phase)
	}
	if err := k.box.start(); err != nil {
		k.aborted = true
		k.box.signal(syscall.SIGKILL)
		return s, true, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Phase, k.status.StartedAt = supervise.PhaseRunning, time.Now()
	time.AfterFunc(settleTime, k.rest)
	if k.cfg.WatchOOM {
		go k.watchOOM()
	}
	return supervise.Started{Pid: k.status.Pid, Status: k.status}, false, nil
}

// await sees the container to its end.
func (k *keeper) await() {
	if c, err := openChild(k.box.pid()); err == nil { // else a thread waits
		c.await()
		c.f.Close()
	}
	k.renewal.bar() // for good
	code, err := k.box.wait()
	exit := supervise.Exit{Code: code, ExitedAt: time.Now()}
	if err != nil {
		exit.Code, exit.Error = 255, "the exit status was lost: "+err.Error()
	}
	k.starting.Lock() // a start that fails kills the init and says so first
	aborted := k.aborted
	k.starting.Unlock()

	k.dumping.Lock() // a checkpoint that ended the container is whole before anybody hears of the end
	k.dumping.Unlock()
	k.reaper.disown(k.box.pid())
	k.out.hurry()
	k.stdio.drain(drainTime)
	if log := k.out.finish(); log != nil {
		exit.LogDropped, exit.LogError = log.dropped()
	}
	k.stdio.close()
	if !aborted {
		exit.OOMKilled = k.box.oomKilled()
		k.record(exit)
		k.awaitRelease()
	}
	k.remove()
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// record stores the exit and tells every daemon of it.
func (k *keeper) record(e supervise.Exit) {
	b, err := json.Marshal(e)
	if err == nil {
		err = atomicfile.Write(filepath.Join(k.cfg.Dir, supervise.ExitName), b, 0o600)
	}
	if err != nil {
		// a connected daemon can still be told
		e.Error = join(e.Error, "the exit could not be recorded: "+err.Error())
	}
	k.mu.Lock()
	k.status.Phase, k.status.Exit = supervise.PhaseExited, &e
	k.mu.Unlock()
	k.announce(supervise.EventExit, e)
}

// awaitRelease waits for the release, or for the last daemon to be gone.
func (k *keeper) awaitRelease() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.peers) > 0 && !k.released {
		k.changed.Wait()
	}
}

// release lets the container's rest be removed and waits for that. The error
// tells what could not be removed.
func (k *keeper) release(ctx context.Context, r supervise.ReleaseRequest) error {
	k.mu.Lock()
	if k.status.Phase != supervise.PhaseExited {
		k.mu.Unlock()
		return fault.New(fault.Conflict, "the container has not ended")
	}
	k.released, k.leave = true, r.Leave
	k.changed.Broadcast()
	k.mu.Unlock()
	select {
	case <-k.over:
		return k.left
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unmountRoot frees the upper directory for the next start: a client may keep
// this process alive. The end of an overlay writes back all that its upper file
// system has not written, other people's files as well, which takes seconds on a
// busy disk: nobody waits for it, and the kernel goes on with it when this process
// ends.
func (k *keeper) unmountRoot() {
	unmount := func() { _ = unix.Unmount(filepath.Join(k.cfg.Dir, rootfsName), unix.MNT_DETACH) }
	switch {
	case !k.rootfs || k.cfg.Rootfs.Volatile:
	case k.cfg.Rootfs.Dir != "":
		unmount()
	default:
		go unmount()
	}
}

// remove takes away what is left of the container outside its directory.
func (k *keeper) remove() {
	if k.listener != nil {
		k.listener.Close() // first: who connects now is to find nobody
		os.Remove(filepath.Join(k.cfg.Dir, supervise.SocketName))
	}
	k.mu.Lock()
	leave := k.leave
	k.mu.Unlock()
	if k.box != nil {
		k.left = k.box.delete(leave)
	}
	k.unmountRoot()
	k.mu.Lock()
	held, relays := k.held, k.relays
	k.held, k.relays = nil, nil
	k.mu.Unlock()
	relays.Close()
	for _, f := range held {
		f.Close()
	}
	unix.Close(netNSFile)
	k.finish()
}

// errGone is what an operation on a process meets that has ended.
func errGone() error { return fault.New(fault.Conflict, "the process has ended") }

func (k *keeper) signal(sig syscall.Signal) error {
	switch phase := k.current().Phase; phase {
	case supervise.PhaseCreated, supervise.PhaseRunning:
	default:
		return fault.New(fault.Conflict, "no signal can be sent to a container that is %s", phase)
	}
	err := k.box.signal(sig)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return errGone()
	}
	if err == nil && sig == syscall.SIGKILL {
		k.thawToDie()
	}
	return err
}
