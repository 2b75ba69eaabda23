package keeper

import (
	"os"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// attach connects a client to the container.
func (k *keeper) attach(o supervise.AttachOptions, files []*os.File) error {
	var held *os.File
	if len(files) == 2 {
		held, files = files[1], files[:1]
	}
	s, err := openSession(o, files, k.stdio)
	if err != nil {
		held.Close()
		return err
	}
	s.held = held
	s.closeStdin = k.cfg.StdinOnce
	return k.admit(s, k.out, "")
}

// openSession makes a session of the request's one file.
func openSession(o supervise.AttachOptions, files []*os.File, s *stdio) (*session, error) {
	if len(files) != 1 {
		closeAll(files)
		return nil, fault.New(fault.Invalid, "an attach needs the client's socket and nothing else")
	}
	return newSession(o, files[0], s)
}

// admit puts a session to work on an output.
func (k *keeper) admit(s *session, out *output, execID string) error {
	k.mu.Lock()
	if k.finished {
		k.mu.Unlock()
		s.conn.Close()
		s.held.Close()
		return errGone()
	}
	k.clients.Add(1)
	k.astir++
	k.mu.Unlock()
	s.detached = func() { k.announce(supervise.EventDetach, supervise.DetachEvent{ExecID: execID}) }
	s.left = func() { out.detach(s) }
	out.attach(s)
	go func() {
		defer k.clients.Done()
		s.run()
		k.calm()
		k.activity.add(busy) // it kept this process from its rest
	}()
	return nil
}

// resize sets the size of a terminal.
func (k *keeper) resize(r supervise.ResizeRequest) error {
	if r.ExecID == "" {
		return k.stdio.resize(r.Height, r.Width)
	}
	e, err := k.execs.find(r.ExecID)
	if err != nil {
		return err
	}
	return e.stdio.resize(r.Height, r.Width)
}
