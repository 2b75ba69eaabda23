package checkpoint

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

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// A checkpoint is moved as a tar with, in this order,
//
//	tare.json          manifest
//	rootfs-diff.tar    a layer with the container's changes to its image
//	checkpoint/NAME    the files of its directory, those of a pre-dump behind memory/
//
// It says nothing of what isolates the container: that is what the container says
// that it is brought to.
const (
	manifestFile = "tare.json"
	diffFile     = "rootfs-diff.tar"
	imagesDir    = "checkpoint/"
)

// manifest is tare.json.
type manifest struct {
	Version int           // 1
	ChainID digest.Digest // of the image that the changes belong to
	Image   string        // what the container's image was called, for people
}

// imageFileName is what a file of CRIU's, or ours, in a checkpoint is called.
var imageFileName = regexp.MustCompile(`^(memory/)?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}$`)

// parentLink is where CRIU looks for an earlier dump. It is a link, which no archive
// says.
const parentLink = "parent"

// Write writes the archive of the checkpoint in the directory dir, of a container of the
// image with the chain, which people call image. diff is the layer of its changes.
func Write(w io.Writer, dir string, chain digest.Digest, image string, diff *os.File) error {
	out := tar.NewWriter(w)
	text, err := json.Marshal(manifest{1, chain, image})
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: manifestFile, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if err := addFile(out, diffFile, diff); err != nil {
		return err
	}
	if err := addImages(out, dir, ""); err != nil {
		return err
	}
	if err := addImages(out, dir, supervise.MemoryDir+"/"); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
		err = addFile(out, imagesDir+name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
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

// Read unpacks what somebody calls an archive of a checkpoint: the layer of the changes
// goes to apply, and the rest into the directory images. It must be one of a
// container of the image with the chain.
func Read(ctx context.Context, from io.Reader, chain digest.Digest, apply func(context.Context, io.Reader) error, images string) error {
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
		file, isImage := strings.CutPrefix(hdr.Name, imagesDir)
		switch {
		case hdr.Typeflag != tar.TypeReg:
			return fault.New(fault.Invalid, "the archive is not one of a checkpoint: %q is no file", hdr.Name)
		case hdr.Name == manifestFile && !known:
			if err := readManifest(in, chain); err != nil {
				return err
			}
			known = true
		case hdr.Name == diffFile && known && !changed:
			if err := apply(ctx, in); err != nil {
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

// readManifest checks that the checkpoint is one of a container of the image.
func readManifest(in io.Reader, chain digest.Digest) error {
	var m manifest
	if err := json.NewDecoder(io.LimitReader(in, 64<<10)).Decode(&m); err != nil || m.Version != 1 {
		return fault.New(fault.Invalid, "the archive is not one of a checkpoint that this version knows")
	}
	if m.ChainID != chain {
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
