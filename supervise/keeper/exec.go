package keeper

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// How much is remembered of execs that have ended: for how long, of how many,
// and how many bytes of their arguments, notes and output.
const (
	exitKept  = 10 * time.Minute // twice as long as a daemon tells of them
	exitsKept = 256
	bytesKept = 256 << 10
)

// execs are the further processes of the container.
type execs struct {
	mu      sync.Mutex
	running map[string]*exec
	ended   []known // in the order of their ends
	bytes   int     // of their arguments, notes and output
}

// known is what is known of an exec for good.
type known struct {
	supervise.ExecStatus
	once bool // its end is told once
}

// exec is a further process in the container.
type exec struct {
	known
	stdio *stdio
	out   *output
	done  chan struct{} // closed when Exit is valid
}

// find gives an exec that runs.
func (x *execs) find(id string) (*exec, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.running[id]; e != nil {
		return e, nil
	}
	if x.endedLocked(id) >= 0 {
		return nil, errGone()
	}
	return nil, errNoExec(id)
}

// endedLocked finds one that has ended; -1 for none.
func (x *execs) endedLocked(id string) int {
	return slices.IndexFunc(x.ended, func(k known) bool { return k.ID == id })
}

func errNoExec(id string) error {
	return fault.New(fault.NotFound, "no exec %s in the container", id)
}

// addExec adds an exec, after a checkpoint that is under way.
func (k *keeper) addExec(e *exec) error {
	k.dumping.Lock()
	defer k.dumping.Unlock()
	return k.execs.add(e)
}

// add takes the ID.
func (x *execs) add(e *exec) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running == nil {
		x.running = map[string]*exec{}
	}
	if x.endedLocked(e.ID) >= 0 || x.running[e.ID] != nil {
		return fault.New(fault.Conflict, "the exec %s has been started already", e.ID)
	}
	x.running[e.ID] = e
	return nil
}

func (x *execs) remove(id string) {
	x.mu.Lock()
	delete(x.running, id)
	x.mu.Unlock()
}

// made notes the process, which exists now.
func (x *execs) made(e *exec, pid int) {
	x.mu.Lock()
	e.Pid = pid
	x.mu.Unlock()
}

// end records how an exec ended, and forgets the oldest.
func (x *execs) end(e *exec, exit supervise.ExecExit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Exit = &exit
	close(e.done)
	delete(x.running, e.ID)
	x.ended = append(x.ended, e.known)
	x.bytes += weight(e.known)
	for len(x.ended) > exitsKept || x.bytes > bytesKept && len(x.ended) > 1 || time.Since(x.ended[0].Exit.EndedAt) > exitKept {
		x.dropLocked(0)
	}
}

func weight(e known) int {
	n := len(e.Note) + len(e.Exit.Output)
	for _, a := range e.Args {
		n += len(a)
	}
	return n
}

func (x *execs) dropLocked(i int) {
	x.bytes -= weight(x.ended[i])
	x.ended = slices.Delete(x.ended, i, i+1)
}

// wait waits for the end of an exec.
func (x *execs) wait(ctx context.Context, id string) (supervise.ExecExit, error) {
	x.mu.Lock()
	e := x.running[id]
	x.mu.Unlock()
	if e != nil {
		select {
		case <-e.done:
		case <-ctx.Done():
			return supervise.ExecExit{}, ctx.Err()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.endedLocked(id)
	var exit *supervise.ExecExit
	switch {
	case e != nil:
		exit = e.Exit // it may be forgotten by now
	case i < 0:
		return supervise.ExecExit{}, errNoExec(id)
	default:
		exit = x.ended[i].Exit
	}
	if i >= 0 && x.ended[i].once {
		x.dropLocked(i)
	}
	return *exit, nil
}

// list tells of all that are known.
func (x *execs) list() []supervise.ExecStatus {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]supervise.ExecStatus, 0, len(x.ended)+len(x.running))
	for _, k := range x.ended {
		list = append(list, k.ExecStatus)
	}
	for _, e := range x.running {
		if e.Pid != 0 {
			list = append(list, e.ExecStatus)
		}
	}
	return list
}

// processGroup makes a signal through a pidfd one to the process's group:
// PIDFD_SIGNAL_PROCESS_GROUP, pidfd_send_signal(2), from Linux 6.9 on.
const processGroup = 4

// kill ends an exec that runs.
func (x *execs) kill(id string) error {
	e, err := x.find(id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	pid := e.Pid
	x.mu.Unlock()
	if pid == 0 {
		return fault.New(fault.Conflict, "the process is being made: try again")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errGone()
	}
	defer unix.Close(fd)
	// Who was collected just now may have left its number to another, which is
	// no child of ours.
	if unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) != nil {
		return errGone()
	}
	if err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, processGroup); err == unix.EINVAL {
		err = unix.Kill(-pid, unix.SIGKILL) // it leads a session, and was there just now
	}
	if errors.Is(err, unix.ESRCH) {
		return errGone()
	}
	return err
}

// exec runs a process in the container. Without a file its output is
// discarded. On failure the client's socket is not touched: it is for the
// daemon to say what went wrong.
func (k *keeper) exec(ctx context.Context, c supervise.ExecConfig, files []*os.File) (supervise.Started, error) {
	if phase := k.current().Phase; phase != supervise.PhaseRunning {
		closeAll(files)
		return supervise.Started{}, fault.New(fault.Conflict, "nothing can be executed in a container that is %s", phase)
	}
	e := &exec{
		known: known{supervise.ExecStatus{ID: c.ID, Args: c.Process.Args, TTY: c.Process.Terminal, Note: c.Note}, c.Keep > 0},
		out:   newOutput(nil, &k.activity), done: make(chan struct{}),
	}
	e.out.keep = c.Keep
	var err error
	if len(files) == 0 && !c.Process.Terminal && c.Keep == 0 {
		e.stdio, err = newNull()
	} else {
		e.stdio, err = newStdio(c.Process.Terminal, c.Attach.Stdin)
	}
	if err != nil {
		closeAll(files)
		return supervise.Started{}, err
	}
	if err := k.addExec(e); err != nil { // from here on others find it
		closeAll(files)
		e.stdio.close()
		return supervise.Started{}, err
	}
	p, err := k.launch(ctx, e, c, files)
	if err != nil {
		k.execs.remove(e.ID)
		return supervise.Started{}, err
	}
	return supervise.Started{Pid: p.pid()}, nil
}

// launch performs the steps of exec.
func (k *keeper) launch(ctx context.Context, e *exec, c supervise.ExecConfig, files []*os.File) (p process, err error) {
	var client *session
	if len(files) > 0 {
		if client, err = openSession(c.Attach, files, e.stdio); err != nil {
			e.stdio.close()
			return nil, err
		}
		client.closeStdin = true
	}
	if p, err = k.spawn(ctx, e, c); err != nil {
		if client != nil {
			client.conn.Close()
		}
		e.stdio.close()
		return nil, err
	}
	if client != nil {
		k.admit(client, e.out, e.ID) // else the container has just ended
	}
	k.execs.made(e, p.pid())
	e.stdio.pump(e.out, nil)
	go k.awaitExec(e, p)
	return p, nil
}

// spawn makes the process.
func (k *keeper) spawn(ctx context.Context, e *exec, c supervise.ExecConfig) (process, error) {
	defer k.reaper.spawn()()
	p, err := k.box.exec(ctx, &c.Process, e.stdio)
	if err != nil {
		return nil, err
	}
	k.reaper.own(p.pid())
	err = e.stdio.made()
	if s := c.Process.ConsoleSize; err == nil && s != nil && c.Process.Terminal && s.Height > 0 && s.Width > 0 {
		err = e.stdio.resize(uint16(s.Height), uint16(s.Width))
	}
	if err != nil {
		unix.Kill(p.pid(), unix.SIGKILL)
		p.wait()
		k.reaper.disown(p.pid())
		return nil, err
	}
	return p, nil
}

// awaitExec sees an exec to its end.
func (k *keeper) awaitExec(e *exec, p process) {
	if c, err := openChild(p.pid()); err == nil { // else a thread waits
		c.await()
		c.f.Close()
	}
	code, err := p.wait()
	k.reaper.disown(p.pid())
	if err != nil {
		code = 255
	}
	e.out.hurry()
	e.stdio.drain(drainTime)
	e.out.tell(code)
	e.out.finish()
	e.stdio.close()
	exit := supervise.ExecExit{Code: code, EndedAt: time.Now()}
	exit.Output, exit.More = e.out.head()
	k.execs.end(e, exit)
	k.activity.add(execGarbage)
}
