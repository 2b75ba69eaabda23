package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
)

// WriteOptions say how a tree becomes an archive.
type WriteOptions struct {
	// Latest, unless zero, replaces the times of files that are newer
	// (SOURCE_DATE_EPOCH, https://reproducible-builds.org/specs/source-date-epoch/).
	Latest time.Time
	// Seconds leaves out the fractions of the times, and so for most files a header
	// as large as another small file, which takes its reader as long.
	Seconds bool
	// Verbatim takes the whiteouts and attributes of overlayfs for files and
	// attributes like others, and leaves out the holes of files: for one directory
	// that is no layer.
	Verbatim bool
	// NoDevices says that the tree lies on a mount on which no device can be opened
	// (MOUNT_ATTR_NODEV), so that files need not be looked at before.
	NoDevices bool
	// Still says that nobody changes the tree, so that what was a regular file is one.
	Still bool
	// Content, unless nil, is called for what is in each regular file of contentWorth
	// bytes and more, when all before it has reached the writer. It calls write, which
	// has the data there too when it returns, or else has them there itself.
	Content func(file int, st *unix.Stat_t, write func() error) error
	// Users has the archive name the owners that files have in this user namespace;
	// nil for those that they have here.
	Users *userns.Map
}

// contentWorth is from which size on Content is asked.
const contentWorth = 1 << 20

// Write writes the whole tree as an uncompressed tar: each directory before
// what is in it, names in the order of their bytes, the root as "./". Equal trees
// give equal archives. Hard links, extended attributes with capabilities and
// access lists (SCHILY.xattr), device nodes and fractions of seconds are kept;
// sockets are left out. No link is followed. The memory it takes depends on the
// number of hard links alone. A file that is being written is taken as it is
// at that moment.
func Write(ctx context.Context, w io.Writer, tree Tree, o WriteOptions) error {
	root, err := tree.open()
	if err != nil {
		return err
	}
	defer root.close()
	p := newPacker(ctx, w, o)
	if len(root) > 0 {
		if err := p.directory("", root); err != nil {
			return err
		}
		if err := p.children("", root); err != nil {
			return err
		}
	}
	return p.tar.close()
}

// WriteOne writes one thing with all that is below it. place is a descriptor of
// it, of O_PATH too, and name that of its entry, from which the names of what is
// below go on; a directory that is named "." or "/" makes all names begin with "./" or "/",
// as Docker has it. Otherwise it is as Write.
func WriteOne(ctx context.Context, w io.Writer, place *os.File, name string, o WriteOptions) error {
	p := newPacker(ctx, w, o)
	var st unix.Stat_t
	if err := unix.Fstat(int(place.Fd()), &st); err != nil {
		return cannotRead(name, err)
	}
	if !isDir(&st) {
		if _, err := p.place(name, int(place.Fd()), &st, nil); err != nil {
			return err
		}
		return p.tar.close()
	}
	dir, err := Tree{place}.open()
	if err != nil {
		return err
	}
	defer dir.close()
	name = strings.TrimSuffix(name, "/") + "/"
	if err := p.directory(name, dir); err != nil {
		return err
	}
	if err := p.children(name, dir); err != nil {
		return err
	}
	return p.tar.close()
}

// inode names a file that has several names.
type inode struct{ dev, ino uint64 }

// linked is where such a file is in the archive, and how many more of its
// names may come.
type linked struct {
	name string
	left uint64
}

// packer writes entries.
type packer struct {
	ctx context.Context
	tar *tarWriter
	WriteOptions
	links   map[inode]*linked
	devices sync.Map // by device, whether their files are made up
	buffer  []byte
	xattrs  []byte // a list of names, or a value
	open    openDirs
	holes   int64 // that may yet come in a layer; those of other archives have no bound
	layer   bool
}

func newPacker(ctx context.Context, w io.Writer, o WriteOptions) *packer {
	return &packer{
		ctx: ctx, tar: newTarWriter(w), WriteOptions: o, links: map[inode]*linked{},
		buffer: make([]byte, bufferSize), xattrs: make([]byte, 64<<10),
	}
}

// children writes what is in a directory. Its name is "" or ends in a slash.
func (p *packer) children(name string, dir stack) error {
	ahead := lookahead{p: p, name: name, dir: dir}
	defer ahead.close()
	var next []item // files, one after the other
	flush := func() error {
		if len(ahead.runs) == 0 && len(next) < aheadWorth {
			for _, it := range next {
				if err := p.item(name, dir, it); err != nil {
					return err
				}
			}
		} else if len(next) > 0 {
			ahead.begin(next)
		}
		next = next[:0]
		return nil
	}
	for c := (cursor{stack: dir}); ; c.next() {
		it, err := c.peek()
		if errors.Is(err, unix.ESRCH) { // what is in /proc of a process that has ended
			return nil
		}
		if err != nil {
			return cannotRead(name, err)
		}
		if it != nil && it.file() {
			if next = append(next, *it); len(next) < aheadItems {
				continue
			}
		}
		if err := flush(); err != nil {
			return err
		}
		switch {
		case it == nil:
			return ahead.drain()
		case !it.file(): // with what is below it, which wants the descriptors
			if err = ahead.drain(); err == nil {
				err = p.item(name, dir, *it)
			}
		case len(ahead.runs) == aheadRuns:
			err = ahead.write()
		}
		if err != nil {
			return err
		}
	}
}

// item writes one thing with all that is below it, if it is there.
func (p *packer) item(name string, dir stack, it item) error {
	l := p.look(name, dir, it, nil)
	defer l.close()
	return p.entry(name, dir, &l)
}

// entry is item for what was looked at.
func (p *packer) entry(above string, dir stack, l *looked) error {
	name := above + l.item.name
	if l.err != nil {
		return cannotRead(name, l.err)
	}
	if l.place < 0 && l.content == nil {
		return nil
	}
	if !isDir(&l.st) {
		_, err := p.place(name, l.place, &l.st, l.content)
		return err
	}
	virtual := p.virtual(l.place, &l.st)
	unix.Close(l.place) // not one more for each level
	l.place = -1
	sub, err := dir.enter(l.item)
	if err != nil && virtual {
		return nil
	}
	if err != nil {
		return cannotRead(name, err)
	}
	defer sub.close()
	if len(sub) == 0 {
		return nil
	}
	defer p.open.give(len(sub))
	if err := p.open.take(name, len(sub)); err != nil {
		return err
	}
	if err := p.directory(name+"/", sub); err != nil {
		return err
	}
	return p.children(name+"/", sub)
}

// hidden tells whether it is no file but says that there is none.
func (p *packer) hidden(st *unix.Stat_t) bool { return !p.Verbatim && overlayfs.IsWhiteout(st) }

func cannotRead(name string, err error) error {
	return fmt.Errorf("cannot read %q: %w", "/"+shorten(name), err)
}

func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}

// checkName refuses a path that no program can name as a whole. A container can
// make trees of any depth, and whoever reads one has a path and descriptors for
// each level.
func checkName(name string) error {
	if len(name) > maxName {
		return fault.New(fault.Invalid, "the path %q has %d bytes, more than the %d that a path may have: move or remove it", "/"+shorten(name), len(name), maxName)
	}
	return nil
}

// begin writes the header of what st describes.
func (p *packer) begin(h header, st *unix.Stat_t) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if err := checkName(h.name); err != nil {
		return err
	}
	h.mode, h.uid, h.gid = st.Mode&0o7777, st.Uid, st.Gid
	if p.Users != nil {
		h.uid, _ = userns.Inside(p.Users.UIDs, st.Uid)
		h.gid, _ = userns.Inside(p.Users.GIDs, st.Gid)
	}
	h.modified = time.Unix(st.Mtim.Unix())
	if !p.Latest.IsZero() && h.modified.After(p.Latest) {
		h.modified = p.Latest
	}
	if p.Seconds {
		h.modified = time.Unix(h.modified.Unix(), 0)
	}
	return p.tar.begin(h)
}

// directory writes the entry of a directory alone.
func (p *packer) directory(name string, dir stack) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir[0], &st); err != nil {
		return cannotRead(name, err)
	}
	records, err := p.records(name, dir[0], p.xattrs)
	if err != nil {
		return err
	}
	if name == "" {
		name = "./"
	}
	return p.begin(header{name: name, kind: kindDir, records: records}, &st)
}

// procFD is a path that leads to what a descriptor, of O_PATH too, is open for.
func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openAsPlace opens a name as a mere place (O_PATH) and looks what it is: to open a
// device is to act on it, and to open a pipe is to wait.
func openAsPlace(at int, base string, st *unix.Stat_t) (fd int, err error) {
	if fd, err = unix.Openat(at, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// file writes what is no directory, and tells whether there was any such thing.
func (p *packer) file(name string, at int, base string) (there bool, err error) {
	var st unix.Stat_t
	fd, err := openAsPlace(at, base, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, cannotRead(name, err)
	}
	defer unix.Close(fd)
	return p.place(name, fd, &st, nil)
}

// place writes what is no directory and is known by its place (O_PATH), and
// tells whether it is anything that an archive can hold. c, unless nil, is what was
// read of it.
func (p *packer) place(name string, fd int, st *unix.Stat_t, c *content) (there bool, err error) {
	kind := map[uint32]byte{
		unix.S_IFREG: kindFile, unix.S_IFLNK: kindSymlink, unix.S_IFCHR: kindChar, unix.S_IFBLK: kindBlock, unix.S_IFIFO: kindFifo,
	}[st.Mode&unix.S_IFMT]
	if kind == 0 || p.hidden(st) { // a socket means nothing without its process
		return false, nil
	}
	if st.Nlink > 1 {
		if done, err := p.again(name, st); done || err != nil {
			return true, err
		}
	}
	h := header{name: name, kind: kind}
	if kind == kindFile && p.virtual(fd, st) {
		return p.madeUp(h, fd, st)
	}
	if kind == kindFile {
		if c == nil {
			c = p.read(name, fd, st, &scratch{xattrs: p.xattrs})
			defer func() {
				if c.file >= 0 {
					unix.Close(c.file)
				}
			}()
		}
		return true, p.regular(h, c, st)
	}
	if h.records, err = p.records(name, fd, p.xattrs); err != nil {
		return true, err
	}
	switch kind {
	case kindSymlink:
		if h.link, err = readlink(fd, ""); err != nil && p.virtual(fd, st) {
			return false, nil // as /proc/self is none for who is in no namespace of it
		}
		if err != nil {
			return true, cannotRead(name, err)
		}
	case kindChar, kindBlock:
		h.major, h.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return true, p.begin(h, st)
}

// again writes a further name of a file that is in the archive already, and
// remembers the first one.
func (p *packer) again(name string, st *unix.Stat_t) (done bool, err error) {
	id := inode{st.Dev, st.Ino}
	first := p.links[id]
	if first == nil {
		p.links[id] = &linked{name, uint64(st.Nlink) - 1}
		return false, nil
	}
	if first.left--; first.left == 0 {
		delete(p.links, id)
	}
	return true, p.begin(header{name: name, kind: kindLink, link: first.name}, st)
}

// openPlace opens a regular file for reading that is known by its place (O_PATH).
func openPlace(place int) (*os.File, error) {
	fd, err := readPlace(place)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), procFD(place)), nil
}

// readPlace is openPlace for a descriptor of its own.
func readPlace(place int) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NOATIME
	fd, err := unix.Open(procFD(place), flags|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is for a file's owner and for root
		fd, err = unix.Open(procFD(place), flags&^unix.O_NOATIME|unix.O_NONBLOCK, 0)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		// A program has a lease of the file, fcntl(2), and is asked to give it back:
		// it can, or loses it after some seconds, for which no other file makes wait.
		fd, err = unix.Open(procFD(place), flags, 0)
	}
	return fd, err
}

// regular writes a file with its data.
func (p *packer) regular(h header, c *content, st *unix.Stat_t) error {
	if c.err != nil {
		return c.err
	}
	h.size, h.records = st.Size, c.records
	f := c.file
	if f < 0 {
		if err := p.begin(h, st); err != nil {
			return err
		}
		if _, err := p.tar.Write(c.data); err != nil {
			return err
		}
		return p.zeros(st.Size - int64(len(c.data)))
	}
	pieces := []piece{{0, st.Size}}
	if st.Blocks*512 < st.Size {
		var err error
		if pieces, err = dataOf(f, st.Size); err != nil {
			return cannotRead(h.name, err)
		}
	}
	least := int64(manyHoles)
	if p.Verbatim {
		least = someHoles
	}
	if m := sparseMap(pieces, st.Size, least); m != "" {
		return p.sparse(h, f, st, pieces, m)
	}
	if err := p.begin(h, st); err != nil {
		return err
	}
	write := func() error { return p.pieces(f, h.name, st.Size, pieces) }
	if p.Content == nil || st.Size < contentWorth {
		return write()
	}
	return p.tar.content(func(flushed func() error) error {
		return p.Content(f, st, func() error { return errors.Join(write(), flushed()) })
	})
}

// pieces writes the data of a file, and its holes as zeros.
func (p *packer) pieces(f int, name string, size int64, pieces []piece) error {
	at := int64(0)
	for _, d := range pieces {
		if err := p.zeros(d.offset - at); err != nil {
			return err
		}
		if err := p.copy(f, name, d); err != nil {
			return err
		}
		at = d.offset + d.size
	}
	return p.zeros(size - at)
}

// zeros writes a hole.
func (p *packer) zeros(n int64) error {
	for n > 0 {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		k := min(n, int64(len(p.buffer)))
		if err := writeZeros(p.tar, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// copy writes one piece of a file; what the file lost meanwhile are zeros.
func (p *packer) copy(f int, name string, d piece) error {
	for d.size > 0 {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(f, p.buffer[:min(d.size, int64(len(p.buffer)))], d.offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return cannotRead(name, err)
		}
		if n == 0 {
			return p.zeros(d.size)
		}
		if _, err := p.tar.Write(p.buffer[:n]); err != nil {
			return err
		}
		d.offset, d.size = d.offset+int64(n), d.size-int64(n)
	}
	return nil
}

// maxRecords is how many bytes of extended attributes an entry may have: readers
// take no more than a megabyte of records, archive/tar among them.
const maxRecords = 1<<20 - 64<<10

// records makes the PAX records of a file's extended attributes.
// buf is as for readXattrs.
func (p *packer) records(name string, fd int, buf []byte) (map[string]string, error) {
	keeps := keepsXattr
	if p.Verbatim {
		keeps = keepsOverlay
	}
	attributes, err := readXattrs(fd, buf, keeps)
	if err != nil {
		return nil, cannotRead(name, err)
	}
	if len(attributes) == 0 {
		return nil, nil
	}
	records := make(map[string]string, len(attributes))
	size := 0
	for k, v := range attributes {
		if size += len(k) + len(v); size > maxRecords {
			return nil, fault.New(fault.Invalid, "%q has more than %d bytes of extended attributes, which no archive can hold: remove some with setfattr -x", "/"+shorten(name), maxRecords)
		}
		if strings.Contains(k, "=") {
			return nil, fault.New(fault.Invalid, "%q has the extended attribute %q, which an archive cannot hold for its equals sign: remove it with setfattr -x", "/"+shorten(name), k)
		}
		records[paxXattr+k] = inward(p.Users, k, v)
	}
	return records, nil
}
