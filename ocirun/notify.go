package ocirun

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"golang.org/x/sys/unix"
)

// Pressure is how hard the kernel works to find memory for a container. On
// cgroup v1 the levels are those of memory.pressure_level; on v2, which counts
// the time that processes wait for memory (PSI), some of them waiting 100 ms of
// a second, some 300 ms, and all 100 ms.
type Pressure string

const (
	PressureLow      Pressure = "low"      // memory is reclaimed
	PressureMedium   Pressure = "medium"   // swapping, caches in use are dropped
	PressureCritical Pressure = "critical" // on the way to the OOM killer
)

var triggersV2 = map[Pressure]string{PressureLow: "some 100000 1000000", PressureMedium: "some 300000 1000000", PressureCritical: "full 100000 1000000"}

// AwaitExit returns when the container's init has ended, whoever its parent is,
// or with ctx's error. It collects nobody: see Wait for that.
func (c *Container) AwaitExit(ctx context.Context) error {
	if !c.alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "watch container %s: %w", c.id, err)
	}
	defer unix.Close(fd)
	if !c.alive() { // its number may be another's by now
		return nil
	}
	w, err := newWatch(ctx, fd, unix.POLLIN)
	if err != nil {
		return err
	}
	defer w.close()
	if !w.next() {
		return ctx.Err()
	}
	return nil
}

// NotifyOOM tells each time the kernel runs out of memory for the container and
// kills for it. Several before the receiver looks are told once. The channel is
// closed when ctx or the container ends.
func (c *Container) NotifyOOM(ctx context.Context) (<-chan struct{}, error) {
	if c.group.Unified {
		return c.notifyKillsV2(ctx)
	}
	return c.notifyV1(ctx, "memory.oom_control", "")
}

// NotifyMemoryPressure tells, as NotifyOOM does, when the container has less
// memory than it could use.
func (c *Container) NotifyMemoryPressure(ctx context.Context, level Pressure) (<-chan struct{}, error) {
	trigger, ok := triggersV2[level]
	if !ok {
		return nil, fault.New(fault.Invalid, "there is no memory pressure %q; there are low, medium and critical", level)
	}
	if !c.group.Unified {
		return c.notifyV1(ctx, "memory.pressure_level", string(level))
	}
	fd, err := unix.Open(filepath.Join(c.group.Members[0].Dir, "memory.pressure"), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		if _, err = unix.Write(fd, append([]byte(trigger), 0)); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "watch the memory pressure of container %s: %w", c.id, err)
	}
	return c.tell(ctx, fd, unix.POLLPRI, func() (bool, error) { return c.alive(), nil })
}

// notifyV1 has the kernel count events of a file of the memory group in an
// eventfd(2). It is signalled, too, when the group is removed.
func (c *Container) notifyV1(ctx context.Context, file, level string) (<-chan struct{}, error) {
	dir := ""
	for _, m := range c.group.Members {
		if slices.Contains(m.Controllers, "memory") {
			dir = m.Dir
		}
	}
	if dir == "" {
		return nil, fault.New(fault.Unavailable, "watch the memory of container %s: the memory control group is not mounted", c.id)
	}
	counter, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fault.New(fault.Internal, "make an eventfd: %w", err)
	}
	watched, err := unix.Open(filepath.Join(dir, file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = writeKernel(filepath.Join(dir, "cgroup.event_control"), strings.TrimSpace(fmt.Sprintf("%d %d %s", counter, watched, level)))
		unix.Close(watched)
	}
	if err != nil {
		unix.Close(counter)
		return nil, fault.New(fault.Unavailable, "watch the memory of container %s: %w", c.id, err)
	}
	return c.tell(ctx, counter, unix.POLLIN, func() (bool, error) {
		var count [8]byte
		_, err := unix.Read(counter, count[:])
		_, gone := os.Stat(dir)
		return gone == nil, err
	})
}

// notifyKillsV2 watches the files by which a v2 group tells of kills, and of its
// last process's end.
func (c *Container) notifyKillsV2(ctx context.Context) (<-chan struct{}, error) {
	dir := c.group.Members[0].Dir
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fault.New(fault.Internal, "watch the memory of container %s: %w", c.id, err)
	}
	for _, name := range []string{"memory.events", "cgroup.events"} {
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, name), unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return nil, fault.New(fault.Unavailable, "watch the memory of container %s: %w", c.id, err)
		}
	}
	kills := c.OOMs()
	return c.tell(ctx, fd, unix.POLLIN, func() (bool, error) {
		var buf [4096]byte
		if _, err := unix.Read(fd, buf[:]); err != nil {
			return false, err
		}
		before := kills
		kills = c.OOMs()
		if t := cgroupfs.Table(dir, "cgroup.events"); t["populated"] == 0 && kills <= before {
			return false, nil
		}
		if kills <= before {
			return false, unix.EAGAIN
		}
		return true, nil
	})
}

// tell makes a channel of what a descriptor, which it takes over, has to say.
// look reads it, and ends the channel with false; unix.EAGAIN is nothing new.
func (c *Container) tell(ctx context.Context, fd int, events int16, look func() (bool, error)) (<-chan struct{}, error) {
	w, err := newWatch(ctx, fd, events)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	out := make(chan struct{}, 1)
	go func() { // ends with ctx or the container
		defer close(out)
		defer unix.Close(fd)
		defer w.close()
		for w.next() {
			more, err := look()
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil || !more {
				return
			}
			select {
			case out <- struct{}{}:
			default: // it is told already
			}
		}
	}()
	return out, nil
}

// watch waits for a descriptor or for the end of a context.
type watch struct {
	polled [2]unix.PollFd
	stop   func() bool
	ended  chan struct{}
	ctx    context.Context
}

func newWatch(ctx context.Context, fd int, events int16) (*watch, error) {
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fault.New(fault.Internal, "make an eventfd: %w", err)
	}
	w := &watch{polled: [2]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(end), Events: unix.POLLIN}}, ended: make(chan struct{}), ctx: ctx}
	w.stop = context.AfterFunc(ctx, func() {
		_, _ = unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(w.ended)
	})
	return w, nil
}

// next waits and tells whether it was the descriptor.
func (w *watch) next() bool {
	for w.ctx.Err() == nil {
		n, err := unix.Poll(w.polled[:], -1)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n > 0 && w.polled[1].Revents == 0
	}
	return false
}

func (w *watch) close() {
	if !w.stop() {
		<-w.ended
	}
	unix.Close(int(w.polled[1].Fd))
}
