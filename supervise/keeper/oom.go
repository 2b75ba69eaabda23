package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/supervise"
)

// oomWatch notices shortages of memory in a container's cgroup.
type oomWatch struct {
	// f waits in the poller: an eventfd(2) of cgroup v1, whose counter can be
	// read after each shortage, or the file memory.events of v2, which tells of a
	// change as an urgent one. An inotify instance would tell of it as well, and
	// a user has 128 of them.
	f       *os.File
	unified bool
	told    uint64 // kills, of v2
}

// watchOOM tells the daemons of each shortage of memory in the container's
// cgroup that cost a process its life, until the container is over. Without
// such a cgroup there is nothing to tell; the exit says of it what it knows
// itself.
func (k *keeper) watchOOM() {
	dir := memoryCgroup(k.box.pid())
	if dir == "" {
		return
	}
	if k.oom.f == nil {
		k.renewal.bar()
		w, err := openOOM(dir)
		if err == nil {
			k.oom = w
		}
		k.renewal.unbar()
		if err != nil {
			return
		}
	}
	go func() {
		<-k.over
		k.oom.f.Close() // the wait below returns
	}()
	k.oom.watch(dir, k.renewal, func() { k.announce(supervise.EventOOM, struct{}{}) })
}

// watch calls tell after each kill. It bars r meanwhile.
func (w *oomWatch) watch(dir string, r *renewal, tell func()) {
	rc, err := w.f.SyscallConn()
	if err != nil {
		return
	}
	for gone := false; err == nil && !gone; {
		err = rc.Read(func(fd uintptr) bool {
			r.bar()
			defer r.unbar()
			happened := w.news(fd)
			if happened && !w.unified {
				_, err := os.Stat(dir)
				gone = err != nil // its removal is an event too
			}
			if happened && !gone {
				tell()
			}
			return happened
		})
	}
}

// news tells whether there was another kill. Of cgroup v1 the event comes before
// it, when the count would still be the old one.
func (w *oomWatch) news(fd uintptr) bool {
	if !w.unified {
		var counter [8]byte
		n, err := unix.Read(int(fd), counter[:])
		return err == nil && n > 0
	}
	now := kills(fd)
	if now == w.told {
		return false
	}
	w.told = now
	return true
}

// kills reads the count in memory.events.
func kills(fd uintptr) uint64 {
	var text [1024]byte
	n, err := unix.Pread(int(fd), text[:], 0)
	if err != nil {
		return 0
	}
	return countIn(string(text[:n]), "oom_kill")
}

// openOOM begins to watch the group of a directory.
func openOOM(dir string) (oomWatch, error) {
	fd, err := unix.Open(filepath.Join(dir, "memory.events"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		return oomWatch{f: os.NewFile(uintptr(fd), "memory.events"), unified: true, told: kills(uintptr(fd))}, nil
	}
	if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return oomWatch{}, os.NewSyscallError("eventfd", err)
	}
	w := oomWatch{f: os.NewFile(uintptr(fd), "eventfd")}
	if err := w.order(dir, fd); err != nil {
		w.f.Close()
		return oomWatch{}, err
	}
	return w, nil
}

// order has the kernel count shortages on an eventfd, cgroups(7) of version 1.
func (w *oomWatch) order(dir string, fd int) error {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return err
	}
	defer control.Close()
	return os.WriteFile(filepath.Join(dir, "cgroup.event_control"), fmt.Appendf(nil, "%d %d", fd, control.Fd()), 0)
}

// countIn is the number behind a word, in lines of two words.
func countIn(text, word string) (n uint64) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, word+" "); ok {
			n, _ = strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return n
}
