package volume

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/internal/treecopy"
)

// Export is the content of a volume, on its way out. It must be closed.
type Export struct {
	content   *os.File
	noDevices bool // can be opened in it
	close     func()
}

// OpenExport opens the content of a volume. With freeze it is that of one moment, at
// which the containers that use it stand still: a copy is made, which takes no room
// where the file system shares it, and deleted by Close.
func (s *Service) OpenExport(ctx context.Context, name string, freeze bool) (*Export, error) {
	r, release, err := s.borrow(ctx, name, "an export of it")
	if err != nil {
		return nil, err
	}
	content, done, err := s.use(ctx, r)
	if err != nil {
		release()
		return nil, err
	}
	e := &Export{content: content, close: func() { done(); release() }}
	if !freeze || len(s.containersOf(name)) == 0 {
		e.detach()
		return e, nil
	}
	defer e.Close()
	return s.still(ctx, name, content)
}

// still copies the content of a volume while nobody changes it.
func (s *Service) still(ctx context.Context, name string, content *os.File) (*Export, error) {
	thaw, err := s.freeze(ctx, name, true)
	if err != nil {
		return nil, err
	}
	defer thaw()
	dir := s.fresh(newPrefix)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	at, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	defer at.Close()
	var copied *os.File
	if err = treecopy.Clone(ctx, at, dataName, content, nil); err == nil {
		copied, err = os.Open(dir + "/" + dataName)
	}
	if err != nil {
		s.discard(dir)
		return nil, err
	}
	e := &Export{content: copied, close: func() { copied.Close(); s.background.Go(func() { s.discard(dir) }) }}
	e.detach()
	return e, nil
}

// detach goes on with a mount of the content that nobody else has and on which no
// device can be opened: what is read there needs no look before. Without that
// everything is as slow as it was.
func (e *Export) detach() {
	tree, err := unix.OpenTree(int(e.content.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return
	}
	fd := -1
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err == nil {
		fd, err = unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		unix.Close(tree)
		return
	}
	rest := e.close
	e.content, e.noDevices = os.NewFile(uintptr(fd), e.content.Name()), true
	content := e.content
	e.close = func() { content.Close(); unix.Close(tree); rest() }
}

// Write writes the content as an uncompressed tar, which Import and tar(1) read.
func (e *Export) Write(ctx context.Context, w io.Writer) error {
	return archive.Write(ctx, w, archive.Tree{e.content}, archive.WriteOptions{Verbatim: true, NoDevices: e.noDevices})
}

// Close lets go of the volume.
func (e *Export) Close() { e.close() }
