package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What is made by several at a time are the small files that an archive has one
// after the other in one directory: of all else an entry can depend on those
// before it.
const (
	crewSize    = 2        // beside the one that reads the archive
	crewFiles   = 16       // that one takes over at a time
	crewContent = 96 << 10 // bytes of them
	crewMost    = 4096     // files until the next look at how it went
)

// crew makes small files of one directory beside the reading of the archive.
type crew struct {
	x     *extractor
	dir   string // where the files go, from the root
	fd    int    // the same, open as long as one of them is being made
	names map[string]bool
	next  *load   // that is being put together
	loads []*load // that were handed over
	files int

	work    chan *load
	busy    sync.WaitGroup // with loads
	members sync.WaitGroup
}

// load is some files.
type load struct {
	dir   int
	files []smallFile
	free  []byte // of content
	whole []byte
}

type smallFile struct {
	hdr  *tar.Header
	base string
	data []byte
	err  error
}

var loads = sync.Pool{New: func() any {
	return &load{whole: make([]byte, crewContent), files: make([]smallFile, 0, crewFiles)}
}}

func newCrew(x *extractor) *crew {
	c := &crew{x: x, names: map[string]bool{}, work: make(chan *load, 2*crewSize)}
	for range crewSize {
		c.members.Go(func() {
			for l := range c.work {
				for i := range l.files {
					x.small(l.dir, &l.files[i])
				}
				c.busy.Done()
			}
		})
	}
	return c
}

// fits tells whether a file can be made beside others.
func (c *crew) fits(hdr *tar.Header) bool {
	if hdr.Typeflag != tar.TypeReg || hdr.Size > crewContent {
		return false
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, paxXattr) || strings.HasPrefix(key, "SCHILY.acl.") || strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return true
}

// goesOn tells whether it can be beside those that are being made.
func (c *crew) goesOn(name string) bool {
	return c.files > 0 && c.files < crewMost && path.Dir(name) == c.dir && !c.names[path.Base(name)]
}

// take reads a file that fits, and has it made.
func (c *crew) take(name string, fd int, hdr *tar.Header, data io.Reader) error {
	c.dir, c.fd = path.Dir(name), fd
	if l := c.next; l != nil && (len(l.files) == crewFiles || int64(len(l.free)) < hdr.Size) {
		c.hand()
	}
	if c.next == nil {
		c.next = loads.Get().(*load)
		c.next.dir, c.next.files, c.next.free = fd, c.next.files[:0], c.next.whole
	}
	l := c.next
	content := l.free[:hdr.Size:hdr.Size]
	if _, err := io.ReadFull(data, content); err != nil && hdr.Size > 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return tarError(err)
	}
	l.free = l.free[hdr.Size:]
	base := path.Base(name)
	l.files = append(l.files, smallFile{hdr: hdr, base: base, data: content})
	c.names[base] = true
	c.files++
	c.x.stats.Bytes += (hdr.Size + blockSize - 1) &^ (blockSize - 1)
	return nil
}

func (c *crew) hand() {
	c.busy.Add(1)
	c.loads = append(c.loads, c.next)
	c.work <- c.next
	c.next = nil
}

// drain waits until all files are made. The first that failed is the error. One
// whose name was taken is made again as any other entry.
func (c *crew) drain(ctx context.Context) (err error) {
	if c.files == 0 {
		return nil
	}
	if c.next != nil {
		c.hand()
	}
	c.busy.Wait()
	for _, l := range c.loads {
		for i := range l.files {
			f := &l.files[i]
			if errors.Is(f.err, unix.EEXIST) && err == nil {
				c.x.stats.Bytes -= (f.hdr.Size + blockSize - 1) &^ (blockSize - 1)
				f.err = c.x.file(ctx, l.dir, f.base, f.hdr, bytes.NewReader(f.data))
			}
			if err == nil {
				err = f.err
			}
		}
		clear(l.files)
		loads.Put(l)
	}
	c.loads, c.files = c.loads[:0], 0
	clear(c.names)
	return err
}

// disband ends the crew, whatever became of its work.
func (c *crew) disband() {
	close(c.work)
	c.members.Wait()
}

// small makes a file by one who does nothing else at the time: it touches nothing
// of the extractor that changes meanwhile.
func (x *extractor) small(dir int, f *smallFile) {
	fd, err := unix.Openat(dir, f.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode(f.hdr)&0o777)
	if err != nil {
		if f.err = err; errors.Is(err, unix.EEXIST) {
			f.data = bytes.Clone(f.data)
		} else {
			f.err = failed(f.hdr.Name, err)
		}
		return
	}
	defer unix.Close(fd)
	for at := 0; at < len(f.data); {
		n, err := unix.Pwrite(fd, f.data[at:], int64(at))
		if err != nil && !errors.Is(err, unix.EINTR) {
			f.err = failed(f.hdr.Name, err)
			return
		}
		at += max(n, 0)
	}
	err = x.disinherit(fd)
	if err == nil {
		err = x.own(fd, f.hdr)
	}
	if err == nil {
		err = unix.UtimesNanoAt(fd, "", timespecs(f.hdr.AccessTime, f.hdr.ModTime), unix.AT_EMPTY_PATH)
	}
	f.err = failed(f.hdr.Name, err)
}
