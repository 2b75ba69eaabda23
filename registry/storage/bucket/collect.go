package bucket

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/registry/storage"
)

// atOnce bounds the copies that a collection has in mind; if there are more that
// are old enough, it goes through the references once for each such number.
const atOnce = 1 << 17

// collection is one run of Collect.
type collection struct {
	s      *Storage
	all    bool      // without a grace, whatever the time
	before time.Time // what is not younger is old enough
	done   storage.Collected

	repo      string // whose manifests are known
	manifests map[digest.Digest]bool
}

// Collect removes what nothing refers to, by the steps of the package comment.
func (s *Storage) Collect(ctx context.Context, grace time.Duration) (storage.Collected, error) {
	if _, err := s.get(ctx, s.key("format")); err != nil { // asks for the time, too
		return storage.Collected{}, err
	}
	c := &collection{s: s, all: grace <= 0, before: s.line.now().Add(-s.wait(grace))}
	defer s.places.clear()
	for after, more := "", true; more; {
		var copies map[string]bool
		var err error
		if copies, after, err = c.candidates(ctx, after); err != nil {
			return c.done, err
		}
		more = len(copies) == atOnce
		if err := c.references(ctx, copies, true); err != nil {
			return c.done, err
		}
		if err := c.judge(ctx, copies); err != nil {
			return c.done, err
		}
	}
	return c.done, c.abort(ctx)
}

// wait is how long what nobody has asked for within the grace was not written.
// One second is what Last-Modified and Date leave out. What was found has been
// written again if that was not done for a quarter of the grace, and an eighth.
func (s *Storage) wait(grace time.Duration) time.Duration {
	return grace + min(grace, s.grace)/2 + time.Second
}

func (c *collection) old(t time.Time) bool { return c.all || !t.After(c.before) }

// found is what a listing has of one copy.
type found struct {
	copy    string
	objects []string // but the state
	state   time.Time
}

// candidates are copies whose state is old enough, from the key on, and whether
// they have more than one object.
func (c *collection) candidates(ctx context.Context, after string) (copies map[string]bool, next string, err error) {
	copies = map[string]bool{}
	var f found
	for o, err := range c.s.list(ctx, c.s.below("data"), after, 1000) {
		if err != nil {
			return nil, "", err
		}
		if now := path.Base(path.Dir(o.Key)); now != f.copy {
			if err := c.weigh(ctx, f, copies); err != nil {
				return nil, "", err
			}
			if len(copies) == atOnce {
				return copies, c.s.key("data", f.copy) + "0", nil // after all with "/"
			}
			f = found{copy: now}
		}
		if o.Key == c.s.stateKey(f.copy) {
			f.state = o.LastModified
		} else {
			f.objects = append(f.objects, o.Key)
		}
	}
	return copies, "", c.weigh(ctx, f, copies)
}

// weigh adds the copy to the candidates if it is one. Objects of a copy that has
// no state are waste, as that is written first and deleted last; the listing may
// have missed it.
func (c *collection) weigh(ctx context.Context, f found, copies map[string]bool) error {
	switch {
	case !f.state.IsZero() && c.old(f.state) && !c.s.held(f.copy):
		copies[f.copy] = len(f.objects) > 1
	case f.state.IsZero() && f.copy != "":
		if _, err := c.s.look(ctx, f.copy); !errors.Is(err, errGone) {
			return err
		}
		return c.s.remove(ctx, f.objects...)
	}
	return nil
}

// references takes away from the copies what something refers to, and on the
// first way what is waste in repositories.
func (c *collection) references(ctx context.Context, copies map[string]bool, clean bool) error {
	for o, err := range c.s.list(ctx, c.s.below("repos"), "", 1000) {
		if err != nil {
			return err
		}
		e, ok := c.s.parseEntry(o.Key)
		if !ok {
			continue
		}
		if e.section != "blobs" {
			if clean {
				if err := c.tidy(ctx, e, o); err != nil {
					return err
				}
			}
			continue
		}
		r, ok := parseRef(o)
		if !ok {
			continue
		}
		if clean {
			waste, err := c.waste(ctx, e.repo, r)
			if err != nil {
				return err
			}
			if waste {
				if err := c.s.remove(ctx, r.key); err != nil {
					return err
				}
				continue
			}
		}
		if many, ok := copies[r.copy]; ok && clean && many {
			if err := c.trim(ctx, r.copy); err != nil {
				return err
			}
		}
		delete(copies, r.copy)
	}
	return nil
}

// waste tells whether the reference keeps nothing: a loose one for long enough,
// or one of a manifest that is not there now, after the reference was listed.
func (c *collection) waste(ctx context.Context, repo string, r ref) (bool, error) {
	if r.manifest == "" {
		return c.old(r.updated), nil
	}
	return c.absent(ctx, repo, r.manifest)
}

// absent tells whether the repository has no object, not even a promise, of the
// manifest. The manifests of one repository are listed once to know those that it has.
func (c *collection) absent(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	if repo != c.repo {
		manifests := map[digest.Digest]bool{}
		for o, err := range c.s.list(ctx, c.s.below("repos", repo+"!", "manifests"), "", 1000) {
			if err != nil {
				return false, err
			}
			if o.Size > 0 {
				manifests[undashed(path.Base(o.Key))] = true
			}
		}
		c.repo, c.manifests = repo, manifests
	}
	if c.manifests[d] {
		return false, nil
	}
	m, err := c.s.manifest(ctx, repo, d)
	return err == nil && m.manifest == nil && !m.promise, err
}

// tidy removes other waste of a repository.
func (c *collection) tidy(ctx context.Context, e entry, o minio.ObjectInfo) error {
	if e.section == "referrers" {
		absent, err := c.absent(ctx, e.repo, referrerOf(o))
		if err == nil && absent {
			err = c.s.remove(ctx, o.Key)
		}
		return err
	}
	if !c.old(o.LastModified) {
		return nil
	}
	if e.section == "manifests" && o.Size > 0 && o.Size < aManifest {
		etag, err := c.s.swap(ctx, o.Key, o.ETag, nil) // breaks the promise
		if errors.Is(err, errChanged) {
			return nil
		} else if err != nil {
			return err
		}
		o.ETag, o.Size = etag, 0
	}
	if o.Size > 0 {
		return nil
	}
	can, err := c.s.canMatchDeletes(ctx)
	if err != nil || !can {
		return err
	}
	if err := c.s.removeOne(matching(ctx, o.ETag), o.Key); !errors.Is(err, errChanged) && !errors.Is(err, errGone) {
		return err
	}
	return nil
}

// canMatchDeletes asks the server, once, whether it has a conditional DELETE.
func (s *Storage) canMatchDeletes(ctx context.Context) (bool, error) {
	s.asked.Lock()
	defer s.asked.Unlock()
	if s.deletesMatch != nil {
		return *s.deletesMatch, nil
	}
	key := s.key("ready")
	if _, err := s.put(ctx, key, []byte("probe")); err != nil {
		return false, err
	}
	err := s.removeOne(matching(ctx, "00000000000000000000000000000000"), key)
	if err != nil && !errors.Is(err, errChanged) {
		return false, err
	}
	can := err != nil
	s.deletesMatch = &can
	return can, nil
}

// judge ends the copies that nothing refers to: condemns them, looks for
// references again, and has them dead.
func (c *collection) judge(ctx context.Context, copies map[string]bool) error {
	verdicts := map[string]version{}
	sentenced := map[string]bool{}
	for copy := range copies {
		v, err := c.s.look(ctx, copy)
		if errors.Is(err, errGone) || err == nil && (!c.old(v.updated) || c.s.held(copy)) {
			continue
		} else if err != nil {
			return err
		}
		to := condemned
		if v.State == uploading || v.State == dead {
			to = dead
		}
		if v, err = c.s.turn(ctx, copy, v, v.in(to)); errors.Is(err, errChanged) {
			continue
		} else if err != nil {
			return err
		}
		verdicts[copy] = v
		sentenced[copy] = false
	}
	if err := c.references(ctx, sentenced, false); err != nil {
		return err
	}
	for copy, v := range verdicts {
		if err := c.execute(ctx, copy, v, sentenced); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) execute(ctx context.Context, copy string, v version, sentenced map[string]bool) error {
	if v.State == condemned {
		to := live
		if _, alone := sentenced[copy]; alone {
			to = dead
		}
		next, err := c.s.turn(ctx, copy, v, v.in(to))
		if errors.Is(err, errChanged) || err == nil && to == live {
			return nil
		} else if err != nil {
			return err
		}
		v = next
		c.done.Blobs++
	} else if v.Repository != "" {
		c.done.Uploads++
	}
	freed, err := c.s.purge(ctx, copy, v.record)
	c.done.Bytes += freed
	return err
}

// trim deletes what is left of the upload of a blob.
func (c *collection) trim(ctx context.Context, copy string) error {
	v, err := c.s.look(ctx, copy)
	if errors.Is(err, errGone) {
		return nil
	} else if err != nil || v.Object == "" || v.State != live && v.State != condemned {
		return err
	}
	_, err = c.s.sweep(ctx, copy, v.Object)
	return err
}

// abort ends uploads in parts that no state knows.
func (c *collection) abort(ctx context.Context) error {
	bucket, prefix := c.s.config.Bucket, c.s.below("data")
	for key, id := "", ""; ; {
		list, err := c.s.core.ListMultipartUploads(ctx, bucket, prefix, key, id, "", 1000)
		if err != nil {
			return c.s.fault(ctx, err)
		}
		for _, u := range list.Uploads {
			copy := path.Base(path.Dir(u.Key))
			if !strings.HasPrefix(u.Key, prefix) || !c.old(u.Initiated) || c.s.held(copy) {
				continue
			}
			v, err := c.s.look(ctx, copy)
			if err != nil && !errors.Is(err, errGone) {
				return err
			}
			if err == nil && v.Multipart == u.UploadID {
				continue
			}
			err = c.s.fault(ctx, c.s.core.AbortMultipartUpload(ctx, bucket, u.Key, u.UploadID))
			if err != nil && !errors.Is(err, errNoUpload) {
				return err
			}
		}
		if !list.IsTruncated {
			return nil
		}
		key, id = list.NextKeyMarker, list.NextUploadIDMarker
	}
}
