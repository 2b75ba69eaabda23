package upstream

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

// named is what manifests say of a blob.
type named struct {
	size  int64
	lacks []digest.Digest // the manifests that name it and were put without it
}

// Manifest reads a manifest: here, or at upstream.
func (s *Storage) Manifest(ctx context.Context, repo string, d digest.Digest) (*storage.Manifest, error) {
	m, err := s.Storage.Manifest(ctx, repo, d)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return nil, err
	}
	p, path, cached := s.route(repo)
	if !cached {
		return m, err
	}
	if err == nil {
		p.counts.look(aManifest, hit)
		s.used(p, repo, m)
		return m, nil
	}
	p.counts.look(aManifest, asked)
	err = s.once(ctx, "manifest "+repo+"@"+string(d), 0, func(ctx context.Context) error {
		m, err := p.fetch(ctx, path, d)
		if err != nil {
			return err
		}
		return s.put(ctx, repo, m)
	})
	if err != nil {
		return nil, err
	}
	return s.Storage.Manifest(ctx, repo, d)
}

// used notes that a manifest was asked for. It is put again when that was not
// noted for a while, or when it may have come to lack less than it did.
func (s *Storage) used(p *peer, repo string, m *storage.Manifest) {
	key := repo + "@" + string(m.Descriptor.Digest)
	now, exact := time.Now(), s.pace.touch
	if p.Unused > 0 {
		exact = min(exact, p.Unused/4)
	}
	if at, ok := s.noted.get(key); ok && now.Sub(at) < exact {
		return
	}
	s.noted.put(key, now)
	all, err := manifest.Read(m.Descriptor.MediaType, m.Descriptor.Digest.Algorithm(), m.Data)
	if err != nil {
		return // it was put by somebody else than this package
	}
	lacks := without(all.Blobs, m.Blobs)
	s.note(repo, all, lacks)
	if len(lacks) > 0 || p.Unused > 0 && now.Sub(m.Updated) >= exact {
		s.background("keep "+key, func(ctx context.Context) error { return s.put(ctx, repo, all) })
	}
}

// whole reads a manifest that is here, with all the blobs that it names.
func (s *Storage) whole(ctx context.Context, repo string, d digest.Digest) (storage.Manifest, error) {
	m, err := s.Storage.Manifest(ctx, repo, d)
	if err != nil {
		return storage.Manifest{}, err
	}
	return manifest.Read(m.Descriptor.MediaType, d.Algorithm(), m.Data)
}

// put stores a manifest with those of its blobs that are here.
func (s *Storage) put(ctx context.Context, repo string, m storage.Manifest, tags ...storage.NewTag) error {
	key := repo + "@" + string(m.Descriptor.Digest)
	unlock, err := s.putting.Lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	all, lacks := m.Blobs, []ocispec.Descriptor(nil)
	for range len(all) + 1 { // what is missing may become more beside a collection
		err = s.Storage.PutManifest(ctx, repo, m, tags...)
		missing := (*storage.MissingError)(nil)
		if !errors.As(err, &missing) {
			break
		}
		m.Blobs = slices.DeleteFunc(slices.Clone(m.Blobs), func(b ocispec.Descriptor) bool {
			return slices.Contains(missing.Digests, b.Digest)
		})
	}
	if err != nil {
		return err
	}
	lacks = without(all, m.Blobs)
	m.Blobs = all
	s.note(repo, m, lacks)
	s.noted.put(key, time.Now())
	return nil
}

// note remembers what a manifest says of its blobs.
func (s *Storage) note(repo string, m storage.Manifest, lacks []ocispec.Descriptor) {
	missing := map[digest.Digest]bool{}
	for _, b := range lacks {
		missing[b.Digest] = true
	}
	d := m.Descriptor.Digest
	for _, b := range m.Blobs {
		s.named.change(repo+"@"+string(b.Digest), func(n named) named {
			n.size = b.Size
			n.lacks = slices.DeleteFunc(slices.Clone(n.lacks), func(other digest.Digest) bool { return other == d })
			if missing[b.Digest] && len(n.lacks) < maxLacking {
				n.lacks = append(n.lacks, d)
			}
			return n
		})
	}
}

// maxLacking bounds how many manifests are put again at once.
const maxLacking = 64

// arrived has the manifests keep a blob that they were put without.
func (s *Storage) arrived(ctx context.Context, repo string, d digest.Digest) error {
	n, _ := s.named.get(repo + "@" + string(d))
	var failed error
	for _, by := range n.lacks {
		m, err := s.whole(ctx, repo, by)
		if err == nil {
			err = s.put(ctx, repo, m)
		}
		if errors.Is(err, fault.NotFound) {
			s.named.change(repo+"@"+string(d), func(n named) named {
				n.lacks = slices.DeleteFunc(slices.Clone(n.lacks), func(other digest.Digest) bool { return other == by })
				return n
			})
			continue
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// without gives those of a list whose digests the other one lacks.
func without(list, other []ocispec.Descriptor) (out []ocispec.Descriptor) {
	has := make(map[digest.Digest]bool, len(other))
	for _, d := range other {
		has[d.Digest] = true
	}
	for _, d := range list {
		if !has[d.Digest] {
			out = append(out, d)
		}
	}
	return out
}
