package output

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
)

// files brings the result's files to the client, as they are or as a tar.
func (o *Writer) files(ctx context.Context, w Wanted, results []Made) (err error) {
	name := "exporting to client directory"
	if w.kind == "tar" {
		name = "exporting to client tarball"
	}
	vertex, end := progress.Task(o.Tells, name)
	defer func() { end(err) }()
	tree, closeTree, err := o.together(ctx, w, results)
	if err != nil {
		return err
	}
	defer closeTree()
	if w.kind == "local" {
		return client.Gone(filesync.CopyToCaller(ctx, tree, w.id, o.Caller, build.Moving(o.Tells, vertex, "copying files")))
	}
	defer progress.Part(o.Tells, vertex, "sending tarball")()
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
func (o *Writer) together(ctx context.Context, w Wanted, results []Made) (fsutil.FS, func(), error) {
	var opened []io.Closer
	end := func() {
		for _, c := range opened {
			c.Close()
		}
	}
	var dirs []fsutil.Dir
	var all []fsutil.FS
	for _, m := range results {
		tree, c, err := shown(ctx, m)
		if c != nil {
			opened = append(opened, c)
		}
		if err == nil && !w.epoch.IsZero() {
			tree, err = fsutil.NewFilterFS(tree, &fsutil.FilterOpt{Map: func(_ string, st *fstypes.Stat) fsutil.MapResult {
				st.ModTime = w.epoch.UnixNano()
				return fsutil.MapResultKeep
			}})
		}
		if err == nil {
			tree, err = withStatements(ctx, w, m, tree, len(results) > 1 && !w.split)
		}
		if err != nil {
			end()
			return nil, nil, err
		}
		all = append(all, tree)
		dirs = append(dirs, fsutil.Dir{FS: tree, Stat: &fstypes.Stat{Mode: uint32(fs.ModeDir | 0o755), Path: directoryOf(m.Platform)}})
	}
	if len(all) == 1 {
		return all[0], end, nil
	}
	if !w.split {
		one, err := merged(ctx, all)
		return one, end, err
	}
	tree, err := fsutil.SubDirFS(dirs)
	return tree, end, err
}

// merged shows the trees in one place, unless they have files of the same name.
func merged(ctx context.Context, all []fsutil.FS) (fsutil.FS, error) {
	seen := map[string]bool{}
	var one fsutil.FS = staticfs.NewFS()
	for _, tree := range all {
		err := tree.Walk(ctx, "", func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && seen[name] {
				return fault.New(fault.Conflict, "cannot overwrite %s from another platform: leave out platform-split=false", name)
			}
			seen[name] = seen[name] || err == nil && !e.IsDir()
			return err
		})
		if err != nil {
			return nil, err
		}
		one = staticfs.NewMergeFS(one, tree)
	}
	return one, nil
}

// withStatements shows the attestations beside the files that they are about.
func withStatements(ctx context.Context, w Wanted, m Made, tree fsutil.FS, platform bool) (fsutil.FS, error) {
	if len(chosen(m.Attestations, false)) == 0 {
		return tree, nil
	}
	var self []subject
	err := tree.Walk(ctx, "", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		d, err := digest.FromReader(f)
		self = append(self, subject{name, map[string]string{d.Algorithm().String(): d.Encoded()}})
		return err
	})
	if err != nil {
		return nil, err
	}
	in := ""
	if platform {
		in = directoryOf(m.Platform)
	}
	list, err := statementFiles(m.Attestations, w.prefix, in, self)
	if err != nil {
		return nil, err
	}
	said, at := staticfs.NewFS(), time.Now()
	if !w.epoch.IsZero() {
		at = w.epoch
	}
	for _, f := range list {
		said.Add(f.name, &fstypes.Stat{Mode: 0o600, Path: f.name, ModTime: at.UnixNano()}, f.text)
	}
	return staticfs.NewMergeFS(tree, said), nil
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
