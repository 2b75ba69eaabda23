package bridge

import (
	"context"
	"errors"
	"io"
	"sync"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/sys/signal"
	fstypes "github.com/tonistiigi/fsutil/types"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// NewContainer makes a container on results, in which nothing runs yet.
func (s *Server) NewContainer(ctx context.Context, r *gatewaypb.NewContainerRequest) (*gatewaypb.NewContainerResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.NewContainerResponse, error) {
		req := build.SandboxRequest{CgroupParent: a.bridge.Opts["cgroup-parent"], Network: r.Network, Hostname: r.Hostname, ExtraHosts: r.ExtraHosts}
		root := false
		for i, m := range r.Mounts {
			if m == nil {
				return nil, fault.New(fault.Invalid, "mount %d is nil", i)
			}
			mount := build.SandboxMount{Dest: m.Dest, Selector: m.Selector, ReadOnly: m.Readonly, Type: m.MountType, Cache: m.CacheOpt, Secret: m.SecretOpt, SSH: m.SSHOpt}
			ref, err := a.ref(m.ResultID)
			if err == nil && ref != nil {
				mount.Result, err = ref.Solved(ctx)
			}
			if err != nil {
				return nil, err
			}
			root = root || m.Dest == pb.RootMount
			req.Mounts = append(req.Mounts, mount)
		}
		if !root {
			return nil, fault.New(fault.Invalid, "root mount is required")
		}
		// It outlives the call, and ends with the build at the latest.
		c, err := a.bridge.Job.Sandbox(context.WithoutCancel(ctx), req)
		if err != nil {
			return nil, err
		}
		if err := a.admit(r.ContainerID, c); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return &gatewaypb.NewContainerResponse{}, nil
	})
}

// admit gives a container its name, unless it is taken or the build is over.
func (a *Asked) admit(id string, c *build.Sandbox) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over.Err() != nil:
		return fault.New(fault.Unavailable, "the build has ended")
	case a.containers[id] != nil:
		return fault.New(fault.Conflict, "Container %s already exists", id)
	}
	a.containers[id] = c
	return nil
}

func (a *Asked) container(id string) (*build.Sandbox, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.containers[id]; c != nil {
		return c, nil
	}
	return nil, fault.New(fault.NotFound, "container %q previously released or not created", id)
}

// ReleaseContainer ends a container.
func (s *Server) ReleaseContainer(ctx context.Context, r *gatewaypb.ReleaseContainerRequest) (*gatewaypb.ReleaseContainerResponse, error) {
	return with(s, ctx, func(_ context.Context, a *Asked) (*gatewaypb.ReleaseContainerResponse, error) {
		c, err := a.container(r.ContainerID)
		if err != nil {
			return nil, err
		}
		a.mu.Lock()
		delete(a.containers, r.ContainerID)
		a.mu.Unlock()
		return &gatewaypb.ReleaseContainerResponse{}, c.Close()
	})
}

// look reads something of a container's mount.
func look[R any](s *Server, ctx context.Context, id string, mount int32, do func(t build.Tree, below string) (R, error)) (R, error) {
	return with(s, ctx, func(_ context.Context, a *Asked) (result R, err error) {
		c, err := a.container(id)
		if err != nil {
			return result, err
		}
		t, below, err := c.Open(int(mount))
		if err != nil {
			return result, err
		}
		defer t.Close()
		return do(t, below)
	})
}

// ReadFileContainer reads a file as a container sees it now.
func (s *Server) ReadFileContainer(ctx context.Context, r *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	data, err := look(s, ctx, r.Ref, r.MountIndex, func(t build.Tree, below string) ([]byte, error) { return readFile(t, below, readRequest(r)) })
	return &gatewaypb.ReadFileResponse{Data: data}, err
}

// ReadDirContainer lists a directory of a container.
func (s *Server) ReadDirContainer(ctx context.Context, r *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	list, err := look(s, ctx, r.Ref, r.MountIndex, func(t build.Tree, below string) ([]*fstypes.Stat, error) {
		return readDir(t, below, gateway.ReadDirRequest{Path: r.DirPath, IncludePattern: r.IncludePattern})
	})
	return &gatewaypb.ReadDirResponse{Entries: list}, err
}

// StatFileContainer describes a file of a container.
func (s *Server) StatFileContainer(ctx context.Context, r *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	st, err := look(s, ctx, r.Ref, r.MountIndex, func(t build.Tree, below string) (*fstypes.Stat, error) {
		return statFile(t, below, gateway.StatRequest{Path: r.Path})
	})
	return &gatewaypb.StatFileResponse{Stat: st}, err
}

// talk is a stream on which a client runs processes.
type talk struct {
	gatewaypb.LLBBridge_ExecProcessServer
	asked *Asked

	mu        sync.Mutex // of sending
	processes map[string]*build.Process
	telling   sync.WaitGroup
}

func (t *talk) send(id string, m *gatewaypb.ExecMessage) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.ProcessID = id
	return t.Send(m)
}

// ExecProcess runs processes in containers, for as long as the client listens.
func (s *Server) ExecProcess(stream gatewaypb.LLBBridge_ExecProcessServer) error {
	a, ctx, end, err := s.build(stream.Context())
	if err != nil {
		return err
	}
	defer end()
	t := &talk{LLBBridge_ExecProcessServer: stream, asked: a, processes: map[string]*build.Process{}}
	ctx, cancel := context.WithCancelCause(ctx)
	messages := make(chan *gatewaypb.ExecMessage)
	go func() {
		defer close(messages)
		for {
			m, err := stream.Recv() // ends with this call at the latest
			if err != nil {
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	err = t.serve(ctx, messages)
	if err != nil {
		cancel(err) // and so end the processes
	}
	t.telling.Wait()
	cancel(nil)
	return err
}

// serve does what the messages say, until there are none.
func (t *talk) serve(ctx context.Context, messages chan *gatewaypb.ExecMessage) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m, more := <-messages:
			if !more {
				return nil
			}
			if err := t.obey(ctx, m); err != nil {
				return err
			}
		}
	}
}

func (t *talk) obey(ctx context.Context, m *gatewaypb.ExecMessage) error {
	if m.ProcessID == "" {
		return fault.New(fault.Invalid, "ProcessID required")
	}
	p := t.processes[m.ProcessID]
	if init := m.GetInit(); init != nil {
		if p != nil {
			return fault.New(fault.Conflict, "Process %s already exists", m.ProcessID)
		}
		return t.start(ctx, m.ProcessID, init)
	}
	if p == nil {
		return fault.New(fault.NotFound, "IO for process %q not found", m.ProcessID)
	}
	switch {
	case m.GetFile() != nil:
		f := m.GetFile()
		if f.Fd != 0 {
			return fault.New(fault.Invalid, "fd %d unavailable to write", f.Fd)
		}
		if len(f.Data) > 0 {
			_, _ = p.Write(f.Data) // a process that ended reads nothing
		}
		if f.EOF {
			_ = p.CloseStdin()
		}
	case m.GetResize() != nil:
		_ = p.Resize(ctx, m.GetResize().Rows, m.GetResize().Cols)
	case m.GetSignal() != nil:
		sig, known := signal.SignalMap[m.GetSignal().Name]
		if !known {
			return fault.New(fault.Invalid, "Unknown signal %s", m.GetSignal().Name)
		}
		_ = p.Signal(ctx, sig)
	}
	return nil
}

// start runs a process and tells of it: that it has started, what it prints, how
// it ended, and that nothing follows.
func (t *talk) start(ctx context.Context, id string, init *gatewaypb.InitMessage) error {
	meta := init.Meta
	if meta == nil {
		return fault.New(fault.Invalid, "process meta is required")
	}
	c, err := t.asked.container(init.ContainerID)
	if err != nil {
		return err
	}
	open := map[uint32]bool{}
	for _, fd := range init.Fds {
		open[fd] = true
	}
	p, err := c.Start(ctx, build.Command{Args: meta.Args, Env: meta.Env, SecretEnv: init.Secretenv, User: meta.User, Cwd: meta.Cwd, TTY: init.Tty,
		Stdin: open[0], Insecure: init.Security == pb.SecurityMode_INSECURE})
	if err != nil { // a client that waits for the process would not hear of the stream's end
		t.telling.Go(func() {
			_ = t.send(id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}})
			t.end(ctx, id, open, 0, err)
		})
		return nil
	}
	t.processes[id] = p
	writer := func(fd uint32) io.Writer {
		if !open[fd] {
			return io.Discard
		}
		return &stream{t, id, fd}
	}
	t.telling.Go(func() { t.tell(ctx, id, p, open, writer) })
	return nil
}

// tell passes on what a process prints and how it ends. With ctx the process ends.
func (t *talk) tell(ctx context.Context, id string, p *build.Process, open map[uint32]bool, writer func(uint32) io.Writer) {
	stop := context.AfterFunc(ctx, func() { _ = p.Kill(context.WithoutCancel(ctx)) })
	defer stop()
	_ = t.send(id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}})
	_ = p.Copy(writer(1), writer(2)) // who does not listen ends the stream
	code, err := p.Wait(context.WithoutCancel(ctx))
	t.end(ctx, id, open, code, err)
}

// end tells that nothing follows of a process, and why.
func (t *talk) end(ctx context.Context, id string, open map[uint32]bool, code int, err error) {
	for _, fd := range []uint32{1, 2} {
		if open[fd] {
			_ = t.send(id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: fd, EOF: true}}})
		}
	}
	exit := &gatewaypb.ExitMessage{Code: uint32(code)}
	if err != nil {
		exit.Code = gatewaypb.UnknownExitStatus
	} else if code != 0 {
		err = &gatewaypb.ExitError{ExitCode: uint32(code)}
	}
	if err != nil {
		st, _ := status.FromError(grpcerrors.ToGRPC(ctx, err))
		exit.Error = &spb.Status{Code: st.Proto().Code, Message: st.Proto().Message, Details: st.Proto().Details}
	}
	_ = t.send(id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Exit{Exit: exit}})
	_ = t.send(id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Done{Done: &gatewaypb.DoneMessage{}}})
}

// stream is one of a process's, on its way to the client.
type stream struct {
	talk *talk
	id   string
	fd   uint32
}

func (s *stream) Write(data []byte) (int, error) {
	return len(data), s.talk.send(s.id, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: s.fd, Data: data}}})
}
