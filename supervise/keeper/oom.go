package keeper

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/supervise"
)

// watchOOM tells the daemons of each shortage of memory in the container's
// cgroup that cost a process its life, until the container is over. Without
// such a cgroup there is nothing to tell; the exit says of it what it knows
// itself.
func (k *keeper) watchOOM() {
	dir := memoryCgroup(k.box.pid())
	if dir == "" {
		return
	}
	f, kills, err := openOOM(dir)
	if err != nil {
		return
	}
	go func() {
		<-k.over
		f.Close() // the read below returns
	}()
	told := kills()
	var event [4096]byte // inotify(7) events, or the counter of an eventfd(2)
	for {
		if _, err := f.Read(event[:]); err != nil {
			return
		}
		if _, err := os.Stat(dir); err != nil { // its removal is an event too
			return
		}
		if now := kills(); now != told {
			told = now
			k.announce(supervise.EventOOM, struct{}{})
		}
	}
}

// openOOM opens a file of which something can be read after each shortage, and
// counts them. Of cgroup v1 the event comes before the kill, whose count would
// still be the old one.
func openOOM(dir string) (f *os.File, kills func() uint64, err error) {
	v2 := filepath.Join(dir, "memory.events")
	if _, err := os.Stat(v2); err == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, nil, os.NewSyscallError("inotify_init1", err)
		}
		f = os.NewFile(uintptr(fd), "inotify")
		if _, err := unix.InotifyAddWatch(fd, v2, unix.IN_MODIFY); err != nil {
			f.Close()
			return nil, nil, err
		}
		return f, func() uint64 { return cgroupfs.Table(dir, "memory.events")["oom_kill"] }, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, os.NewSyscallError("eventfd", err)
	}
	f = os.NewFile(uintptr(fd), "eventfd")
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	defer control.Close()
	order := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(order), 0); err != nil {
		f.Close()
		return nil, nil, err
	}
	var events uint64
	return f, func() uint64 { events++; return events }, nil
}
