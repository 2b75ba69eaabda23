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
// an opaque marker, and all directories that lead to a change but the root, which
// is there. It tells how many entries there are; none make an archive without
// any. The same changes give the
// same bytes, by whatever means the tree is stored. A new or changed file whose
// own name would be taken for a whiteout is refused with fault.Invalid, and so are
// sparse files with more holes than Extract takes.
func (d Diff) WriteLayer(ctx context.Context, w io.Writer, o WriteOptions) (entries int, err error) {
	p := newPacker(ctx, w, o)
	p.layer, p.holes = true, maxHoles
	l := layerWriter{p: p}
	err = d.compare(ctx, func(v difference) error {
		if v.implied || v.path == "" && !v.itself {
			return nil
		}
		entries++
		return l.difference(v)
	}, l.leave)
	if err != nil {
		return entries, err
	}
	return entries, p.tar.close()
}

// layerWriter writes changes, of which it has new files of one directory looked at
// ahead.
type layerWriter struct {
	p     *packer
	ahead lookahead
	next  []item
}

// difference writes one change, or has it wait.
func (l *layerWriter) difference(v difference) error {
	dir, base := path.Split(v.path)
	if !v.regular || v.kind != Added || !l.p.Still || strings.HasPrefix(base, whiteoutPrefix) {
		if err := l.flush(); err != nil {
			return err
		}
		return l.p.difference(v)
	}
	if len(l.ahead.dir) == 0 || l.ahead.name != dir || l.ahead.dir[0] != v.at {
		if err := l.flush(); err != nil {
			return err
		}
		l.ahead = lookahead{p: l.p, name: dir, dir: stack{v.at}}
	}
	l.next = append(l.next, item{name: v.base, kind: unix.DT_REG})
	if len(l.next) < aheadItems {
		return nil
	}
	l.begin()
	if len(l.ahead.runs) == aheadRuns {
		return l.ahead.write()
	}
	return nil
}

func (l *layerWriter) begin() {
	if len(l.next) > 0 {
		l.ahead.begin(l.next)
		l.next = l.next[:0]
	}
}

// flush writes all that waits.
func (l *layerWriter) flush() error {
	l.begin()
	return l.ahead.drain()
}

// leave is flush, and waits for all who look.
func (l *layerWriter) leave(err error) error {
	if err == nil {
		err = l.flush()
	}
	l.ahead.close()
	l.ahead, l.next = lookahead{}, l.next[:0]
	return err
}

// difference writes one change.
func (p *packer) difference(v difference) error {
	base := path.Base(v.path)
	if strings.HasPrefix(base, whiteoutPrefix) && v.kind != Deleted {
		return fault.New(fault.Invalid, "the file %q has a name that a layer takes for the deletion of another file: rename or remove it", "/"+shorten(v.path))
	}
	if v.dir == nil {
		there := false
		if v.kind != Deleted {
			var err error
			if there, err = p.file(v.path, v.at, v.base); err != nil {
				return err
			}
		}
		if there || v.kind == Added {
			return nil
		}
		// Nothing that a layer can hold has the name any more: it may be a socket's
		// now, or have gone since it was compared.
		return p.marker(path.Join(path.Dir(v.path), whiteoutPrefix+base))
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
