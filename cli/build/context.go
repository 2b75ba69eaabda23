package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// context finds what is built and returns it as a tar, and sets where the
// Dockerfile lies in it.
func (b *flags) context(ctx context.Context, stdin io.Reader, place string) (io.Reader, error) {
	switch {
	case place == "-":
		return b.piped(stdin)
	case isRemote(place):
		b.Remote, b.Dockerfile = place, filepath.ToSlash(b.file)
		return bytes.NewReader(nil), nil
	}
	return b.directory(ctx, stdin, place)
}

func isRemote(place string) bool {
	if _, err := os.Stat(place); err == nil {
		return false
	}
	for _, prefix := range []string{"http://", "https://", "git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(place, prefix) {
			return true
		}
	}
	return false
}

// piped is a tar from standard input, or a Dockerfile alone.
func (b *flags) piped(stdin io.Reader) (io.Reader, error) {
	if b.file == "-" {
		return nil, fault.New(fault.Invalid, "invalid argument: can't use stdin for both build context and dockerfile")
	}
	in := bufio.NewReaderSize(stdin, 64<<10)
	head, err := in.Peek(512)
	if len(head) == 0 {
		return nil, fault.New(fault.Invalid, "the context on standard input is empty: %w", err)
	}
	if isArchive(head) {
		b.Dockerfile = filepath.ToSlash(b.file)
		return in, nil
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	return b.produce(func(w *tar.Writer) error { return addText(w, "Dockerfile", text) }), nil
}

// isArchive tells a tar, also a compressed one, from text: tar(5), and the magic
// numbers of bzip2, gzip, xz and zstd.
func isArchive(head []byte) bool {
	for _, magic := range []string{"BZh", "\x1f\x8b\x08", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || len(head) == 512 && string(head[257:262]) == "ustar"
}

// directory packs a directory of this machine's.
func (b *flags) directory(ctx context.Context, stdin io.Reader, dir string) (io.Reader, error) {
	if st, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "unable to prepare context: path %q not found", dir)
	} else if err != nil {
		return nil, fault.New(fault.Invalid, "unable to prepare context: %w", err)
	} else if !st.IsDir() {
		return nil, fault.New(fault.Invalid, "unable to prepare context: %s is no directory: give a Dockerfile by --file", dir)
	}
	p := &packing{ctx: ctx, dir: dir}
	if err := b.dockerfile(p, stdin); err != nil {
		return nil, err
	}
	var err error
	if p.ignoreText, err = ignoreFile(dir, b.Dockerfile); err != nil {
		return nil, err
	}
	p.ignore = readIgnored(string(p.ignoreText))
	return b.produce(p.write), nil
}

// dockerfile finds the Dockerfile: in the context, or elsewhere, from where it is
// sent under a name of its own.
func (b *flags) dockerfile(p *packing, stdin io.Reader) error {
	name := b.file
	if name == "" {
		name = filepath.Join(p.dir, "Dockerfile")
	}
	if name == "-" {
		text, err := io.ReadAll(stdin)
		b.extra(p, text)
		return err
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fault.New(fault.Invalid, "unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	root, err := filepath.EvalSymlinks(p.dir)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, real); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		b.Dockerfile = filepath.ToSlash(rel)
		p.keep = []string{b.Dockerfile, b.Dockerfile + ".dockerignore", ".dockerignore"}
		return nil
	}
	text, err := os.ReadFile(real)
	b.extra(p, text)
	return err
}

// extra sends a Dockerfile that is not in the context.
func (b *flags) extra(p *packing, text []byte) {
	b.Dockerfile = fmt.Sprintf(".dockerfile.%d", os.Getpid())
	p.extra, p.extraName = text, b.Dockerfile
	p.keep = []string{".dockerignore"}
}

// ignoreFile is what lies beside the Dockerfile, or else in the context's root.
func ignoreFile(dir, dockerfile string) ([]byte, error) {
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, nil
}

// packing is the packing of one directory.
type packing struct {
	ctx        context.Context
	dir        string
	ignore     ignored
	ignoreText []byte
	keep       []string // sent whatever the patterns say: the daemon needs them
	extra      []byte
	extraName  string
	links      map[[2]uint64]string // names of files with several, by device and inode
}

func (p *packing) write(w *tar.Writer) error {
	p.links = map[[2]uint64]string{}
	err := filepath.WalkDir(p.dir, func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			return fault.New(fault.Invalid, "the context cannot be read: %w", err)
		}
		if err := p.ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(p.dir, full)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		if p.extra != nil && name == ".dockerignore" {
			return nil // it comes with the Dockerfile
		}
		if p.ignore.out(name) && !p.needs(name) {
			if e.IsDir() && p.ignore.whole(name) && !p.needsBelow(name) {
				return fs.SkipDir
			}
			return nil
		}
		return p.add(w, full, name)
	})
	if err != nil || p.extra == nil {
		return err
	}
	if err := addText(w, p.extraName, p.extra); err != nil {
		return err
	}
	// It is not of the context: no COPY finds it.
	return addText(w, ".dockerignore", append(bytes.TrimRight(p.ignoreText, "\n"), "\n"+p.extraName+"\n.dockerignore\n"...))
}

func (p *packing) needs(name string) bool {
	for _, k := range p.keep {
		if k == name {
			return true
		}
	}
	return false
}

func (p *packing) needsBelow(dir string) bool {
	for _, k := range p.keep {
		if strings.HasPrefix(k, dir+"/") {
			return true
		}
	}
	return false
}

// add packs one file. All belongs to root, as in an image.
func (p *packing) add(w *tar.Writer, full, name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: full, Err: err}
	}
	info, err := os.Lstat(full)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), ModTime: info.ModTime().Truncate(1e9), Format: tar.FormatPAX}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(full); err != nil {
			return err
		}
	case unix.S_IFREG:
		return p.file(w, h, full, &st)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil // sockets have no content, and devices are the host's
	}
	return w.WriteHeader(h)
}

func (p *packing) file(w *tar.Writer, h *tar.Header, full string, st *unix.Stat_t) error {
	h.Typeflag = tar.TypeReg
	if st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := p.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return w.WriteHeader(h)
		}
		p.links[key] = h.Name
	}
	f, err := os.Open(full)
	if err != nil {
		return fault.New(fault.Invalid, "the context cannot be read: %w", err)
	}
	defer f.Close()
	h.Size = st.Size
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(w, f, h.Size); err != nil {
		return fault.New(fault.Invalid, "%s changed while it was read: %w", full, err)
	}
	return nil
}

func addText(w *tar.Writer, name string, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: path.Clean(name), Mode: 0o600, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}

// produce returns a tar as it is written.
func (b *flags) produce(write func(*tar.Writer) error) io.ReadCloser {
	r, out := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(out, 256<<10)
		var to io.Writer = buffered
		end := buffered.Flush
		if b.zip {
			zip := gzip.NewWriter(buffered)
			to, end = zip, func() error { return errors.Join(zip.Close(), buffered.Flush()) }
		}
		w := tar.NewWriter(to)
		err := write(w)
		if err == nil {
			err = errors.Join(w.Close(), end())
		}
		out.CloseWithError(err) // the reader, if it has gone, has ended the writing
	}()
	return r
}
