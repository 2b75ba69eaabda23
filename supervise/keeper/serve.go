package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/nofile"
	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/ocirun"
	"github.com/tarehq/tare/supervise"
)

// serve reads the requests of one connection until its end. Each is served by
// a goroutine of its own, so that none waits for another.
func (k *keeper) serve(c *seqpacket.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer c.Close()
	for c.Await() == nil && k.receive(ctx, c) {
	}
}

// receive takes one request in; it is false at the end of the connection.
func (k *keeper) receive(ctx context.Context, c *seqpacket.Conn) bool {
	k.renewal.bar()
	defer k.renewal.unbar()
	msg, files, err := c.Recv()
	lost := errors.Is(err, seqpacket.ErrFilesLost)
	if err != nil && !lost {
		return false
	}
	if lost {
		var id uint64
		fmt.Sscanf(string(msg), `{"id":%d`, &id) // the beginning is there in any case
		answer(c, id, nil, fault.New(fault.Unavailable, "the container has as many clients as its supervising process can hold"))
		return true
	}
	var m supervise.Message
	if json.Unmarshal(msg, &m) != nil || m.ID == 0 {
		closeAll(files)
		return true
	}
	if m.Method == supervise.MethodHold {
		k.hold(files) // in order: before the create that follows
		answer(c, m.ID, struct{}{}, nil)
		return true
	}
	if m.Method == supervise.MethodRoom {
		var r supervise.RoomRequest
		if json.Unmarshal(m.Body, &r) == nil {
			nofile.Room(r.Files)
		}
		answer(c, m.ID, struct{}{}, nil)
		return true
	}
	if m.Method == supervise.MethodMount {
		answer(c, m.ID, struct{}{}, mountTrees(m.Body, files)) // in order, too
		return true
	}
	k.begin()
	k.activity.add(requestGarbage)
	go func() {
		defer k.end()
		result, err := k.handle(ctx, m, files)
		answer(c, m.ID, result, err)
	}()
	return true
}

// begin counts a request that is being served; the process lives until it is
// answered.
func (k *keeper) begin() {
	k.mu.Lock()
	k.requests++
	k.mu.Unlock()
}

func (k *keeper) end() {
	k.mu.Lock()
	k.requests--
	k.changed.Broadcast()
	k.mu.Unlock()
}

// accept serves the daemons that connect to the container's socket.
func (k *keeper) accept() {
	for k.listener.Await() == nil {
		k.renewal.bar()
		c, err := k.listener.Accept()
		if err == nil {
			k.join(c)
		}
		k.renewal.unbar()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // such as too many open files
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func answer(c *seqpacket.Conn, id uint64, result any, err error) {
	m := supervise.Message{ID: id, Error: supervise.NewWireError(err)}
	if err == nil {
		if m.Body, err = json.Marshal(result); err != nil {
			m.Error = supervise.NewWireError(err)
		}
	}
	if b, err := json.Marshal(m); err == nil {
		c.Send(b) // a peer that is gone misses nothing
	}
}

// announce sends an event to every daemon. One that does not read delays
// nobody.
func (k *keeper) announce(event string, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		return
	}
	msg, err := json.Marshal(supervise.Message{Method: event, Body: b})
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.peers {
		k.astir++
		go func() {
			c.Send(msg)
			k.calm()
		}()
	}
}

// handle serves one request. It owns the files.
func (k *keeper) handle(ctx context.Context, m supervise.Message, files []*os.File) (any, error) {
	none := struct{}{}
	switch m.Method {
	case supervise.MethodHello:
		closeAll(files)
		return supervise.Hello{Version: supervise.ProtocolVersion, Status: k.current()}, nil
	case supervise.MethodWarm:
		closeAll(files)
		return none, rehearse(m.Body)
	case supervise.MethodCollect:
		var r supervise.CollectRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return none, ocirun.Collect(r.Dir, r.ID)
	case supervise.MethodCreate:
		var r supervise.CreateRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return k.create(ctx, r, files)
	}
	if k.current().Phase == supervise.PhaseWaiting {
		closeAll(files)
		return nil, fault.New(fault.Conflict, "there is no container yet")
	}
	switch m.Method {
	case supervise.MethodStart:
		closeAll(files)
		return k.start()
	case supervise.MethodAttach:
		var o supervise.AttachOptions
		if err := decode(m, &o, files); err != nil {
			return nil, err
		}
		return none, k.attach(o, files)
	case supervise.MethodResize:
		var r supervise.ResizeRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return none, k.resize(r)
	case supervise.MethodSignal:
		var r supervise.SignalRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return none, k.signal(syscall.Signal(r.Signal))
	case supervise.MethodExec:
		var c supervise.ExecConfig
		if err := decode(m, &c, files); err != nil {
			return nil, err
		}
		return k.exec(ctx, c, files)
	case supervise.MethodExecWait:
		var r supervise.ExecRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return k.execs.wait(ctx, r.ID)
	case supervise.MethodExecKill:
		var r supervise.ExecRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return none, k.execs.kill(r.ID)
	case supervise.MethodExecs:
		closeAll(files)
		return k.execs.list(), nil
	case supervise.MethodFreeze:
		closeAll(files)
		return none, k.freeze(ctx)
	case supervise.MethodThaw:
		closeAll(files)
		return none, k.thaw()
	case supervise.MethodPause:
		closeAll(files)
		return k.pause()
	case supervise.MethodUnpause:
		closeAll(files)
		return k.unpause()
	case supervise.MethodUpdate:
		var r supervise.UpdateRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		return none, k.update(ctx, &r.Resources)
	case supervise.MethodRelay:
		var r supervise.RelayRequest
		if err := decode(m, &r, files); err != nil {
			return nil, err
		}
		closeAll(files)
		return none, k.relay(r.Relays)
	case supervise.MethodUnpublish:
		closeAll(files)
		return none, k.unpublish()
	case supervise.MethodDump:
		var c supervise.Checkpoint
		if err := decode(m, &c, files); err != nil {
			return nil, err
		}
		closeAll(files)
		return none, k.checkpoint(c)
	case supervise.MethodRelease:
		closeAll(files)
		var r supervise.ReleaseRequest
		if len(m.Body) > 0 { // an older daemon's has none
			if err := decode(m, &r, nil); err != nil {
				return nil, err
			}
		}
		return none, k.release(ctx, r)
	}
	closeAll(files)
	return nil, fault.New(fault.NotImplemented,
		"the process that supervises the container is of an older version and does not know %q: restart the container to use it", m.Method)
}

// decode reads a request's body; on failure the files are closed.
func decode(m supervise.Message, into any, files []*os.File) error {
	if err := unmarshal(m.Body, into); err != nil {
		closeAll(files)
		return fault.New(fault.Invalid, "the request %q cannot be read: %w", m.Method, err)
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
