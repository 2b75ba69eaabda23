package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/supervise"
)

// The descriptors that supervise.NetNSPath and UserNSPath name.
const (
	netNSFile  = 100
	userNSFile = 101
)

// create makes the container. It succeeds or fails once: after a failure
// nothing is left and the process ends.
func (k *keeper) create(ctx context.Context, r supervise.CreateRequest, files []*os.File) (supervise.Started, error) {
	k.mu.Lock()
	again := k.creating
	k.creating = true
	k.mu.Unlock()
	if again {
		closeAll(files)
		return supervise.Started{}, fault.New(fault.Conflict, "this process has a container already")
	}
	k.cfg = r
	clients, err := k.take(files)
	if err == nil {
		err = k.build(ctx)
	}
	if err != nil {
		closeAll(clients)
		if k.stdio != nil {
			k.stdio.close()
		}
		k.remove()
		return supervise.Started{}, err
	}
	k.mu.Lock()
	k.status.Phase, k.status.Pid = supervise.PhaseCreated, k.box.pid()
	s := supervise.Started{Pid: k.status.Pid, Status: k.status}
	k.mu.Unlock()
	go k.accept()
	go k.await()
	for i, o := range r.Clients {
		_ = k.attach(o, clients[i:i+1]) // one that is gone misses nothing
	}
	if r.Start {
		return k.start()
	}
	time.AfterFunc(2*time.Second, func() {
		if k.current().Phase == supervise.PhaseCreated { // not started soon
			thrift()
		}
	})
	return s, nil
}

// build performs the steps of create.
func (k *keeper) build(ctx context.Context) error {
	if err := k.clear(); err != nil {
		return err
	}
	var err error
	if k.listener, err = seqpacket.Listen(filepath.Join(k.cfg.Dir, supervise.SocketName)); err != nil {
		return fmt.Errorf("cannot make the container's socket: %w", err)
	}
	if k.rootfs, err = mountRoot(k.cfg.Rootfs, k.cfg.Users, filepath.Join(k.cfg.Dir, rootfsName)); err != nil {
		return err
	}
	log, err := openJournal(k.cfg.Log, func() { k.announce(supervise.EventRotate, struct{}{}) })
	if err != nil {
		return err
	}
	k.out = newOutput(log, &k.activity)
	if k.stdio, err = newStdio(k.cfg.TTY, k.cfg.OpenStdin); err != nil {
		return err
	}
	if err := k.make(ctx); err != nil {
		return err
	}
	k.stdio.pump(k.out, k.renewal)
	return k.noteInit()
}

// take puts the files of the request where they belong and returns the
// clients' sockets.
func (k *keeper) take(files []*os.File) (clients []*os.File, err error) {
	want := len(k.cfg.Clients)
	if k.cfg.NetNS {
		want++
	}
	if k.cfg.Shm {
		want++
	}
	if k.cfg.Users {
		want++
	}
	if len(files) < want {
		closeAll(files)
		return nil, fault.New(fault.Invalid, "%d files came with the request, it needs %d", len(files), want)
	}
	if k.cfg.NetNS {
		defer files[0].Close()
		if err := unix.Dup3(int(files[0].Fd()), netNSFile, unix.O_CLOEXEC); err != nil {
			closeAll(files[1:])
			return nil, os.NewSyscallError("dup3", err)
		}
		files = files[1:]
	}
	if k.cfg.Shm {
		defer files[0].Close()
		if err := mountShm(files[0], filepath.Join(k.cfg.Dir, supervise.ShmName)); err != nil {
			closeAll(files[1:])
			return nil, err
		}
		files = files[1:]
	}
	if k.cfg.Users {
		defer files[0].Close()
		if err := unix.Dup3(int(files[0].Fd()), userNSFile, unix.O_CLOEXEC); err != nil {
			closeAll(files[1:])
			return nil, os.NewSyscallError("dup3", err)
		}
		files = files[1:]
	}
	n := len(k.cfg.Clients)
	k.hold(files[n:])
	return files[:n], k.relay(k.cfg.Relays)
}

// clear removes what an earlier life of the container left in its directory.
func (k *keeper) clear() error {
	for _, name := range []string{supervise.SocketName, supervise.ExitName, supervise.InitName} {
		if err := os.Remove(filepath.Join(k.cfg.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// make has the container made by the chosen runtime.
func (k *keeper) make(ctx context.Context) (err error) {
	defer k.reaper.spawn()()
	if k.cfg.Runtime.Path == "" {
		k.box, err = createInProcess(ctx, k.cfg.Config, k.stdio, k.stage)
	} else {
		k.box, err = createExternal(ctx, k.cfg.Config, k.reaper, k.stdio)
	}
	if err != nil {
		k.box = nil
		return err
	}
	k.stage.Close() // nil or not
	k.reaper.own(k.box.pid())
	if err := k.stdio.made(); err != nil {
		k.box.delete(false)
		return err
	}
	if s := k.cfg.ConsoleSize; s[0] > 0 && s[1] > 0 {
		return k.stdio.resize(s[0], s[1])
	}
	return nil
}

// noteInit writes down which process the init is, for the case that this
// process is killed.
func (k *keeper) noteInit() error {
	started, _, err := procfs.Start(k.box.pid())
	if err != nil {
		return nil // it has ended; await tells how
	}
	note := fmt.Sprintf("%d %d\n", k.box.pid(), started)
	// Not atomically: should this process be killed in between, the control
	// groups tell the rest.
	return os.WriteFile(filepath.Join(k.cfg.Dir, supervise.InitName), []byte(note), 0o600)
}
