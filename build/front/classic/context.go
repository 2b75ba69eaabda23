package classic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// unpacked is a context that came as a tar, in a directory of its own. It stands
// for the client's session: the files are used where they are.
type unpacked struct {
	dir   string
	early string // of a Dockerfile that was cut, "" for none
	auths map[string]build.Credentials

	mu sync.Mutex
}

var (
	_ build.Session = (*unpacked)(nil)
	_ build.Holder  = (*unpacked)(nil)
)

// receive unpacks a context below dir. All in it is root's, as in one that is
// sent by a session.
func receive(ctx context.Context, dir string, body io.Reader) error {
	plain, _, err := compression.Decompress(body)
	if err != nil {
		return fault.New(fault.Invalid, "the context cannot be read: %w", err)
	}
	defer plain.Close()
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := archive.Extract(ctx, root, plain, archive.Options{Whiteouts: archive.NoWhiteouts, Owner: &archive.Owner{}, Crew: true}); err != nil {
		return fault.New(fault.Invalid, "the context cannot be unpacked: %w", err)
	}
	_, err = io.Copy(io.Discard, plain)
	return err
}

// cutName is the directory with a Dockerfile that was cut.
const cutName = "cut"

// cut makes a Dockerfile of the first lines of the context's, beside the context: that
// one may be copied.
func (u *unpacked) cut(name string, lines int) error {
	u.close()
	text, err := readDockerfile(u.dir, name)
	if err != nil {
		return err
	}
	if u.early, err = os.MkdirTemp(filepath.Dir(u.dir), cutName); err != nil {
		return err
	}
	root, err := os.OpenRoot(u.early)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	text = bytes.Join(bytes.SplitAfter(text, []byte("\n"))[:lines], nil)
	if err := root.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	if ignored, err := readDockerfile(u.dir, name+".dockerignore"); err == nil {
		return root.WriteFile(name+".dockerignore", ignored, 0o644)
	}
	return nil
}

func (u *unpacked) close() {
	if u.early != "" {
		os.RemoveAll(u.early)
	}
	u.early = ""
}

func (u *unpacked) Client() string { return "" }

// Directory is the context itself. What a request leaves out is removed: the
// front end has read its own files before it makes one that leaves out any.
func (u *unpacked) Directory(ctx context.Context, r build.LocalRequest) (string, error) {
	if r.Name == cutName && u.early != "" {
		return u.early, nil
	}
	if r.Name != "context" && r.Name != "dockerfile" {
		return "", fault.New(fault.NotFound, "the client of the build has no directory %q", r.Name)
	}
	if len(r.Exclude) == 0 {
		return u.dir, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	root, err := os.OpenRoot(u.dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	all := fsutil.NewRootFS(fsutil.NewRoot(root))
	some, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{ExcludePatterns: r.Exclude})
	if err != nil {
		return "", fault.New(fault.Invalid, "the context's patterns are not understood: %w", err)
	}
	kept := map[string]bool{}
	if err := walk(ctx, some, func(name string) error { kept[name] = true; return nil }); err != nil {
		return "", err
	}
	return u.dir, walk(ctx, all, func(name string) error {
		if kept[name] {
			return nil
		}
		return root.RemoveAll(name) // a directory that is gone is not walked
	})
}

func walk(ctx context.Context, tree fsutil.FS, visit func(name string) error) error {
	return tree.Walk(ctx, "", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return visit(path.Clean(name))
	})
}

func (u *unpacked) Local(context.Context, build.LocalRequest, string, func(int, bool)) error {
	return fmt.Errorf("the context in %s is used in place", u.dir)
}

func (u *unpacked) Content(_ context.Context, store string, _ ocispec.Descriptor, _ func(io.Reader) error) error {
	return fault.New(fault.NotFound, "a build without a session has no store %q", store)
}

func (u *unpacked) Secret(_ context.Context, id string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "secret %s: not found: a build without a session has none", id)
}

func (u *unpacked) SSH(context.Context, string) (net.Conn, error) {
	return nil, fault.New(fault.NotFound, "a build without a session has no ssh agent")
}

func (u *unpacked) Credentials(_ context.Context, host string) (build.Credentials, error) {
	names := []string{host, "https://" + host, "https://" + host + "/"}
	if host == "docker.io" {
		names = append(names, "https://index.docker.io/v1/")
	}
	for _, name := range names {
		if a, ok := u.auths[name]; ok {
			return a, nil
		}
	}
	return build.Credentials{}, nil
}
