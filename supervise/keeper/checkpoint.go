package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun"
	"github.com/tarehq/tare/ocirun/criu"
	"github.com/tarehq/tare/supervise"
)

// restoredName is the directory of CRIU's log of a restoration: the checkpoint
// stays as it was.
const restoredName = "restored"

// dump is what a runtime is asked for.
type dump struct {
	criu, images, work string
	exit               bool
	preDump            bool     // of the memory, to supervise.MemoryDir, before the rest
	streams            []string // what our ends of descriptors 0, 1 and 2 are
}

// checkpoint writes the container's processes to files. What was begun for a
// daemon that is gone is finished for the next one: the directory has its name
// when it is whole.
func (k *keeper) checkpoint(c supervise.Checkpoint) (err error) {
	k.starting.Lock() // not in the middle of a start
	phase := k.current().Phase
	k.starting.Unlock()
	if phase != supervise.PhaseRunning {
		return fault.New(fault.Conflict, "the container cannot be checkpointed: it is %s", phase)
	}
	if err := k.awaitExecs(); err != nil {
		return err
	}
	defer k.dumping.Unlock()
	k.frost.mu.Lock() // nobody freezes or thaws it meanwhile
	defer k.frost.mu.Unlock()
	if len(k.frost.wants) > 0 {
		return fault.New(fault.Conflict, "the container cannot be checkpointed while files are copied, or it is committed: try again")
	}
	k.stir()
	defer k.calm()
	defer k.reaper.spawn()() // CRIU is a child

	parent, name := filepath.Split(c.Dir)
	part := filepath.Join(parent, "."+name+".new")
	work := part + "-log"
	for _, dir := range []string{part, work} {
		if err := os.RemoveAll(dir); err != nil { // of one that was killed or failed
			return err
		}
		if dir == part {
			defer os.RemoveAll(dir)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := k.box.checkpoint(dump{criu: c.CRIU, images: part, work: work, exit: c.Exit, preDump: c.PreDump, streams: k.stdio.names()}); err != nil {
		_ = os.Remove(work) // where CRIU was asked its log stays, which the error names
		return err
	}
	defer os.RemoveAll(work)
	for name, text := range c.Notes {
		if err := os.WriteFile(filepath.Join(part, name), text, 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(part, c.Dir); err != nil {
		return fmt.Errorf("the checkpoint cannot be given its place: %w", err)
	}
	if k.frost.paused && c.Exit {
		k.pausedLocked(false)
	}
	return nil
}

// execGrace is how long the probe of a health check, or the like, may take to end.
const execGrace = 3 * time.Second

// awaitExecs waits until none runs, and bars new ones: dumping is locked unless
// there is an error.
func (k *keeper) awaitExecs() error {
	for deadline := time.Now().Add(execGrace); ; time.Sleep(10 * time.Millisecond) {
		k.dumping.Lock()
		n := k.execs.count()
		if n == 0 {
			return nil
		}
		k.dumping.Unlock()
		if time.Now().After(deadline) {
			return fault.New(fault.Conflict, "processes that exec started cannot be part of a checkpoint, and %d run: end them first", n)
		}
	}
}

// names are what the streams' links in /proc say, for both ends of a pipe the
// same; empty for a terminal's.
func (s *stdio) names() []string {
	if s.tty {
		return nil
	}
	list := make([]string, 3)
	for i, f := range []*os.File{s.in, s.out, s.err} {
		if n := number(f); n >= 0 {
			list[i], _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n))
		}
	}
	return list
}

// count is how many run.
func (e *execs) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

func (b *inProcess) checkpoint(c dump) error {
	o := ocirun.CheckpointOptions{
		CRIU: c.criu, Images: c.images, Work: c.work, LeaveRunning: !c.exit, TCPEstablished: true, FileLocks: true, LinkRemap: true,
		Descriptors: c.streams,
	}
	if c.preDump {
		before := o
		before.Images, before.PreDump = filepath.Join(c.images, supervise.MemoryDir), true
		if err := b.c.Checkpoint(context.Background(), before); err != nil {
			return err
		}
		o.Parent = supervise.MemoryDir
	}
	return b.c.Checkpoint(context.Background(), o)
}

func restoreOptions(cfg supervise.Config) ocirun.CheckpointOptions {
	return ocirun.CheckpointOptions{
		CRIU: cfg.Restore.CRIU, Images: cfg.Restore.Images, Work: filepath.Join(cfg.Dir, restoredName), TCPEstablished: true, FileLocks: true,
		LazyPages: cfg.Restore.Lazy,
	}
}

// servePages starts who gives a container its memory when that is touched. The
// reaper collects it, of a process that was renewed meanwhile too.
func servePages(cfg supervise.Config) (end func(), err error) {
	work := filepath.Join(cfg.Dir, restoredName)
	if err := os.Mkdir(work, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	return criu.ServePages(cfg.Restore.CRIU, cfg.Restore.Images, work)
}
