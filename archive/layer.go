package archive

import (
	"context"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// WriteLayer writes the changes as the uncompressed tar of a layer on top of
// those below (OCI image specification, layer.md): a deleted name as the
// whiteout .wh.<name>, a directory of whose former content nothing is left with
// an opaque marker, and all directories that lead to a change. It tells how many
// entries there are; none make an archive without any. The same changes give the
// same bytes, by whatever means the tree is stored. A new or changed file whose
// own name would be taken for a whiteout is refused with fault.Invalid.
func (d Diff) WriteLayer(ctx context.Context, w io.Writer, o WriteOptions) (entries int, err error) {
	p := newPacker(ctx, w, o)
	err = d.compare(ctx, func(v difference) error {
		if v.implied {
			return nil
		}
		entries++
		return p.difference(v)
	})
	if err != nil {
		return entries, err
	}
	return entries, p.tar.close()
}

// difference writes one change.
func (p *packer) difference(v difference) error {
	base := path.Base(v.path)
	if strings.HasPrefix(base, whiteoutPrefix) && v.kind != Deleted {
		return fault.New(fault.Invalid, "the file %q has a name that a layer takes for the deletion of another file: rename or remove it", "/"+shorten(v.path))
	}
	switch {
	case v.kind == Deleted, v.socket && v.kind == Modified:
		return p.marker(path.Join(path.Dir(v.path), whiteoutPrefix+base))
	case v.dir == nil:
		return p.file(v.path, v.at, v.base)
	}
	name := ""
	if v.path != "" {
		name = v.path + "/"
	}
	if err := p.directory(name, v.dir); err != nil {
		return err
	}
	if v.emptied {
		return p.marker(name + whiteoutOpaque)
	}
	return nil
}

// marker writes the empty file that stands for a deletion.
func (p *packer) marker(name string) error {
	return p.begin(header{name: name, kind: kindFile}, &unix.Stat_t{Mode: unix.S_IFREG})
}
