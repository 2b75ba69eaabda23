// Package archive turns tar streams into trees of files.
//
// A tar is hostile input. All work is done relative to descriptors: the
// directory of an entry is found by openat2(2) with RESOLVE_IN_ROOT, so that
// absolute and climbing symlinks resolve below the root, and what is made in
// it is made by the *at calls, which never follow the last component. Nothing
// outside the root can be reached by any sequence of entries.
//
// Whiteouts (the OCI layer specification's .wh. names) become those of
// overlayfs.
package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// Limits on what one archive may hold.
const (
	maxName    = 4096    // bytes of a path, as PATH_MAX
	maxSize    = 1 << 44 // bytes of one file, sparse ones too
	bufferSize = 1 << 20
)

// maxEntries counts the directories too that are made for entries without. A
// variable for the sake of the tests, as the next.
var maxEntries = 20_000_000

// maxHoles is how many bytes of holes the sparse files of an archive may have in
// all: the reader of archive/tar fills them in, a gigabyte in a fifth of a
// second.
var maxHoles int64 = 1 << 38

// maxTimes is how many bytes the times of an archive's directories may take,
// which are kept until its end: some millions of directories.
var maxTimes = 256 << 20

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Options say what an extracted tree is for.
type Options struct {
	// Lower are the directories of the layers below, topmost first. With any,
	// whiteouts are written for overlayfs; without, there is nothing to hide.
	// A parent directory that the archive leaves out takes after theirs.
	Lower []*os.File
}

// Stats tell what an archive held.
type Stats struct {
	Entries int   // and directories without an entry of their own
	Bytes   int64 // taken on disk, in whole 4 KiB blocks
}

// Extract writes the entries of the uncompressed tar r below root, which is
// an open directory, and stops at the end of the archive: what follows in r is
// the caller's. Entries that would leave the root are refused with
// fault.Invalid, as are archives that cannot be read. What was written before
// an error stays; the caller removes the tree.
func Extract(ctx context.Context, root *os.File, r io.Reader, o Options) (Stats, error) {
	x := &extractor{root: int(root.Fd()), lower: o.Lower, buffer: make([]byte, bufferSize), dirs: map[string]int{}, times: map[string]time.Time{}}
	defer x.forget()
	x.sheds = hasDefaultACL(x.root)
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return x.stats, err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return x.stats, x.setDirTimes()
		}
		if x.stats.Entries == 0 && errors.Is(err, io.ErrUnexpectedEOF) { // not even one header
			return x.stats, fault.New(fault.Invalid, "the stream is not a tar archive")
		}
		if err != nil {
			return x.stats, tarError(err)
		}
		if err := x.count(); err != nil {
			return x.stats, err
		}
		if err := x.entry(ctx, hdr, tr); err != nil {
			return x.stats, err
		}
	}
}

// count counts an entry, or a directory that the archive has no entry for.
func (x *extractor) count() error {
	if x.stats.Entries++; x.stats.Entries > maxEntries {
		return fault.New(fault.Invalid, "the archive has more than %d entries", maxEntries)
	}
	return nil
}

// tarError says in one sentence why the stream could not be read on.
func tarError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // of who copies what is read
		return fmt.Errorf("cannot extract the archive: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Invalid, "the archive is truncated: %w", err)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return fault.New(fault.Invalid, "the stream is not a valid tar archive: %w", err)
	}
	return fmt.Errorf("cannot read the archive: %w", err)
}

type extractor struct {
	root   int
	lower  []*os.File
	buffer []byte
	dirs   map[string]int       // cleaned path -> descriptor, see parents.go
	stale  bool                 // something was removed: names in dirs may lead elsewhere
	times  map[string]time.Time // of directories, by cleaned path
	timed  int                  // bytes that times takes, about
	holes  int64                // bytes
	sheds  bool                 // some directory has a default access list, see shed
	stats  Stats
}

// refuse makes the error of an entry that cannot be right.
func refuse(name, format string, args ...any) error {
	return fault.New(fault.Invalid, "archive entry %q %s", name, fmt.Sprintf(format, args...))
}

// failed makes the error of a system call for an entry.
func failed(name string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return refuse(name, "leads through a loop of symbolic links")
	case errors.Is(err, unix.ENOTDIR):
		return refuse(name, "lies below something that is not a directory")
	case errors.Is(err, unix.ENAMETOOLONG):
		return refuse(name[:min(len(name), 80)], "has a name that is too long")
	}
	return fmt.Errorf("cannot extract %q: %w", name, err)
}

// inside cleans a name from an archive to a path relative to the root; "." is
// the root itself. A leading slash counts for nothing, as for Docker.
func inside(name string) (string, error) {
	if len(name) > maxName {
		return "", refuse(name[:80], "has a name that is too long")
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", refuse(name, "has a zero byte in its name")
	}
	// Not cleaned as an absolute path, which would swallow the dots that
	// climb: those mean no good and are told.
	cleaned := path.Clean(strings.TrimLeft(name, "/"))
	if cleaned == ".." || strings.HasPrefix(cleaned, "../") {
		return "", refuse(name, "is outside of the root of the archive")
	}
	return cleaned, nil
}

func (x *extractor) entry(ctx context.Context, hdr *tar.Header, data io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if x.stale || len(x.dirs) > maxDirs {
		x.forget()
		x.stale = false
	}
	name, err := inside(hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return refuse(hdr.Name, "belongs to %d:%d, which are no IDs", hdr.Uid, hdr.Gid)
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return x.whiteout(name, base)
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return refuse(hdr.Name, "would replace the root by something that is not a directory")
		}
		return x.directory(".", hdr)
	}
	dir, err := x.parent(name)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(name, hdr)
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // old archives have TypeRegA
		return x.file(ctx, dir, base, hdr, data)
	case tar.TypeSymlink:
		return x.symlink(dir, base, hdr)
	case tar.TypeLink:
		return x.hardlink(dir, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.node(dir, base, hdr)
	}
	return refuse(hdr.Name, "is of the unknown type %q", hdr.Typeflag)
}

// whiteout hides what the layers below have. The OCI layer specification has it
// apply to those alone; here an earlier entry of the name goes too, as the last
// entry of a name counts, and as it does for Docker.
func (x *extractor) whiteout(name, base string) error {
	if strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque {
		return nil // bookkeeping of aufs
	}
	dir, err := x.parent(name)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		if len(x.lower) == 0 {
			return nil
		}
		if err := setOpaque(dir); err != nil {
			return failed(name, err)
		}
		return nil
	}
	hidden := base[len(whiteoutPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return refuse(name, "hides nothing that can have a name")
	}
	if err := x.remove(dir, hidden); err != nil && !errors.Is(err, unix.ENOENT) {
		return failed(name, err)
	}
	if len(x.lower) == 0 {
		return nil
	}
	if err := unix.Mknodat(dir, hidden, unix.S_IFCHR, 0); err != nil {
		return failed(name, err)
	}
	return nil
}
