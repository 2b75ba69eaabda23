package dir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

func noManifest(repo string, d digest.Digest) error {
	return fault.New(fault.NotFound, "repository %s has no manifest %s", repo, d)
}

// PutManifest stores a manifest and points the tags to it.
func (s *Storage) PutManifest(ctx context.Context, repo string, m storage.Manifest, tags ...storage.NewTag) error {
	d := m.Descriptor.Digest
	unlock, err := s.digests.Lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	rec := newRecord(m)
	// What cannot be stored is to cost no write.
	if err := s.db.View(func(tx *bbolt.Tx) error { return admits(tx, repo, rec, tags, s.isLost) }); err != nil {
		return err
	}
	if err := s.placeManifest(d, m.Data); err != nil {
		return explain(err)
	}
	now := time.Now()
	return s.updateNames(func(tx *bbolt.Tx) error {
		if err := admits(tx, repo, rec, tags, func(digest.Digest) bool { return false }); err != nil {
			return err
		}
		r, err := makeRepo(tx, repo)
		if err != nil {
			return err
		}
		if err := errors.Join(r.addManifest(rec), r.renew(rec)); err != nil {
			return broken{err}
		}
		s.found.touch(d)
		for _, child := range rec.Manifests {
			s.found.touch(child.Digest)
		}
		for _, t := range tags {
			if err := r.setTag(t.Name, tagged{digest: d, updated: now}); err != nil {
				return err
			}
		}
		return nil
	})
}

// admits tells what forbids to put the manifest. Files can be lost only while no
// registry runs.
func admits(tx *bbolt.Tx, repo string, rec record, tags []storage.NewTag, lost func(digest.Digest) bool) error {
	r, err := lookRepo(tx, repo)
	if err != nil {
		if names := rec.names(); len(names) > 0 {
			return &storage.MissingError{Digests: names}
		}
		return nil
	}
	for _, t := range tags {
		if to, ok := r.tag(t.Name); ok && t.Immutable && to.digest != rec.Descriptor.Digest {
			return fault.New(fault.Conflict, "tag %s of %s is immutable and points to %s: push with another tag", t.Name, repo, to.digest)
		}
	}
	var missing []digest.Digest
	for _, b := range rec.names() {
		if _, ok := r.blob(b); !ok || lost(b) {
			missing = append(missing, b)
		}
	}
	if len(missing) > 0 {
		return &storage.MissingError{Digests: missing}
	}
	return nil
}

// placeManifest writes the bytes, which have the digest, unless they are there:
// those that are damaged are replaced. The digest is locked.
func (s *Storage) placeManifest(d digest.Digest, data []byte) (err error) {
	if s.stored(d, int64(len(data))) {
		if there, err := os.ReadFile(s.blobPath(d)); err == nil && bytes.Equal(there, data) {
			return nil
		}
	}
	id, release := s.busy.fresh()
	defer release()
	tmp := s.uploadPath(id, tmpSuffix)
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = writeOut(f)
	}
	if err == nil {
		err = s.place(tmp, d, f)
	}
	return errors.Join(err, f.Close())
}

// stored tells whether the bytes are at their place, as a record says. The
// digest is locked.
func (s *Storage) stored(d digest.Digest, size int64) bool {
	known := false
	_ = s.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketBytes).Get([]byte(d)) != nil
		return nil
	})
	if !known {
		return false
	}
	st, err := os.Stat(s.blobPath(d))
	return err == nil && st.Size() == size
}

// Manifest reads a manifest by its digest.
func (s *Storage) Manifest(ctx context.Context, repo string, d digest.Digest) (*storage.Manifest, error) {
	key := manifestKey{repo, d}
	if m := s.cache.fresh(key); m != nil {
		return m, nil
	}
	m, _, _, err := s.lookManifest(key)
	if err != nil || m != nil {
		return m, err
	}
	unlock, err := s.reading.Lock(ctx, key) // whoever comes meanwhile finds it read
	if err != nil {
		return nil, err
	}
	defer unlock()
	m, raw, changes, err := s.lookManifest(key)
	if err != nil || m != nil {
		return m, err
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noManifest(repo, d) // deleted meanwhile, or lost
	}
	if err != nil {
		return nil, explain(err)
	}
	if d.Algorithm().FromBytes(data) != d {
		return nil, fault.New(fault.Internal, "manifest %s is damaged on the disk of the registry: push it again", d)
	}
	m = rec.manifest(data)
	s.cache.put(key, raw, m, changes)
	return m, nil
}

// lookManifest gives the manifest, or its record if it has to be read, and after
// how many changes that was there.
func (s *Storage) lookManifest(key manifestKey) (m *storage.Manifest, raw []byte, changes uint64, err error) {
	changes = s.cache.changes.Load()
	err = s.db.View(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, key.repo)
		if err != nil {
			return noManifest(key.repo, key.digest)
		}
		v := r.manifests().Get([]byte(key.digest))
		if v == nil {
			return noManifest(key.repo, key.digest)
		}
		if m = s.cache.get(key, v, changes); m == nil {
			raw = slices.Clone(v)
		}
		return nil
	})
	return m, raw, changes, explain(err)
}

// Tag reads what the tag points to.
func (s *Storage) Tag(_ context.Context, repo, tag string) (storage.Tag, error) {
	if t, ok := s.cache.tag(tagKey{repo, tag}); ok {
		return t, nil
	}
	changes := s.cache.changes.Load()
	t := storage.Tag{Name: tag}
	err := s.db.View(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil {
			return noTag(repo, tag)
		}
		to, ok := r.tag(tag)
		if !ok {
			return noTag(repo, tag)
		}
		v := r.manifests().Get([]byte(to.digest))
		if v == nil {
			return noTag(repo, tag)
		}
		t.Updated = to.updated
		if m := s.cache.get(manifestKey{repo, to.digest}, v, changes); m != nil {
			t.Target = m.Descriptor
			return nil
		}
		var rec record
		err = json.Unmarshal(v, &rec)
		t.Target = rec.Descriptor
		return err
	})
	if err == nil {
		s.cache.putTag(tagKey{repo, tag}, t, changes)
	}
	return t, explain(err)
}

func noTag(repo, tag string) error {
	return fault.New(fault.NotFound, "repository %s has no tag %s", repo, tag)
}

// KeepManifest has a manifest that somebody was told of stay for the grace period.
func (s *Storage) KeepManifest(_ context.Context, repo string, d digest.Digest) error {
	for {
		sentences := s.found.sentences()
		if s.cache.fresh(manifestKey{repo, d}) == nil {
			err := s.db.View(func(tx *bbolt.Tx) error {
				if r, err := lookRepo(tx, repo); err != nil || r.manifests().Get([]byte(d)) == nil {
					return noManifest(repo, d)
				}
				return nil
			})
			if err != nil {
				return explain(err)
			}
		}
		if s.found.find(d, sentences) {
			return nil
		}
	}
}

// DeleteManifest removes the manifest and the tags that point to it.
func (s *Storage) DeleteManifest(_ context.Context, repo string, d digest.Digest, fixed func(tag string) bool) error {
	return s.updateNames(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil || r.manifests().Get([]byte(d)) == nil {
			return noManifest(repo, d)
		}
		if fixed != nil {
			for _, tag := range r.tagsOf(d) {
				if fixed(string(tag)) {
					return storage.Fixed(repo, string(tag))
				}
			}
		}
		return s.removeManifest(r, d)
	})
}

// ExpireManifest deletes a manifest that no tag and no client needs.
func (s *Storage) ExpireManifest(_ context.Context, repo string, d digest.Digest, updated time.Time, grace time.Duration) error {
	var condemned map[digest.Digest]bool
	defer func() { s.found.pardon(condemned) }()
	return s.updateNames(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil {
			return noManifest(repo, d)
		}
		rec, ok, err := r.manifest(d)
		switch {
		case err != nil:
			return err
		case !ok:
			return noManifest(repo, d)
		case !rec.Updated.Equal(updated) || len(r.tagsOf(d)) > 0:
			return fault.New(fault.Conflict, "manifest %s of %s has been put or tagged meanwhile: look at it again", d, repo)
		}
		if condemned = s.found.condemn([]digest.Digest{d}, grace); !condemned[d] {
			return fault.New(fault.Conflict, "manifest %s of %s was asked for within the grace period: look at it later", d, repo)
		}
		return s.removeManifest(r, d)
	})
}

// tagsOf lists the tags that point to the manifest.
func (r repository) tagsOf(d digest.Digest) (tags [][]byte) {
	for c, k, v := cursor(r.tags()); k != nil; k, v = c.Next() {
		if t, _ := readTag(v); t.digest == d {
			tags = append(tags, slices.Clone(k))
		}
	}
	return tags
}

// removeManifest removes it with its tags. What it alone kept is due from now on.
func (s *Storage) removeManifest(r repository, d digest.Digest) error {
	for _, t := range r.tagsOf(d) {
		if err := breaks(r.tags().Delete(t)); err != nil {
			return err
		}
	}
	free, err := r.dropManifest(d)
	if err != nil {
		return err
	}
	for _, b := range append(free, d) {
		s.found.touch(b)
	}
	return r.prune()
}

func cursor(b *bbolt.Bucket) (c *bbolt.Cursor, k, v []byte) {
	c = b.Cursor()
	k, v = c.First()
	return c, k, v
}

// DeleteTag removes a tag.
func (s *Storage) DeleteTag(_ context.Context, repo, tag string) error {
	return s.updateNames(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil || r.tags().Get([]byte(tag)) == nil {
			return noTag(repo, tag)
		}
		return breaks(r.tags().Delete([]byte(tag)))
	})
}

// ExpireTag deletes the tag as long as it is what was read.
func (s *Storage) ExpireTag(_ context.Context, repo string, read storage.Tag) error {
	return s.updateNames(func(tx *bbolt.Tx) error {
		missing := fault.New(fault.NotFound, "repository %s has no tag %s", repo, read.Name)
		r, err := lookRepo(tx, repo)
		if err != nil {
			return missing
		}
		now, ok := r.tag(read.Name)
		switch {
		case !ok:
			return missing
		case now.digest != read.Target.Digest || !now.updated.Equal(read.Updated):
			return fault.New(fault.Conflict, "tag %s of %s has been set meanwhile: look at it again", read.Name, repo)
		}
		return breaks(r.tags().Delete([]byte(read.Name)))
	})
}

// Referrers lists the repository's manifests whose subject is d.
func (s *Storage) Referrers(_ context.Context, repo string, d, last digest.Digest, n int) (list []ocispec.Descriptor, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil {
			return nil
		}
		prefix := string(referrerKey(d, ""))
		c := r.referrers().Cursor()
		for k, _ := c.Seek(referrerKey(d, last)); len(k) > len(prefix) && string(k[:len(prefix)]) == prefix && len(list) != n; k, _ = c.Next() {
			one := digest.Digest(k[len(prefix):])
			if one == last {
				continue
			}
			rec, ok, err := r.manifest(one)
			if err != nil {
				return err
			}
			if ok {
				list = append(list, rec.Descriptor)
			}
		}
		return nil
	})
	return list, explain(err)
}
