package keeper

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper collects children that nobody waits for: orphans of a container that
// shares the host's pid namespace, and of an exec. Children with a waiter are
// owned; it leaves them alone. As a child may die before its maker can say so,
// nothing is collected while one is being made.
type reaper struct {
	making sync.RWMutex // read-locked while a child is being made

	mu    sync.Mutex
	owned map[int]bool

	wake chan os.Signal
}

// newReaper makes orphans our children, and signals harmless. Ignored they
// would stay ignored in the container's processes; handlers are reset by exec.
func newReaper() (*reaper, error) {
	r := &reaper{owned: map[int]bool{}, wake: make(chan os.Signal, 1)}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	handleHarmless()
	signal.Notify(r.wake, unix.SIGCHLD)
	go func() {
		for range r.wake {
			r.collect()
		}
	}()
	return r, nil
}

// harmless are the signals without effect on this process.
var harmless = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM}

func handleHarmless() { signal.Notify(make(chan os.Signal, 1), harmless...) }

// spawn brackets the making of children; the returned function ends it.
func (r *reaper) spawn() func() {
	r.making.RLock()
	return func() {
		r.making.RUnlock()
		r.poke()
	}
}

func (r *reaper) own(pid int) {
	r.mu.Lock()
	r.owned[pid] = true
	r.mu.Unlock()
}

// disown is called when the child's waiter has collected it.
func (r *reaper) disown(pid int) {
	r.mu.Lock()
	delete(r.owned, pid)
	r.mu.Unlock()
	r.poke()
}

func (r *reaper) poke() {
	select {
	case r.wake <- syscall.SIGCHLD:
	default:
	}
}

// collect collects dead children until it meets an owned one, which hides
// those behind it until its waiter is done; disown looks again.
func (r *reaper) collect() {
	if !r.making.TryLock() {
		return // spawn looks again
	}
	defer r.making.Unlock()
	for {
		pid := deadChild()
		r.mu.Lock()
		owned := r.owned[pid]
		r.mu.Unlock()
		if pid == 0 || owned {
			return
		}
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// deadChild returns a child that has ended and was not collected, 0 if there
// is none. It stays uncollected.
func deadChild() int {
	var info struct { // siginfo_t of 64-bit systems
		signo, errno, code, _ int32
		pid                   int32
		_                     [108]byte
	}
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(info.pid)
}
