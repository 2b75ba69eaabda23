package archive

import (
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/openat"
	"golang.org/x/sys/unix"
)

// maxDirs is how many open directories are kept at hand from one entry to the
// next. Archives list the entries of a directory together, so a few suffice.
const maxDirs = 64

// maxLinks is how many symbolic links without a target a missing parent may
// lead through, as the kernel's limit for those that have one.
const maxLinks = 40

func procPath(dir int, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + base
}

// resolve opens name below root with the flags; no component leads out.
func resolve(root int, name string, flags uint64) (int, error) {
	return openat.Open(root, name, flags, openat.InRoot)
}

// open returns a descriptor of the directory name, which the extractor keeps.
func (x *extractor) open(name string) (int, error) {
	if name == "." {
		return x.root, nil
	}
	if fd, ok := x.dirs[name]; ok {
		return fd, nil
	}
	fd, err := resolve(x.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	x.remember(name, fd)
	return fd, nil
}

func (x *extractor) remember(name string, fd int) {
	if old, ok := x.dirs[name]; ok {
		unix.Close(old)
		delete(x.dirs, name)
	}
	x.dirs[name] = fd
}

// forget closes what is kept. It is called only where nobody has one of the
// descriptors in hand: between entries, and on the way down to a parent.
func (x *extractor) forget() {
	for name, fd := range x.dirs {
		unix.Close(fd)
		delete(x.dirs, name)
	}
	x.links.last.dir = ""
}

// parent returns a descriptor of the directory that holds name, making those
// that are missing. It is valid until the next call.
func (x *extractor) parent(name string) (int, error) {
	dir := path.Dir(name)
	fd, err := x.open(dir)
	if x.missing(err) {
		if err = x.makeParents(dir, 0); err == nil {
			fd, err = x.open(dir)
		}
	}
	if err != nil {
		return -1, failed(name, err)
	}
	return fd, nil
}

// missing tells whether a directory may be not there: nothing is, or a whiteout
// that overlayfs knows.
func (x *extractor) missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || x.Whiteouts == OverlayWhiteouts && errors.Is(err, unix.ENOTDIR)
}

// makeParents makes the directory name and those above it that are missing.
func (x *extractor) makeParents(name string, links int) error {
	if name == "." {
		return nil
	}
	if _, err := x.open(name); !x.missing(err) {
		return err
	}
	if err := x.makeParents(path.Dir(name), links); err != nil {
		return err
	}
	if len(x.dirs) > maxDirs {
		x.forget()
	}
	up, err := x.open(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if x.reserved(base) { // by a link: Extract lets no such name in
		return refuse(name, "leads to a whiteout")
	}
	err = unix.Mkdirat(up, base, 0o755)
	if errors.Is(err, unix.EEXIST) && isWhiteout(up, base) {
		return x.makeOverWhiteout(up, base)
	}
	if err == nil {
		return x.makeImplicit(up, base, name)
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// It is there and yet not found: a symbolic link whose target is missing
	// here, though a layer below may have it.
	if links++; links > maxLinks {
		return unix.ELOOP
	}
	target, err := readlink(up, base)
	if errors.Is(err, unix.EINVAL) {
		return unix.ENOTDIR
	}
	if err != nil {
		return err
	}
	if !path.IsAbs(target) {
		target = path.Join("/", path.Dir(name), target)
	}
	return x.makeParents(path.Join(".", path.Clean(target)), links)
}

// makeOverWhiteout makes a directory in the place of a whiteout, which goes on to
// hide what is below.
func (x *extractor) makeOverWhiteout(up int, base string) error {
	fd, err := x.openOrMakeDir(up, base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return x.plain(fd)
}

// makeImplicit finishes a directory that was made and has no entry. It is kept
// open, as what is made next is in it.
func (x *extractor) makeImplicit(up int, base, name string) error {
	if err := x.count(); err != nil {
		return err
	}
	fd, err := unix.Openat(up, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	x.remember(name, fd)
	if err := x.plain(fd); err != nil {
		return err
	}
	return x.implicit.add(x.root, fd)
}

// plain gives a new directory the attributes of one that nothing is said about.
func (x *extractor) plain(fd int) error {
	x.stats.Bytes += blockSize
	// Whatever the umask, and what the directory above hands down.
	return errors.Join(x.disinherit(fd), x.chown(fd, 0, 0), unix.Fchmod(fd, 0o755))
}

func readlink(dir int, base string) (string, error) {
	buf := make([]byte, maxName)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// CopyAttributes gives the directory to the owner, mode and extended
// attributes of from, and its time.
func CopyAttributes(to, from *os.File) error {
	mtime, err := copyAttributes(int(to.Fd()), int(from.Fd()))
	if err != nil {
		return err
	}
	return setTime(int(to.Fd()), mtime)
}

func copyAttributes(to, from int) (mtime time.Time, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return mtime, err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return mtime, err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return mtime, err
	}
	return time.Unix(st.Mtim.Unix()), copyXattrs(to, from)
}

func setTime(fd int, t time.Time) error {
	return unix.UtimesNanoAt(fd, "", timespecs(t, t), unix.AT_EMPTY_PATH)
}

// keepTime remembers the time of a directory for setDirTimes.
func (x *extractor) keepTime(name string, t time.Time) error {
	if _, ok := x.times[name]; !ok {
		x.timed += len(name) + 64
	}
	if x.timed > maxTimes {
		return refuse(name, "is one directory more than an archive may have")
	}
	x.times[name] = t
	return nil
}

// setDirTimes sets the times of the directories at the very end, since each
// entry made in one changes its time.
func (x *extractor) setDirTimes() error {
	x.forget()
	for _, name := range slices.Sorted(maps.Keys(x.times)) {
		fd, err := resolve(x.root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue // a later entry took its place
		}
		err = setTime(fd, x.times[name])
		unix.Close(fd)
		if err != nil {
			return failed(name, err)
		}
	}
	return nil
}

// remove takes away what has the name in dir, a whole tree too.
func (x *extractor) remove(dir int, base string) error {
	x.stale = true
	return deltree.At(dir, base)
}
