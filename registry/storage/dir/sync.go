package dir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errUnsynced says that bytes may not be on disk, though the page cache has them:
// the kernel tells this once, so the next sync says nothing of them.
var errUnsynced = errors.New("what was written may be lost: push it again")

func unsynced(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w (%w)", errUnsynced, err)
}

// writeOut returns when the bytes of the file have been written. One commit of a
// journal has them and the name that the file gets next, in this order; a sync
// before it would be another commit. The sync after it promises all of it on every
// file system, but for what the disk says here: that is told once.
func writeOut(f *os.File) error {
	return syncRange(f, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

// told gives what the disk has said of the file so far. It waits for one page at most.
func told(f *os.File) error { return syncRange(f, 0, 1, unix.SYNC_FILE_RANGE_WAIT_BEFORE) }

// syncRange is errUnsynced for all that a disk may say: besides EIO, ENODATA of a
// medium that cannot be read, ETIMEDOUT of a path, and others.
func syncRange(f *os.File, at, n int64, flags int) error {
	err := unix.SyncFileRange(int(f.Fd()), at, n, flags)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESPIPE), errors.Is(err, unix.EPERM):
		return nil // the file system, or whoever confines this process, has no such call
	}
	return unsynced(err)
}

// flush has the disk begin with what was written, so that Commit waits less, and
// lets go of the pages of what has been written before, unless another upload is
// compared with them. The page cache is for what is pulled: a large blob that is
// pushed would put that out, and takes memory that was not in use, which costs
// more than the disk does.
func (u *upload) flush() error {
	err := syncRange(u.body.f, u.saved, u.state.Size-u.saved, unix.SYNC_FILE_RANGE_WRITE)
	u.forget(u.saved)
	return err
}

// forget lets go of the pages of the first n bytes that have been written.
func (u *upload) forget(n int64) {
	if n > 0 && !u.s.bodies.shared(u.body) {
		_ = unix.Fadvise(int(u.body.f.Fd()), 0, n, unix.FADV_DONTNEED)
	}
}

// spoil has nobody go on with a body whose bytes the disk may have lost, if the
// error says so. Other uploads that share it would hear of it as little as the
// next sync does, and those that are closed find it cut.
func (t *bodies) spoil(b *body, err error) error {
	if b == nil || !errors.Is(err, errUnsynced) || b.lost.Swap(true) {
		return err
	}
	t.mu.Lock()
	t.hideLocked(b)
	t.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size.Store(0)
	_ = b.f.Chmod(0o600) // a sealed one may be open for reading alone
	return errors.Join(err, os.Truncate(fmt.Sprintf("/proc/self/fd/%d", b.f.Fd()), 0))
}
