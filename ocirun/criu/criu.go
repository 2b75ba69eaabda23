// Package criu speaks with CRIU, the program that dumps processes to files and
// makes them again, by its own protocol: each request executes "criu swrk", which
// is told what to do through a socket and tells through it what it does.
//
// CRIU is a program of the host, found in PATH or where it is said to be. It
// needs to be new enough for the kernel: one that is older than the kernel may
// dump a process that it cannot make again.
package criu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Call is one request.
type Call struct {
	Path  string     // of the program; "": criu, in PATH
	Files []*os.File // are FirstFile and those that follow in the program
	Group int        // cgroup v2 to be born in; -1 for the caller's

	Request *rpc.CriuReq

	// Begun is called when the program runs and waits for the request, which may
	// still change; nil for nothing to do.
	Begun func(pid int) error
	// Notified is called at each stage of the work, which waits for its return
	// and stops when it fails.
	Notified func(Notice) error
}

// Notice tells of a stage: "post-dump", "setup-namespaces", "post-restore" and
// more, criu(8).
type Notice struct {
	Stage string
	Pid   int      // of the first restored process, where there is one
	File  *os.File // what comes along: the master of a terminal; nil for nothing
}

// FirstFile is the number of Call.Files[0] in the program.
const FirstFile = 4

// LookPath finds the program.
func LookPath(path string) (string, error) {
	if path == "" {
		path = "criu"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fault.New(fault.Unavailable, "CRIU is needed to checkpoint and restore, and %s is not there: install criu: %w", path, err)
	}
	return found, nil
}

// Do makes the request and gives the last answer. An error of CRIU's own has
// the words that callers of runc know. When ctx ends the program is killed. It
// must be called on a thread that lives until it returns.
func (c *Call) Do(ctx context.Context) (*rpc.CriuResp, error) {
	path, err := LookPath(c.Path)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "make the socket to CRIU: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "criu")
	defer theirs.Close()
	cmd := exec.CommandContext(ctx, path, "swrk", "3")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") // of tar, ip, iptables
	cmd.ExtraFiles = append([]*os.File{theirs}, c.Files...)
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: c.Group >= 0, CgroupFD: max(c.Group, 0)}
	if err := cmd.Start(); err != nil {
		return nil, fault.New(fault.Unavailable, "execute %s: %w", filepath.Base(path), err)
	}
	theirs.Close() // so that the end of the program is the end of the socket
	resp, err := c.converse(cmd.Process.Pid, pair[0])
	if err != nil {
		_ = cmd.Process.Kill()
	}
	_ = unix.Shutdown(pair[0], unix.SHUT_WR)
	ended := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case ended != nil && c.Request.GetType() != rpc.CriuReqType_PRE_DUMP: // which waits for more, and ends without
		return nil, fault.New(fault.Internal, "criu failed: %w", ended)
	}
	return resp, nil
}

// converse sends the request and answers what CRIU tells until it is done.
func (c *Call) converse(pid, socket int) (*rpc.CriuResp, error) {
	if c.Begun != nil {
		if err := c.Begun(pid); err != nil {
			return nil, err
		}
	}
	req := c.Request
	for {
		text, err := req.MarshalVT()
		if err == nil {
			err = unix.Send(socket, text, unix.MSG_NOSIGNAL)
		}
		if err != nil {
			return nil, fault.New(fault.Internal, "ask CRIU: %w", err)
		}
		resp, file, err := receive(socket)
		if err != nil {
			return nil, err
		}
		if !resp.GetSuccess() {
			closeFile(file)
			return nil, failure(resp)
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			closeFile(file)
			return resp, nil
		}
		if c.Notified != nil {
			err = c.Notified(Notice{resp.GetNotify().GetScript(), int(resp.GetNotify().GetPid()), file})
		}
		closeFile(file)
		if err != nil {
			return nil, err
		}
		kind, yes := rpc.CriuReqType_NOTIFY, true
		req = &rpc.CriuReq{Type: &kind, NotifySuccess: &yes}
	}
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// failure is CRIU's refusal. What it was is in the log.
func failure(resp *rpc.CriuResp) error {
	return fault.New(fault.Internal, "criu failed: type %s errno %d", resp.GetType(), resp.GetCrErrno())
}

// receive takes one message, with the file that may come along.
func receive(socket int) (*rpc.CriuResp, *os.File, error) {
	text, control := make([]byte, 40<<10), make([]byte, unix.CmsgSpace(4))
	n, controlled, _, _, err := unix.Recvmsg(socket, text, control, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, controlled, _, _, err = unix.Recvmsg(socket, text, control, unix.MSG_CMSG_CLOEXEC)
	}
	if err == nil && n == 0 {
		err = errors.New("it ended without an answer")
	}
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "criu failed: %w", err)
	}
	var file *os.File
	if messages, err := unix.ParseSocketControlMessage(control[:controlled]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			file = os.NewFile(uintptr(fds[0]), "criu")
		}
	}
	resp := new(rpc.CriuResp)
	if err := resp.UnmarshalVT(text[:n]); err != nil {
		closeFile(file)
		return nil, nil, fault.New(fault.Internal, "criu's answer cannot be read: %w", err)
	}
	return resp, file, nil
}

// Has tells whether the program and the kernel know how to track memory that is
// written, which a pre-dump needs, and how to give memory when it is touched.
func Has(ctx context.Context, path string) (track, lazy bool, err error) {
	kind, yes := rpc.CriuReqType_FEATURE_CHECK, true
	call := Call{Path: path, Group: -1, Request: &rpc.CriuReq{Type: &kind, Features: &rpc.CriuFeatures{MemTrack: &yes, LazyPages: &yes}}}
	resp, err := call.Do(ctx)
	if err != nil {
		return false, false, err
	}
	return resp.GetFeatures().GetMemTrack(), resp.GetFeatures().GetLazyPages(), nil
}
