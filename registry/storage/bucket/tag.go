package bucket

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"path"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// storedTag is the object under the name of a tag.
type storedTag struct {
	etag    string // "" if there is none
	data    []byte // none of a tag that was deleted
	target  ocispec.Descriptor
	updated time.Time
}

// pointer is what such an object holds.
type pointer struct {
	ocispec.Descriptor
	Random string `json:"random"` // another one each time it is set
}

func (t storedTag) set() bool { return len(t.data) > 0 }

// tag reads the object. Known bytes are not sent again.
func (s *Storage) tag(ctx context.Context, key string) (storedTag, error) {
	known, _ := s.tags.get(key)
	o, same, err := s.getNew(ctx, key, known.etag, smallObject)
	switch {
	case same:
		return known, nil
	case errors.Is(err, errGone):
		s.tags.remove(key)
		return storedTag{}, nil
	case err != nil:
		return storedTag{}, err
	}
	t := storedTag{etag: o.etag, data: o.data, updated: o.updated}
	if t.set() {
		if err := json.Unmarshal(o.data, &t.target); err != nil {
			return storedTag{}, fault.New(fault.Internal, "the tag %s is damaged in %s: set it again", key, s.where())
		}
	}
	s.tags.put(key, t, 3*len(o.data))
	return t, nil
}

// Tag reads what the tag points to.
func (s *Storage) Tag(ctx context.Context, repo, name string) (storage.Tag, error) {
	t, err := s.tag(ctx, s.tagKey(repo, name))
	if err == nil && !t.set() {
		err = noTag(repo, name)
	}
	return storage.Tag{Name: name, Target: t.target, Updated: t.updated}, err
}

func noTag(repo, name string) error {
	return fault.New(fault.NotFound, "the repository %s has no tag %s", repo, name)
}

// mayTag reads the tag, fault.Conflict if it may not point to the target.
func (s *Storage) mayTag(ctx context.Context, repo string, t storage.NewTag, target ocispec.Descriptor) (storedTag, error) {
	now, err := s.tag(ctx, s.tagKey(repo, t.Name))
	if err == nil && t.Immutable && now.set() && now.target.Digest != target.Digest {
		err = fault.New(fault.Conflict, "the tag %s of %s points to %s and must not change: use another tag", t.Name, repo, now.target.Digest)
	}
	return now, err
}

// moved is a tag that was set, and what was there before.
type moved struct {
	key, etag string
	before    storedTag
}

// point has the tags point to the manifest, which made says was put for them. It
// is errChanged if the manifest has been deleted meanwhile.
func (s *Storage) point(ctx context.Context, repo string, target ocispec.Descriptor, tags []storage.NewTag, made bool) error {
	var done []moved
	for _, t := range tags {
		m, err := s.move(ctx, repo, t, target)
		if err != nil {
			err = errors.Join(err, s.moveBack(ctx, repo, done))
			if made && errors.Is(err, fault.Conflict) {
				err = errors.Join(err, s.DeleteManifest(ctx, repo, target.Digest, nil))
			}
			return err
		}
		if m.key != "" {
			done = append(done, m)
		}
	}
	if len(tags) == 0 {
		return nil
	}
	there, err := s.manifest(ctx, repo, target.Digest)
	if err == nil && (there.manifest == nil || there.expiring) {
		if err = s.moveBack(ctx, repo, done); err == nil {
			err = errChanged
		}
	}
	return err
}

// move sets one tag. The key of what is returned is "" if it was set already.
func (s *Storage) move(ctx context.Context, repo string, t storage.NewTag, target ocispec.Descriptor) (moved, error) {
	key := s.tagKey(repo, t.Name)
	for {
		before, err := s.mayTag(ctx, repo, t, target)
		if err != nil || before.set() && before.target.Digest == target.Digest && s.line.now().Sub(before.updated) < renewed {
			return moved{}, err
		}
		data, err := json.Marshal(pointer{target, rand.Text()})
		if err != nil {
			return moved{}, err
		}
		etag, err := s.swap(ctx, key, before.etag, data)
		if errors.Is(err, errChanged) {
			continue
		}
		return moved{key, etag, before}, err
	}
}

// moveBack has tags point to where they did before, unless others moved them on.
func (s *Storage) moveBack(ctx context.Context, repo string, done []moved) error {
	for _, m := range done {
		etag, err := s.swap(ctx, m.key, m.etag, m.before.data)
		if errors.Is(err, errChanged) {
			continue
		} else if err != nil {
			return err
		}
		if !m.before.set() {
			continue
		}
		there, err := s.manifest(ctx, repo, m.before.target.Digest)
		if err == nil && there.manifest == nil { // it was deleted while the tag was elsewhere
			_, err = s.swap(ctx, m.key, etag, nil)
		}
		if err != nil && !errors.Is(err, errChanged) {
			return err
		}
	}
	return nil
}

// DeleteTag deletes the tag.
func (s *Storage) DeleteTag(ctx context.Context, repo, name string) error {
	for {
		t, err := s.tag(ctx, s.tagKey(repo, name))
		if err != nil {
			return err
		}
		if !t.set() {
			return noTag(repo, name)
		}
		if _, err := s.swap(ctx, s.tagKey(repo, name), t.etag, nil); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// ExpireTag deletes the tag as long as it is what was read.
func (s *Storage) ExpireTag(ctx context.Context, repo string, read storage.Tag) error {
	t, err := s.tag(ctx, s.tagKey(repo, read.Name))
	if err != nil {
		return err
	}
	if !t.set() {
		return noTag(repo, read.Name)
	}
	same := t.target.Digest == read.Target.Digest && t.updated.Equal(read.Updated)
	if same {
		_, err = s.swap(ctx, s.tagKey(repo, read.Name), t.etag, nil)
	}
	if !same || errors.Is(err, errChanged) {
		return fault.New(fault.Conflict, "the tag %s of %s has been set meanwhile: look at it again", read.Name, repo)
	}
	return err
}

// anyFixed tells, by an error, whether a tag that points to the manifest is fixed.
func (s *Storage) anyFixed(ctx context.Context, repo string, d digest.Digest, fixed func(tag string) bool) error {
	return s.tagsOf(ctx, repo, d, func(_ context.Context, key string, _ storedTag) error {
		if tag := path.Base(key); fixed(tag) {
			return storage.Fixed(repo, tag)
		}
		return nil
	})
}

// untag deletes the tags that point to the manifest, unless one is fixed.
func (s *Storage) untag(ctx context.Context, repo string, d digest.Digest, fixed func(tag string) bool) error {
	return s.tagsOf(ctx, repo, d, func(ctx context.Context, key string, t storedTag) error {
		if tag := path.Base(key); fixed != nil && fixed(tag) {
			return storage.Fixed(repo, tag)
		}
		for {
			_, err := s.swap(ctx, key, t.etag, nil)
			if !errors.Is(err, errChanged) {
				return err
			}
			if t, err = s.tag(ctx, key); err != nil || !t.set() || t.target.Digest != d {
				return err
			}
		}
	})
}

// tagged tells whether a tag points to the manifest.
func (s *Storage) tagged(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	var any atomic.Bool
	err := s.tagsOf(ctx, repo, d, func(context.Context, string, storedTag) error {
		any.Store(true)
		return nil
	})
	return any.Load(), err
}

// tagsOf visits the tags that point to the manifest, several at a time. Those that
// are remembered under the ETag that the listing tells need not be read.
func (s *Storage) tagsOf(ctx context.Context, repo string, d digest.Digest, visit func(ctx context.Context, key string, t storedTag) error) error {
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	for o, err := range s.list(all, s.below("repos", repo+"!", "tags"), "", 1000) {
		if err != nil {
			return errors.Join(err, work.Wait())
		}
		if o.Size == 0 {
			continue
		}
		if known, ok := s.tags.get(o.Key); ok && known.etag == o.ETag && known.target.Digest != d {
			continue
		}
		work.Go(func() error {
			t, err := s.tag(all, o.Key)
			if err != nil || !t.set() || t.target.Digest != d {
				return err
			}
			return visit(all, o.Key, t)
		})
	}
	return work.Wait()
}
