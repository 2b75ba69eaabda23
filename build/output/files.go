package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/buildkit/session/filesync"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
)

// files brings the result's files to the client, as they are or as a tar.
func (o *Writer) files(ctx context.Context, w Wanted, results []Made) (err error) {
	name := "exporting to client directory"
	if w.kind == "tar" {
		name = "exporting to client tarball"
	}
	vertex, end := progress.Task(o.Tells, name)
	defer func() { end(err) }()
	tree, closeTree, err := together(ctx, results, w.split)
	if err != nil {
		return err
	}
	defer closeTree()
	defer progress.Part(o.Tells, vertex, "copying files")()
	if w.kind == "local" {
		return client.Gone(filesync.CopyToCaller(ctx, tree, w.id, o.Caller, nil))
	}
	return o.stream(ctx, w, func(to io.Writer) error { return fsutil.WriteTar(ctx, tree, to) })
}

// stream sends the client a file.
func (o *Writer) stream(ctx context.Context, w Wanted, write func(io.Writer) error) error {
	to, err := filesync.CopyFileWriter(ctx, o.Said, w.id, o.Caller)
	if err != nil {
		return client.Gone(err)
	}
	if err := write(to); err != nil {
		to.Close()
		return err
	}
	return client.Gone(to.Close())
}

// together shows the trees of the results as one: that of the only platform, or
// with a directory for each.
func together(ctx context.Context, results []Made, split bool) (fsutil.FS, func(), error) {
	var opened []io.Closer
	end := func() {
		for _, c := range opened {
			c.Close()
		}
	}
	var dirs []fsutil.Dir
	for _, m := range results {
		tree, c, err := shown(ctx, m)
		if err != nil {
			end()
			return nil, nil, err
		}
		if c != nil {
			opened = append(opened, c)
		}
		if len(results) == 1 {
			return tree, end, nil
		}
		if !split {
			end()
			return nil, nil, errors.New("the results of several platforms need directories of their own: leave out platform-split=false")
		}
		dirs = append(dirs, fsutil.Dir{FS: tree, Stat: &fstypes.Stat{Mode: uint32(fs.ModeDir | 0o755), Path: directoryOf(m.Platform)}})
	}
	tree, err := fsutil.SubDirFS(dirs)
	return tree, end, err
}

func directoryOf(p ocispec.Platform) string {
	name := p.OS + "_" + p.Architecture
	if p.Variant != "" {
		name += "_" + p.Variant
	}
	return strings.ReplaceAll(name, "/", "_")
}

// shown is the tree of one result, to be read below a descriptor.
func shown(ctx context.Context, m Made) (fsutil.FS, io.Closer, error) {
	if m.Result == nil {
		empty, err := fsutil.SubDirFS(nil)
		return empty, nil, err
	}
	tree, err := m.Result.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer tree.Close()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", tree.Root().Fd()))
	if err != nil {
		return nil, nil, err
	}
	return fsutil.NewRootFS(fsutil.NewRoot(root)), root, nil
}
