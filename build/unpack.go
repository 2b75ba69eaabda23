package build

import (
	"bufio"
	"context"
	"io"
	"os"
	"path"

	copy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/fault"
)

// unpack extracts an archive, as ADD does with what turns out to be one. It tells
// whether it was.
func (f *filing) unpack(ctx context.Context, from *tree, name string, to *tree, dst string, chown copy.Chowner) (bool, error) {
	place, err := from.openPath(name, true)
	if err != nil {
		return false, err
	}
	defer place.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(place.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, err
	}
	file, err := os.Open(fdPath(place))
	if err != nil {
		return false, err
	}
	defer file.Close()
	plain, _, err := compression.Decompress(file)
	if err != nil {
		return false, nil // it is copied as it is
	}
	defer plain.Close()
	in := bufio.NewReaderSize(plain, 64<<10)
	head, _ := in.Peek(512)
	if !isTar(head) {
		return false, nil
	}
	if err := f.mkdirAll(to, dst, chown); err != nil {
		return true, err
	}
	dir, err := to.openPath(dst, true)
	if err != nil {
		return true, err
	}
	defer dir.Close()
	root, err := os.Open(fdPath(dir))
	if err != nil {
		return true, err
	}
	defer root.Close()
	o := archive.Options{Whiteouts: archive.NoWhiteouts} // it is no layer
	asked, err := chown(&copy.User{UID: -1, GID: -1})
	if err != nil {
		return true, err
	}
	if asked.UID >= 0 {
		o.Owner = &archive.Owner{UID: uint32(asked.UID), GID: uint32(asked.GID)}
	}
	if _, err := archive.Extract(ctx, root, in, o); err != nil {
		return true, fault.New(fault.Invalid, "cannot unpack %s: %w", path.Base(name), err)
	}
	_, err = io.Copy(io.Discard, in)
	return true, err
}

// isTar tells whether a block is the head of a tar entry: by the magic of POSIX
// and GNU, tar(5).
func isTar(block []byte) bool {
	return len(block) == 512 && string(block[257:262]) == "ustar"
}

func (f *filing) mkdirAll(t *tree, name string, chown copy.Chowner) error {
	name = path.Join("/", name)
	for i := 1; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' || name == "/" {
			continue
		}
		if err := t.makeDir(name[:i], 0o755, chown, nil); err != nil {
			return err
		}
	}
	return nil
}
