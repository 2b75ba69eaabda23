package thread

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Though the first thread is the one that is free, f is never given it.
func TestOwnSparesTheFirstThread(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	seen := map[int]bool{}
	for range 1000 {
		Own(func() bool {
			tid := unix.Gettid()
			seen[tid] = true
			if tid == unix.Getpid() {
				t.Error("f runs on the first thread")
			}
			return true
		})
	}
	if len(seen) == 0 {
		t.Error("f never ran")
	}
}

// A thread that is not clean is not used again: the next ones have the
// process's directory, not the thread's.
func TestOwnEndsWhatIsNotClean(t *testing.T) {
	Own(func() bool {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Skip(err)
		}
		if err := unix.Chdir("/proc"); err != nil {
			t.Error(err)
		}
		return false
	})
	for range 100 {
		Own(func() bool {
			if dir, err := unix.Getwd(); err != nil || dir == "/proc" {
				t.Errorf("the directory is %q, %v", dir, err)
			}
			return true
		})
	}
}
