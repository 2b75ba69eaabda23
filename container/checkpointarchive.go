package container

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// A checkpoint is moved as a tar with, in this order,
//
//	tare.json          checkpointManifest
//	rootfs-diff.tar    a layer with the container's changes to its image
//	checkpoint/NAME    the files of its directory, those of a pre-dump behind memory/
//
// It says nothing of what isolates the container: that is what the container says
// that it is brought to.
const (
	archiveManifest = "tare.json"
	archiveDiff     = "rootfs-diff.tar"
	archiveImages   = "checkpoint/"
)

// checkpointManifest is tare.json.
type checkpointManifest struct {
	Version int           // 1
	ChainID digest.Digest // of the image that the changes belong to
	Image   string        // what the container's image was called, for people
}

// imageFileName is what a file of CRIU's, or ours, in a checkpoint is called.
var imageFileName = regexp.MustCompile(`^(memory/)?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}$`)

// parentLink is where CRIU looks for an earlier dump. It is a link, which no archive
// says.
const parentLink = "parent"

// Export writes a checkpoint of a container that does not run, with the
// container's changes to its image, to w.
func (c *Checkpoints) Export(ctx context.Context, nameOrID, dir, name string, w io.Writer) (err error) {
	r, unlock, err := c.containers.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State.Live() {
		return fault.New(fault.Conflict, "container %s runs, and its files no longer belong to its checkpoint: stop it first", nameOrID)
	}
	path, err := c.find(&r, nameOrID, dir, name)
	if err != nil {
		return err
	}
	diff, err := c.writeDiff(ctx, &r)
	if err != nil {
		return err
	}
	defer diff.Close()
	out := tar.NewWriter(w)
	text, err := json.Marshal(checkpointManifest{1, r.Image.ChainID, r.Config.Image})
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: archiveManifest, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if err := addFile(out, archiveDiff, diff); err != nil {
		return err
	}
	if err := addImages(out, path, ""); err != nil {
		return err
	}
	if err := addImages(out, path, supervise.MemoryDir+"/"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return out.Close()
}

// addImages adds the files of a checkpoint's directory, or of one below it.
func addImages(out *tar.Writer, path, below string) error {
	entries, err := os.ReadDir(filepath.Join(path, below))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := below + e.Name()
		if !e.Type().IsRegular() || !imageFileName.MatchString(name) {
			continue
		}
		f, err := os.Open(filepath.Join(path, name))
		if err != nil {
			return err
		}
		err = addFile(out, archiveImages+name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// writeDiff writes the changes to a file that has no name, as a tar has its
// entries' sizes before them.
func (c *Checkpoints) writeDiff(ctx context.Context, r *Record) (*os.File, error) {
	changes, err := c.containers.Files().open(*r)
	if err != nil {
		return nil, err
	}
	defer changes.Close()
	f, err := os.CreateTemp(c.containers.store.path(r.ID), ".diff-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		_, err = changes.WriteLayer(ctx, f, archive.WriteOptions{})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func addFile(out *tar.Writer, name string, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: st.Size(), ModTime: st.ModTime()}); err != nil {
		return err
	}
	_, err = io.CopyN(out, f, st.Size())
	return err
}

// Import brings what Export wrote to a container that was created of the same
// image and has never run. When it fails the container is as it was.
func (c *Checkpoints) Import(ctx context.Context, nameOrID, name string, from io.Reader) (err error) {
	s := c.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State != Created {
		return fault.New(fault.Conflict, "a checkpoint is brought to a container that has never run, and %s has: create another of the same image", nameOrID)
	}
	if !checkpointName.MatchString(name) {
		return fault.New(fault.Invalid, "Invalid checkpoint ID (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	dir, err := c.prepare(&r, nameOrID, CheckpointOptions{Name: name})
	if err != nil {
		return err
	}
	root, err := s.rootOf(ctx, &r)
	if err != nil {
		return err
	}
	if root.Upper == "" {
		return fault.New(fault.NotImplemented, "a checkpoint can be brought to a container only where its changes are an overlay's")
	}
	part := filepath.Join(filepath.Dir(dir), "."+name+".new")
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part), empty(root.Upper))
		}
	}()
	if err := unpackCheckpoint(ctx, from, &r, root.Upper, part); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// empty removes all that is in a directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// unpackCheckpoint reads what somebody calls a checkpoint.
func unpackCheckpoint(ctx context.Context, from io.Reader, r *Record, upper, images string) error {
	in := tar.NewReader(from)
	known, changed := false, false
	for {
		hdr, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fault.New(fault.Invalid, "the archive cannot be read: %w", err)
		}
		file, isImage := strings.CutPrefix(hdr.Name, archiveImages)
		switch {
		case hdr.Typeflag != tar.TypeReg:
			return fault.New(fault.Invalid, "the archive is not one of a checkpoint: %q is no file", hdr.Name)
		case hdr.Name == archiveManifest && !known:
			if err := readManifest(in, r); err != nil {
				return err
			}
			known = true
		case hdr.Name == archiveDiff && known && !changed:
			root, err := os.Open(upper)
			if err != nil {
				return err
			}
			_, err = archive.Extract(ctx, root, in, archive.Options{Whiteouts: archive.OverlayWhiteouts})
			root.Close()
			if err != nil {
				return err
			}
			changed = true
		case isImage && changed && file != parentLink && imageFileName.MatchString(file):
			if err := saveImage(images, file, in); err != nil {
				return err
			}
		default:
			return fault.New(fault.Invalid, "the archive is not one of a checkpoint: %q has no place in it", hdr.Name)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(images, "inventory.img")); err != nil {
		return fault.New(fault.Invalid, "the archive has no checkpoint")
	}
	return nil
}

// readManifest checks that the checkpoint is one of the container's image.
func readManifest(in io.Reader, r *Record) error {
	var m checkpointManifest
	if err := json.NewDecoder(io.LimitReader(in, 64<<10)).Decode(&m); err != nil || m.Version != 1 {
		return fault.New(fault.Invalid, "the archive is not one of a checkpoint that this version knows")
	}
	if m.ChainID != r.Image.ChainID {
		return fault.New(fault.Conflict, "the checkpoint is one of a container of another image (%q there): create one of that", m.Image)
	}
	return nil
}

func saveImage(images, file string, in io.Reader) error {
	if filepath.Dir(file) == supervise.MemoryDir { // the first has both made
		if err := os.Mkdir(filepath.Join(images, supervise.MemoryDir), 0o700); err == nil {
			err = os.Symlink(supervise.MemoryDir, filepath.Join(images, parentLink))
			if err != nil {
				return err
			}
		} else if !os.IsExist(err) {
			return err
		}
	}
	path := filepath.Join(images, file)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return fault.New(fault.Invalid, "the archive has %s twice", filepath.Base(path))
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("the checkpoint cannot be stored: %w", err)
	}
	return nil
}
