package build

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
)

// Locator tells which of a result's layers a file is of.
type Locator struct{ layers []*os.File } // the topmost first

// Locator opens the result's layers, where each has a directory of its own: where
// trees hold what is below, too, it finds nothing.
func (r *Result) Locator(ctx context.Context) (*Locator, error) {
	l := &Locator{}
	o, err := r.ready(ctx)
	if err != nil || o.chain() == "" {
		return l, err
	}
	m, err := r.job.solver.Store.View(ctx, o.chain())
	if err != nil || len(m.Lower) != len(o.layers) {
		return l, err
	}
	for _, dir := range m.Lower {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.layers = append(l.layers, f)
	}
	return l, nil
}

// Close closes the layers.
func (l *Locator) Close() error {
	var err error
	for _, f := range l.layers {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Find returns the number of the layer, the lowest is 0; ok is false if the result has
// no such file. Links above it are not followed: what they lead to has another name.
func (l *Locator) Find(name string) (n int, ok bool) {
	name = strings.TrimPrefix(path.Join("/", name), "/")
	for i, layer := range l.layers {
		switch there, last := lookIn(layer, name); {
		case there:
			return len(l.layers) - 1 - i, true
		case last:
			return 0, false
		}
	}
	return 0, false
}

// lookIn looks for a file in one layer, and tells whether it hides those below.
func lookIn(layer *os.File, name string) (there, last bool) {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		fd, err := openat.Open(int(layer.Fd()), name[:i], unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return false, !errors.Is(err, unix.ENOENT)
		}
		f := os.NewFile(uintptr(fd), name[:i])
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		var value [1]byte
		_, opaque := unix.Getxattr(fdPath(f), "trusted.overlay.opaque", value[:])
		f.Close()
		switch {
		case err != nil, st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0: // a whiteout
			return false, true
		case i == len(name):
			return true, true
		case opaque == nil:
			last = true
		}
	}
	return false, last
}
