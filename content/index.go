package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/reference"
)

// The annotations that a name takes on its descriptor in index.json. All
// others belong to whoever made the image and are kept.
const (
	AnnotationName    = "io.containerd.image.name" // the canonical name
	AnnotationRefName = ocispec.AnnotationRefName  // its tag
	annotationUpdated = "io.tare.image.updated"    // RFC 3339, when the name was set
	// AnnotationAttached is the digest of the image that an artifact is attached to,
	// AnnotationFrom the repository that said so.
	AnnotationAttached = "io.tare.image.attached"
	AnnotationFrom     = "io.tare.image.from"
	annotationParent   = "io.tare.image.parent" // Entry.Parent
)

// Entry is one name and what it points to. An image that lost its last name
// and was kept has an entry with the name "".
type Entry struct {
	Name    string // canonical, such as docker.io/library/busybox:latest
	Target  ocispec.Descriptor
	Updated time.Time
	// Parent is, of an image that was committed, the image that its container was
	// made from, which need not be here any longer. All entries of a target have it.
	Parent digest.Digest
}

// Attachment is an artifact that was fetched with an image because it says it is
// about it, such as a signature. It stays as long as the image, or until the
// repository has it no more.
type Attachment struct {
	To     digest.Digest // what an entry points to
	From   string        // the repository
	Target ocispec.Descriptor
}

// Index is an immutable list of entries, and of what is attached to them.
type Index struct {
	entries  []Entry
	byName   map[string]int
	byTarget map[digest.Digest][]int
	attached []Attachment
}

// newIndex leaves out what is attached to nothing.
func newIndex(entries []Entry, attached ...Attachment) *Index {
	ix := &Index{entries: entries, byName: make(map[string]int, len(entries)), byTarget: make(map[digest.Digest][]int, len(entries))}
	for i, e := range entries {
		if e.Name != "" {
			ix.byName[e.Name] = i
		}
		ix.byTarget[e.Target.Digest] = append(ix.byTarget[e.Target.Digest], i)
	}
	for _, a := range attached {
		if len(ix.byTarget[a.To]) > 0 {
			ix.attached = append(ix.attached, a)
		}
	}
	return ix
}

// Attached lists what is attached to the image, each once.
func (ix *Index) Attached(to digest.Digest) (list []ocispec.Descriptor) {
	for _, a := range ix.attached {
		if a.To == to && !slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == a.Target.Digest }) {
			list = append(list, a.Target)
		}
	}
	return list
}

// Attach returns an index with these attached to the image, as a repository has
// them. When that is the whole of what it has, all else goes that was from
// there.
func (ix *Index) Attach(to digest.Digest, from string, whole bool, list ...ocispec.Descriptor) *Index {
	attached := slices.DeleteFunc(slices.Clone(ix.attached), func(a Attachment) bool {
		again := slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == a.Target.Digest })
		return a.To == to && (a.From == from || a.From == "") && (whole || again)
	})
	for _, d := range list {
		attached = append(attached, Attachment{to, from, d})
	}
	return newIndex(ix.entries, attached...)
}

// Entries returns all entries in the order of their making. It must not be
// changed.
func (ix *Index) Entries() []Entry { return ix.entries }

// Lookup finds a canonical name.
func (ix *Index) Lookup(name string) (Entry, bool) {
	if i, ok := ix.byName[name]; ok {
		return ix.entries[i], true
	}
	return Entry{}, false
}

// Of returns the entries that point to the digest.
func (ix *Index) Of(d digest.Digest) []Entry {
	var entries []Entry
	for _, i := range ix.byTarget[d] {
		entries = append(entries, ix.entries[i])
	}
	return entries
}

// HasChildren tells whether another image was committed of a container of this one.
func (ix *Index) HasChildren(d digest.Digest) bool {
	return slices.ContainsFunc(ix.entries, func(e Entry) bool { return e.Parent == d && e.Target.Digest != d })
}

// With returns an index to which the names of the entries were added, in
// their order: each name points to the target that it was given last. An image
// that loses its last name by that stays as an entry without a name. An entry
// without a name is added only when the target has no other, and goes when its
// target gets a name.
func (ix *Index) With(added ...Entry) *Index {
	all := slices.Concat(ix.entries, added)
	last := make(map[string]int, len(all))
	for i, e := range all {
		last[e.Name] = i
	}
	hasName := make(map[digest.Digest]bool, len(all))
	parents := map[digest.Digest]digest.Digest{}
	for i, e := range all {
		if e.Parent != "" {
			parents[e.Target.Digest] = e.Parent
		}
		if e.Name != "" && last[e.Name] != i {
			all[i].Name = "" // the name points elsewhere now, or comes later
		} else if e.Name != "" {
			hasName[e.Target.Digest] = true
		}
	}
	kept := make(map[digest.Digest]bool)
	entries := all[:0]
	for _, e := range all {
		if e.Name == "" {
			if d := e.Target.Digest; hasName[d] || kept[d] {
				continue
			}
			kept[e.Target.Digest] = true
		}
		e.Parent = parents[e.Target.Digest]
		entries = append(entries, e)
	}
	return newIndex(entries, ix.attached...)
}

// Without returns an index from which the name is gone; "" stands for the
// entries of the target that have none. With keep, an image that had no other
// entry stays as one without a name.
func (ix *Index) Without(name string, target digest.Digest, keep bool) *Index {
	var entries []Entry
	for _, old := range ix.entries {
		if old.Name == name && old.Target.Digest == target {
			if !keep || len(ix.byTarget[target]) > 1 {
				continue
			}
			old.Name = ""
		}
		entries = append(entries, old)
	}
	return newIndex(entries, ix.attached...)
}

// Index returns the names as they are now, without any I/O.
func (s *Store) Index() *Index { return s.index.Load() }

// Update replaces the index by what change makes of it, and returns when the
// new one survives power loss. Blobs that the new index names must have been
// synced before. Updates follow each other.
func (s *Store) Update(change func(*Index) (*Index, error)) error {
	s.names.Lock()
	if s.pending.now > s.pending.durable {
		err := s.updateSoonLocked(change)
		s.names.Unlock()
		return errors.Join(err, s.Harden())
	}
	defer s.names.Unlock()
	old := s.index.Load()
	next, err := change(old)
	if err != nil || next == old {
		return err
	}
	data, err := encodeIndex(next)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteSync(s.path(ocispec.ImageIndexFile), data, 0o644); err != nil {
		return fmt.Errorf("cannot write the index of the image store: %w", err)
	}
	s.index.Store(next)
	return nil
}

func encodeIndex(ix *Index) ([]byte, error) {
	doc := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: make([]ocispec.Descriptor, 0, len(ix.entries))}
	for _, e := range ix.entries {
		d := Annotate(e)
		if e.Parent != "" {
			d.Annotations[annotationParent] = e.Parent.String()
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	for _, a := range ix.attached {
		d := Bare(a.Target)
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[AnnotationAttached] = a.To.String()
		if a.From != "" {
			d.Annotations[AnnotationFrom] = a.From
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	return json.Marshal(doc)
}

// Annotate returns the entry's descriptor as an index.json holds it.
func Annotate(e Entry) ocispec.Descriptor {
	d := e.Target
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	if !e.Updated.IsZero() {
		d.Annotations[annotationUpdated] = e.Updated.UTC().Format(time.RFC3339Nano)
	}
	if e.Name != "" {
		d.Annotations[AnnotationName] = e.Name
		if r, err := reference.ParseBare(e.Name); err == nil && r.Tag != "" {
			d.Annotations[AnnotationRefName] = r.Tag
		}
	}
	return d
}

// Bare returns the descriptor without the annotations that an index.json of ours
// has.
func Bare(d ocispec.Descriptor) ocispec.Descriptor {
	d.Annotations = maps.Clone(d.Annotations)
	for _, key := range []string{AnnotationName, AnnotationRefName, annotationUpdated, AnnotationAttached, AnnotationFrom, annotationParent} {
		delete(d.Annotations, key)
	}
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
	return d
}

// Updated is when the name of an entry of index.json was set, zero if it is not said.
func Updated(d ocispec.Descriptor) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, d.Annotations[annotationUpdated])
	return t
}

func readIndex(path string) (*Index, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIndex(nil), nil
	}
	if err != nil {
		return nil, err
	}
	ix, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return ix, nil
}

func parseIndex(data []byte) (*Index, error) {
	var doc ocispec.Index
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	var entries []Entry
	var attached []Attachment
	for _, d := range doc.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%q is not a digest", d.Digest)
		}
		if to := digest.Digest(d.Annotations[AnnotationAttached]); to != "" {
			attached = append(attached, Attachment{to, d.Annotations[AnnotationFrom], Bare(d)})
			continue
		}
		entries = append(entries, Entry{Name: d.Annotations[AnnotationName], Target: Bare(d), Updated: Updated(d),
			Parent: digest.Digest(d.Annotations[annotationParent])})
	}
	return newIndex(entries, attached...), nil
}
