package keeper

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// codesKept is how many exit codes of ended execs are remembered.
const codesKept = 256

// execs are the further processes of the container.
type execs struct {
	mu      sync.Mutex
	running map[string]*exec
	codes   map[string]int // of those that have ended
	ended   []string       // in the order of their ends
}

// exec is a further process in the container.
type exec struct {
	id    string
	stdio *stdio
	out   *output
	done  chan struct{} // closed when code is valid
	code  int
}

// find gives an exec that runs.
func (x *execs) find(id string) (*exec, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.running[id]; e != nil {
		return e, nil
	}
	if _, ended := x.codes[id]; ended {
		return nil, errGone()
	}
	return nil, errNoExec(id)
}

func errNoExec(id string) error {
	return fault.New(fault.NotFound, "no exec %s in the container", id)
}

// add takes the ID.
func (x *execs) add(e *exec) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running == nil {
		x.running, x.codes = map[string]*exec{}, map[string]int{}
	}
	if _, ended := x.codes[e.id]; ended || x.running[e.id] != nil {
		return fault.New(fault.Conflict, "the exec %s has been started already", e.id)
	}
	x.running[e.id] = e
	return nil
}

func (x *execs) remove(id string) {
	x.mu.Lock()
	delete(x.running, id)
	x.mu.Unlock()
}

// end records the exit code and forgets the oldest.
func (x *execs) end(e *exec, code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.code = code
	close(e.done)
	delete(x.running, e.id)
	x.codes[e.id] = code
	x.ended = append(x.ended, e.id)
	if len(x.ended) > codesKept {
		delete(x.codes, x.ended[0])
		x.ended = x.ended[1:]
	}
}

// wait waits for the end of an exec.
func (x *execs) wait(ctx context.Context, id string) (supervise.ExecExit, error) {
	x.mu.Lock()
	e := x.running[id]
	code, ended := x.codes[id]
	x.mu.Unlock()
	switch {
	case ended:
		return supervise.ExecExit{Code: code}, nil
	case e == nil:
		return supervise.ExecExit{}, errNoExec(id)
	}
	select {
	case <-e.done:
		return supervise.ExecExit{Code: e.code}, nil
	case <-ctx.Done():
		return supervise.ExecExit{}, ctx.Err()
	}
}

// exec runs a process in the container. Without a file its output is
// discarded. On failure the client's socket is not touched: it is for the
// daemon to say what went wrong.
func (k *keeper) exec(ctx context.Context, c supervise.ExecConfig, files []*os.File) (supervise.Started, error) {
	if phase := k.current().Phase; phase != supervise.PhaseRunning {
		closeAll(files)
		return supervise.Started{}, fault.New(fault.Conflict, "nothing can be executed in a container that is %s", phase)
	}
	e := &exec{id: c.ID, out: newOutput(nil, &k.activity), done: make(chan struct{})}
	var err error
	if len(files) == 0 && !c.Process.Terminal {
		e.stdio, err = newNull()
	} else {
		e.stdio, err = newStdio(c.Process.Terminal, c.Attach.Stdin)
	}
	if err != nil {
		closeAll(files)
		return supervise.Started{}, err
	}
	if err := k.execs.add(e); err != nil { // from here on others find it
		closeAll(files)
		e.stdio.close()
		return supervise.Started{}, err
	}
	p, err := k.launch(ctx, e, c, files)
	if err != nil {
		k.execs.remove(e.id)
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
		k.admit(client, e.out, e.id) // else the container has just ended
	}
	e.stdio.pump(e.out)
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
	code, err := p.wait()
	k.reaper.disown(p.pid())
	if err != nil {
		code = 255
	}
	e.out.hurry()
	e.stdio.drain(drainTime)
	e.out.finish()
	e.stdio.close()
	k.execs.end(e, code)
	k.activity.add(execGarbage)
}
