package web

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

const (
	pageOfRepositories = 60
	pageOfTags         = 20
	maxScan            = 10_000 // names that are looked at for one page
	maxChildren        = 6      // of an index, whose sizes a list adds up
)

type repositoriesPage struct {
	frame
	Names []string
	First bool
	Next  string // a link; "" if there is no more
}

// repositories lists those that the visitor may pull.
func (v *visit) repositories() (any, error) {
	query := v.URL.Query()
	last, q := query.Get("last"), strings.ToLower(strings.TrimSpace(query.Get("q")))
	if last != "" && !storage.ValidRepository(last) || len(q) > 255 {
		return nil, errNothing
	}
	p := &repositoriesPage{frame: v.frame("Repositories"), First: last == ""}
	p.Query = q
	more, scanned := true, 0
	for more && scanned < maxScan && len(p.Names) < pageOfRepositories {
		names, err := v.h.Storage.Repositories(v.Context(), last, 1000)
		if err != nil {
			return nil, err
		}
		more = len(names) == 1000
		for i, name := range names {
			scanned++
			last = name
			if !strings.Contains(name, q) || !v.sees(name) {
				continue
			}
			if p.Names = append(p.Names, name); len(p.Names) == pageOfRepositories {
				more = more || i+1 < len(names)
				break
			}
		}
	}
	if more {
		p.Next = "/?" + url.Values{"last": {last}, "q": {q}}.Encode()
	}
	if len(p.Names) == 0 && q == "" && p.First && p.Login {
		return nil, errLogin // there may be more to see
	}
	return p, nil
}

type repositoryPage struct {
	frame
	Repository string
	Tags       []tagRow
	First      bool
	Next       string
}

type tagRow struct {
	Name      string
	Digest    digest.Digest
	Kind      string
	Sizes     sizes
	Platforms []string
	More      int // platforms that are not listed
	Created   time.Time
	Pushed    time.Time
}

// repository lists its tags.
func (v *visit) repository(repo string) (any, error) {
	last := v.URL.Query().Get("last")
	if last != "" && !storage.ValidTag(last) {
		return nil, errNothing
	}
	names, err := v.h.Storage.Tags(v.Context(), repo, last, pageOfTags+1)
	if err != nil {
		return nil, err
	}
	p := &repositoryPage{frame: v.frame(repo), Repository: repo, First: last == ""}
	if len(names) > pageOfTags {
		names = names[:pageOfTags]
		p.Next = imagesPath + repo + "?" + url.Values{"last": {names[pageOfTags-1]}}.Encode()
	}
	for _, name := range names {
		row, err := v.tag(repo, name)
		if errors.Is(err, fault.NotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		p.Tags = append(p.Tags, row)
	}
	return p, nil
}

func (v *visit) tag(repo, name string) (tagRow, error) {
	row := tagRow{Name: name}
	tag, err := v.h.Storage.Tag(v.Context(), repo, name)
	if err != nil {
		return row, err
	}
	row.Digest, row.Pushed = tag.Target.Digest, tag.Updated
	m, err := v.h.Storage.Manifest(v.Context(), repo, row.Digest)
	if err != nil {
		return row, err
	}
	read, err := manifest.Read(m.Descriptor.MediaType, row.Digest.Algorithm(), m.Data)
	if err != nil {
		row.Kind = "unknown" // an older program took it
		return row, nil
	}
	if !manifest.IsList(m.Descriptor.MediaType) {
		row.Kind = "artifact"
		row.Sizes.add(&read)
		if config := v.config(repo, &read); config != nil {
			row.Kind, row.Created = "image", created(config)
			row.Platforms = append(row.Platforms, platform(&config.Platform))
		}
		return row, nil
	}
	row.Kind = "index"
	for _, child := range read.Manifests {
		if !runs(child.Platform) {
			continue
		}
		if len(row.Platforms) == maxChildren {
			row.More++
			continue
		}
		row.Platforms = append(row.Platforms, platform(child.Platform))
		m, err := v.child(repo, child.Digest)
		if err != nil {
			continue
		}
		row.Sizes.add(m)
		if row.Created.IsZero() {
			if config := v.config(repo, m); config != nil {
				row.Created = created(config)
			}
		}
	}
	return row, nil
}

// child reads a manifest that an index names; it need not be there.
func (v *visit) child(repo string, d digest.Digest) (*storage.Manifest, error) {
	m, err := v.h.Storage.Manifest(v.Context(), repo, d)
	if err != nil {
		return nil, err
	}
	read, err := manifest.Read(m.Descriptor.MediaType, d.Algorithm(), m.Data)
	return &read, err
}

// runs tells whether an entry of an index is an image for a platform, and not
// what builders put beside those.
func runs(p *ocispec.Platform) bool { return p != nil && p.OS != "" && p.OS != "unknown" }

// sizes are of the images of one name: for each platform another.
type sizes struct{ Least, Most int64 }

func (s *sizes) add(m *storage.Manifest) {
	size := total(m)
	if s.Least == 0 || size < s.Least {
		s.Least = size
	}
	s.Most = max(s.Most, size)
}

// total is what a client downloads.
func total(m *storage.Manifest) int64 {
	sum := m.Descriptor.Size
	for _, b := range m.Blobs {
		if sum += b.Size; sum < 0 {
			return 1<<63 - 1 // as their maker says
		}
	}
	return sum
}
