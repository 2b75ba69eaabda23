// Package archive turns tar streams into trees of files, and trees and the
// changes between them into tar streams. What compresses and decompresses them
// is below it, in compression: the client program links this package alone.
//
// A tar is hostile input. All work is done relative to descriptors: the
// directory of an entry is found by openat2(2) with RESOLVE_IN_ROOT, so that
// absolute and climbing symlinks resolve below the root, and what is made in
// it is made by the *at calls, which never follow the last component. Nothing
// outside the root can be reached by any sequence of entries.
//
// Whiteouts (the OCI layer specification's .wh. names) become those of
// overlayfs, or stay what they are for who applies them (Options.Whiteouts).
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
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
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
// which are kept until its end: some millions of directories. The names of
// those without an entry may take as much again.
var maxTimes = 256 << 20

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Whiteouts is what becomes of an archive's whiteouts.
type Whiteouts int

// The ways to treat whiteouts. In each an earlier entry of the archive that has
// the name goes.
const (
	// DropWhiteouts is for a tree with nothing below it to hide.
	DropWhiteouts Whiteouts = iota
	// OverlayWhiteouts makes overlayfs's: a character device 0:0, and the
	// attribute trusted.overlay.opaque of a directory.
	OverlayWhiteouts
	// KeepWhiteouts makes empty files of the whiteouts' own names. No other
	// name of the tree begins with ".wh.".
	KeepWhiteouts
	// NoWhiteouts is for an archive that is no layer: its names mean themselves,
	// and an entry of the directory that it goes to says nothing about that.
	NoWhiteouts
	// Verbatim is for an archive of a whole tree that is no layer either, as Write
	// makes it with the option of that name: the root has an entry too, and what means
	// something to overlayfs is as good as any other file or attribute.
	Verbatim
)

// noLayer tells whether names that begin with .wh. mean themselves.
func (w Whiteouts) noLayer() bool { return w == NoWhiteouts || w == Verbatim }

// Options say what an extracted tree is for.
type Options struct {
	Whiteouts Whiteouts
	// Dir is where below the root the entries go: a clean path from the root, "" for
	// the root itself. Entries and links that climb out of it are refused. For
	// symbolic links of the archive it is the root; those that were in it before may
	// lead anywhere below the root.
	Dir string
	// From is the first part of the entries' names, which is taken away for To:
	// "." and "/" stand for what archives of a directory's content begin with. Names
	// that begin otherwise stay as they are. Nothing happens with an empty To.
	From, To string
	// Owner is whom all entries are given to; nil leaves them those of the archive.
	Owner *Owner
	// Users says whose user namespace the owners of the archive, and Owner, are of;
	// nil for this process's. What belongs to an ID that it does not have belongs to
	// its root. The caller acts as that one, see userns.Act.
	Users *userns.Map
	// Mine leaves what is made to the user of this process, and takes it as it is
	// where only root could give what the archive asks for.
	Mine bool
	// KeepKinds refuses to put something else in the place of a directory, or a
	// directory in the place of something else.
	KeepKinds bool
	// Crew has small files made by others beside the reading of the archive. It is
	// for a tree that nobody else changes, of an archive that is no layer.
	Crew bool
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Stats tell what an archive held.
type Stats struct {
	Entries int   // and directories without an entry of their own
	Bytes   int64 // taken on disk, in whole 4 KiB blocks
	Root    bool  // the root itself had an entry
	// Implicit are the directories that were made because something lies in
	// them, though no entry speaks of them, not even a whiteout: paths from the
	// root, sorted, without a link in them. They belong to root with mode 0755; in
	// layers that lie on others they should look like what is below.
	Implicit []string
	// Hiding are the directories with whiteouts of overlayfs in them, likewise. A
	// directory of which the layers below have nothing should have none: there
	// overlayfs lists the whiteouts themselves.
	Hiding []string
}

// Extract writes the entries of the uncompressed tar r below root, which is
// an open directory, and stops at the end of the archive: what follows in r is
// the caller's. Entries that would leave the root are refused with
// fault.Invalid, as are archives that cannot be read. What was written before
// an error stays; the caller removes the tree.
func Extract(ctx context.Context, root *os.File, r io.Reader, o Options) (Stats, error) {
	x := &extractor{Options: o, root: int(root.Fd()), buffer: make([]byte, bufferSize),
		dirs: map[string]int{}, times: map[string]time.Time{}, inherits: o.Whiteouts != NoWhiteouts && hasDefaultACL(root)}
	defer x.forget()
	if o.Crew && o.Whiteouts.noLayer() {
		x.crew = newCrew(x)
		defer x.crew.disband()
	}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return x.stats, err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			if err := x.drain(ctx); err != nil {
				return x.stats, err
			}
			x.stats.Implicit, x.stats.Hiding = x.implicit.list(x.root), x.hiding.list(x.root)
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
	Options
	root     int
	buffer   []byte
	dirs     map[string]int       // cleaned path -> descriptor, see parents.go
	stale    bool                 // something was removed: names in dirs may lead elsewhere
	times    map[string]time.Time // of directories, by cleaned path
	timed    int                  // bytes that times takes, about
	implicit marks                // without an entry yet
	hiding   marks                // with whiteouts of overlayfs in them
	inherits bool                 // a directory may hand down an access list
	holes    int64                // bytes
	stats    Stats
	links    ownLinks
	crew     *crew // nil without
}

// drain waits for the crew.
func (x *extractor) drain(ctx context.Context) error {
	if x.crew == nil {
		return nil
	}
	return x.crew.drain(ctx)
}

// refuse makes the error of an entry that cannot be right.
func refuse(name, format string, args ...any) error {
	return fault.New(fault.Invalid, "archive entry %q %s", name, fmt.Sprintf(format, args...))
}

// failed makes the error of a system call for an entry, nil for nil.
func failed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ELOOP):
		return refuse(name, "leads through a loop of symbolic links")
	case errors.Is(err, errClimbs):
		return refuse(name, "leads out of the directory by a symbolic link of the archive")
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
		if err := x.drain(ctx); err != nil {
			return err
		}
		x.forget()
		x.stale = false
	}
	name, err := inside(x.renamed(hdr.Name))
	if err != nil {
		return err
	}
	if x.Owner != nil {
		hdr.Uid, hdr.Gid = int(x.Owner.UID), int(x.Owner.GID)
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return refuse(hdr.Name, "belongs to %d:%d, which are no IDs", hdr.Uid, hdr.Gid)
	}
	if x.Users != nil {
		x.settle(hdr)
	}
	base := path.Base(name)
	if !x.Whiteouts.noLayer() && strings.Contains(name, whiteoutPrefix) {
		if done, err := x.whiteout(name, base); done || err != nil {
			return err
		}
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return refuse(hdr.Name, "would replace the root by something that is not a directory")
		}
		x.stats.Root = true
		if x.Whiteouts == NoWhiteouts {
			return nil
		}
		if err := x.drain(ctx); err != nil {
			return err
		}
		return x.directory(".", hdr)
	}
	if name, err = x.confined(path.Join(x.Dir, name)); err != nil {
		return failed(hdr.Name, err)
	}
	fits := x.crew != nil && x.crew.fits(hdr)
	if fits && x.crew.goesOn(name) {
		return x.crew.take(name, x.crew.fd, hdr, data)
	}
	if err := x.drain(ctx); err != nil {
		return err
	}
	dir, err := x.parent(name)
	if err != nil {
		return err
	}
	if fits {
		return x.crew.take(name, dir, hdr, data)
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

// renamed gives the name that an entry is to have.
func (x *extractor) renamed(name string) string {
	if x.To == "" {
		return name
	}
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(x.From, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return name
	}
	return x.To + rest
}

// reserved tells whether no entry can have the name, as it would be a whiteout.
func (x *extractor) reserved(base string) bool {
	return !x.Whiteouts.noLayer() && strings.HasPrefix(base, whiteoutPrefix)
}

// whiteout hides what the layers below have, if the name is one. The OCI layer
// specification has it apply to those alone; here an earlier entry of the name
// goes too, as the last entry of a name counts, and as it does for Docker.
func (x *extractor) whiteout(name, base string) (done bool, err error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, whiteoutMeta) && part != whiteoutOpaque {
			return true, nil // bookkeeping of aufs
		}
	}
	if above := path.Dir(name); strings.HasPrefix(above, whiteoutPrefix) || strings.Contains(above, "/"+whiteoutPrefix) {
		return true, refuse(name, "lies below a whiteout")
	}
	if !strings.HasPrefix(base, whiteoutPrefix) {
		return false, nil
	}
	dir, err := x.parent(name)
	if err != nil {
		return true, err
	}
	if base == whiteoutOpaque {
		return true, failed(name, x.hideAll(dir))
	}
	hidden := base[len(whiteoutPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return true, refuse(name, "hides nothing that can have a name")
	}
	if err := x.remove(dir, hidden); err != nil && !errors.Is(err, unix.ENOENT) {
		return true, failed(name, err)
	}
	switch x.Whiteouts {
	case OverlayWhiteouts:
		if err = unix.Mknodat(dir, hidden, unix.S_IFCHR, 0); err == nil {
			err = x.hiding.add(x.root, dir)
		}
	case KeepWhiteouts:
		err = keepWhiteout(dir, base)
	}
	return true, failed(name, err)
}

// hideAll hides all that the layers below have in a directory.
func (x *extractor) hideAll(dir int) error {
	switch x.Whiteouts {
	case OverlayWhiteouts:
		return overlayfs.SetOpaque(dir)
	case KeepWhiteouts:
		return keepWhiteout(dir, whiteoutOpaque)
	}
	return nil
}

func keepWhiteout(dir int, base string) error {
	err := unix.Mknodat(dir, base, unix.S_IFREG|0o600, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
