package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

const (
	// aManifest is the size that an object of a manifest has at least: a promise of
	// one is smaller, and what was deleted is empty. A listing tells them apart by it.
	aManifest = 64
	// lightManifest is the size up to which each request reads one for itself.
	lightManifest = 256 << 10
	// width bounds the requests that one call makes at the same time.
	width = 16
	// attempts bounds how often PutManifest begins again because somebody deleted
	// or collected under its hands.
	attempts = 20
)

// header is what stands before the bytes of a manifest.
type header struct {
	Attempt    string               `json:"attempt"` // of PutManifest
	Expiring   bool                 `json:"expiring,omitempty"`
	Updated    time.Time            `json:"updated,omitzero"` // if the object was written later, to keep it
	Descriptor ocispec.Descriptor   `json:"descriptor"`
	Blobs      []ocispec.Descriptor `json:"blobs,omitempty"`
	Manifests  []ocispec.Descriptor `json:"manifests,omitempty"`
	Subject    digest.Digest        `json:"subject,omitempty"`
}

// storedManifest is the object under the name of a manifest.
type storedManifest struct {
	etag     string // "" if there is none
	promise  bool
	expiring bool
	kept     time.Time         // when the object was written
	manifest *storage.Manifest // nil of a promise, and of what was deleted
}

func promise() []byte { return []byte("promise " + rand.Text()) }

// manifest reads the object. Known bytes are not sent again.
func (s *Storage) manifest(ctx context.Context, repo string, d digest.Digest) (*storedManifest, error) {
	key := s.manifestKey(repo, d)
	known, _ := s.manifests.get(key)
	etag := ""
	if known != nil {
		etag = known.etag
	}
	o, same, err := s.getNew(ctx, key, etag, lightManifest)
	if errors.Is(err, errLarge) { // is in memory once, for all who want it now
		unlock, e := s.reading.Lock(ctx, key)
		if e != nil {
			return nil, e
		}
		defer unlock()
		if known, _ = s.manifests.get(key); known != nil {
			etag = known.etag
		}
		o, same, err = s.getNew(ctx, key, etag, smallObject)
	}
	switch {
	case same:
		return known, nil
	case errors.Is(err, errGone):
		s.manifests.remove(key)
		return &storedManifest{}, nil
	case err != nil:
		return nil, err
	}
	m := &storedManifest{etag: o.etag, promise: len(o.data) > 0 && len(o.data) < aManifest}
	if len(o.data) < aManifest {
		return m, nil
	}
	head, data, _ := bytes.Cut(o.data, []byte("\n"))
	var h header
	if err := json.Unmarshal(head, &h); err != nil || h.Descriptor.Digest != d {
		return nil, fault.New(fault.Internal, "the manifest %s of %s is damaged in %s: push it again", d, repo, s.where())
	}
	if h.Updated.IsZero() {
		h.Updated = o.updated
	}
	m.expiring, m.kept = h.Expiring, o.updated
	m.manifest = &storage.Manifest{Descriptor: h.Descriptor, Data: data, Blobs: h.Blobs, Manifests: h.Manifests, Subject: h.Subject, Updated: h.Updated}
	s.manifests.put(key, m, 2*len(o.data))
	return m, nil
}

// Manifest reads a manifest.
func (s *Storage) Manifest(ctx context.Context, repo string, d digest.Digest) (*storage.Manifest, error) {
	m, err := s.manifest(ctx, repo, d)
	if err == nil && m.manifest == nil {
		err = noManifest(repo, d)
	}
	if err != nil {
		return nil, err
	}
	found := *m.manifest
	return &found, nil
}

func noManifest(repo string, d digest.Digest) error {
	return fault.New(fault.NotFound, "the repository %s has no manifest %s", repo, d)
}

// PutManifest goes through the steps that the package comment gives reasons for,
// from the start when it was disturbed.
func (s *Storage) PutManifest(ctx context.Context, repo string, m storage.Manifest, tags ...storage.NewTag) error {
	tags = slices.Clone(tags)
	slices.SortStableFunc(tags, func(a, b storage.NewTag) int { // the immutable ones first
		if a.Immutable == b.Immutable {
			return 0
		} else if a.Immutable {
			return -1
		}
		return 1
	})
	for range attempts {
		for _, t := range tags {
			if !t.Immutable {
				break
			}
			if _, err := s.mayTag(ctx, repo, t, m.Descriptor); err != nil {
				return err
			}
		}
		made, err := s.ensure(ctx, repo, m)
		if err == nil {
			err = s.renewAll(ctx, repo, m)
		}
		if err == nil {
			err = s.point(ctx, repo, m.Descriptor, tags, made)
		}
		if !errors.Is(err, errChanged) {
			return err
		}
	}
	return fault.New(fault.Unavailable, "the manifest %s of %s was deleted or collected again and again while it was put: try later", m.Descriptor.Digest, repo)
}

// ensure has the manifest there with all its references, and tells whether it
// was not before. It is errChanged when disturbed.
func (s *Storage) ensure(ctx context.Context, repo string, m storage.Manifest) (made bool, err error) {
	d := m.Descriptor.Digest
	there, err := s.manifest(ctx, repo, d)
	if err != nil {
		return false, err
	}
	if there.manifest != nil {
		return false, s.putAgain(ctx, repo, there, m)
	}
	places, err := s.locate(ctx, repo, m.Blobs)
	if err != nil {
		return false, err
	}
	key, etag := s.manifestKey(repo, d), there.etag
	// A promise is as good by whomever it was given.
	if !there.promise {
		if etag, err = s.swap(ctx, key, etag, promise()); err != nil {
			return false, err
		}
	}
	attempt := rand.Text()
	if err := s.referAll(ctx, repo, places, d, attempt); err != nil {
		return false, err
	}
	if m.Subject != "" {
		if _, err := s.put(ctx, s.referrerKey(repo, m.Subject, d, attempt), nil); err != nil {
			return false, err
		}
	}
	_, err = s.write(ctx, key, etag, header{Attempt: attempt}, m)
	return err == nil, err
}

// referAll writes the references of a manifest to the blobs.
func (s *Storage) referAll(ctx context.Context, repo string, places map[digest.Digest]place, d digest.Digest, attempt string) error {
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	for blob, p := range places {
		work.Go(func() error {
			err := s.refer(all, repo, blob, p, d, attempt)
			if errors.Is(err, errGone) {
				s.places.remove(s.blobKey(repo, blob))
				err = errChanged
			}
			return err
		})
	}
	return work.Wait()
}

// putAgain has a manifest that is there keep what it is put with besides, and be
// put now. What it keeps already has its references.
func (s *Storage) putAgain(ctx context.Context, repo string, there *storedManifest, m storage.Manifest) error {
	kept := map[digest.Digest]bool{}
	for _, b := range there.manifest.Blobs {
		kept[b.Digest] = true
	}
	var more []ocispec.Descriptor
	for _, b := range m.Blobs {
		if !kept[b.Digest] {
			more = append(more, b)
		}
	}
	if len(more) == 0 {
		return s.renewManifest(ctx, repo, there)
	}
	places, err := s.locate(ctx, repo, more)
	if err != nil {
		return err
	}
	attempt, d := rand.Text(), m.Descriptor.Digest
	if err := s.referAll(ctx, repo, places, d, attempt); err != nil {
		return err
	}
	m.Blobs = slices.Concat(there.manifest.Blobs, more)
	_, err = s.write(ctx, s.manifestKey(repo, d), there.etag, header{Attempt: attempt}, m)
	return err
}

// write swaps the object under the key for the manifest. The header says what
// the manifest does not.
func (s *Storage) write(ctx context.Context, key, etag string, h header, m storage.Manifest) (string, error) {
	h.Descriptor, h.Blobs, h.Manifests, h.Subject = m.Descriptor, m.Blobs, m.Manifests, m.Subject
	head, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	return s.swap(ctx, key, etag, slices.Concat(head, []byte("\n"), m.Data))
}

// renewed is how long what was put need not be written to have been put again.
// The bucket tells times to the second.
const renewed = 2 * time.Second

// renewManifest has the manifest, which is there, be put now. It is errChanged
// when disturbed.
func (s *Storage) renewManifest(ctx context.Context, repo string, there *storedManifest) error {
	if !there.expiring && s.line.now().Sub(there.manifest.Updated) < renewed {
		return nil
	}
	m := *there.manifest
	_, err := s.write(ctx, s.manifestKey(repo, m.Descriptor.Digest), there.etag, header{Attempt: rand.Text()}, m)
	return err
}

// renewAll has the manifests that an index names be put now, those that are
// there. They are listed, as an index can name far more than there are.
func (s *Storage) renewAll(ctx context.Context, repo string, index storage.Manifest) error {
	if len(index.Manifests) == 0 {
		return nil
	}
	named := map[digest.Digest]bool{}
	for _, m := range index.Manifests {
		named[m.Digest] = true
	}
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	for o, err := range s.list(all, s.below("repos", repo+"!", "manifests"), "", 1000) {
		if err != nil {
			return errors.Join(err, work.Wait())
		}
		d := undashed(path.Base(o.Key))
		if !named[d] || o.Size < aManifest || s.line.now().Sub(o.LastModified) < renewed {
			continue
		}
		work.Go(func() error {
			for {
				m, err := s.manifest(all, repo, d)
				if err != nil || m.manifest == nil {
					return err
				}
				if err := s.renewManifest(all, repo, m); !errors.Is(err, errChanged) {
					return err
				}
			}
		})
	}
	return work.Wait()
}

// locate finds the blobs that a manifest names, a MissingError if some are not there.
func (s *Storage) locate(ctx context.Context, repo string, blobs []ocispec.Descriptor) (map[digest.Digest]place, error) {
	places := map[digest.Digest]place{}
	for _, b := range blobs {
		places[b.Digest] = place{}
	}
	var missing []digest.Digest
	var mu sync.Mutex
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	for _, d := range slices.Collect(maps.Keys(places)) {
		work.Go(func() error {
			p, err := s.find(all, repo, d)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, fault.NotFound) {
				missing = append(missing, d)
				return nil
			}
			places[d] = p
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, &storage.MissingError{Digests: missing}
	}
	return places, nil
}

// DeleteManifest takes the tags that point to the manifest, has its blobs due
// from now on, takes the manifest, and tags that came meanwhile. Where tags may be
// fixed, it marks the manifest first, as ExpireManifest does.
func (s *Storage) DeleteManifest(ctx context.Context, repo string, d digest.Digest, fixed func(tag string) bool) error {
	if fixed != nil {
		if err := s.anyFixed(ctx, repo, d, fixed); err != nil {
			return err // without a mark, and without a tag that is gone, in nearly all cases
		}
	}
	for {
		there, err := s.manifest(ctx, repo, d)
		if err != nil {
			return err
		}
		if there.manifest == nil {
			return noManifest(repo, d)
		}
		etag := there.etag
		if fixed != nil {
			if etag, err = s.mark(ctx, repo, there); errors.Is(err, errChanged) {
				continue
			} else if err != nil {
				return err
			}
			if err := s.anyFixed(ctx, repo, d, fixed); err != nil {
				return err
			}
		}
		if err := s.untag(ctx, repo, d, fixed); err != nil {
			return err
		}
		waste, err := s.loosen(ctx, repo, there.manifest)
		if err != nil {
			return err
		}
		if _, err := s.swap(ctx, s.manifestKey(repo, d), etag, nil); errors.Is(err, errChanged) {
			continue
		} else if err != nil {
			return err
		}
		s.manifests.remove(s.manifestKey(repo, d))
		if err := s.untag(ctx, repo, d, nil); err != nil {
			return err
		}
		return s.remove(ctx, waste...)
	}
}

// loosen writes a loose reference to each of the manifest's blobs, and lists
// what is waste once the manifest is gone.
func (s *Storage) loosen(ctx context.Context, repo string, m *storage.Manifest) (waste []string, err error) {
	var mu sync.Mutex
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	seen := map[digest.Digest]bool{}
	for _, b := range m.Blobs {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		work.Go(func() error {
			list, err := s.refs(all, repo, b.Digest)
			if err != nil {
				return err
			}
			loosened := false
			for _, r := range list {
				if r.manifest != m.Descriptor.Digest {
					continue
				}
				if !loosened {
					err := s.refer(all, repo, b.Digest, r.place, "", rand.Text())
					if loosened = err == nil; err != nil && !errors.Is(err, errGone) {
						return err
					}
				}
				mu.Lock()
				waste = append(waste, r.key)
				mu.Unlock()
			}
			return nil
		})
	}
	err = work.Wait()
	if err != nil || m.Subject == "" {
		return waste, err
	}
	for o, err := range s.list(ctx, s.referrerKey(repo, m.Subject, m.Descriptor.Digest, ""), "", 100) {
		if err != nil {
			return nil, err
		}
		waste = append(waste, o.Key)
	}
	return waste, nil
}
