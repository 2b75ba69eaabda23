package bucket

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
)

// state is what becomes of a copy; the package comment has the transitions.
type state string

const (
	uploading state = "uploading"
	live      state = "live"
	condemned state = "condemned"
	dead      state = "dead"
)

// record is the state object of a copy.
type record struct {
	State  state         `json:"state"`
	Random string        `json:"random"` // another one in each version
	Digest digest.Digest `json:"digest,omitempty"`
	Object string        `json:"object,omitempty"` // that has the bytes of a blob
	Size   int64         `json:"size"`             // of what was taken

	// Of an upload:
	Repository string           `json:"repository,omitempty"`
	Algorithm  digest.Algorithm `json:"algorithm,omitempty"`
	Hash       []byte           `json:"hash,omitempty"` // its state after Size bytes
	Multipart  string           `json:"multipart,omitempty"`
	Parts      []string         `json:"parts,omitempty"` // ETags; each has partSize bytes
	Tail       string           `json:"tail,omitempty"`  // object with the bytes after the parts
}

// version is a record as it was read or written.
type version struct {
	record
	etag    string
	updated time.Time
}

// look reads the state of a copy, errGone if there is none.
func (s *Storage) look(ctx context.Context, copy string) (version, error) {
	o, err := s.get(ctx, s.stateKey(copy))
	if err != nil {
		return version{}, err
	}
	v := version{etag: o.etag, updated: o.updated}
	if err := json.Unmarshal(o.data, &v.record); err != nil {
		return version{}, fault.New(fault.Internal, "the state of the copy %s in %s is damaged: %w", copy, s.where(), err)
	}
	return v, nil
}

// turn swaps the state of the copy from the version to the record; errChanged if
// it is another one meanwhile.
func (s *Storage) turn(ctx context.Context, copy string, from version, to record) (version, error) {
	to.Random = rand.Text()
	data, err := json.Marshal(to)
	if err != nil {
		return version{}, err
	}
	etag, err := s.swap(ctx, s.stateKey(copy), from.etag, data)
	return version{record: to, etag: etag}, err
}

func (r record) in(s state) record { r.State = s; return r }

// refer has the repository refer to a copy, for a manifest or loosely. It is
// errGone if that is not there any more. Only when it has returned nil may the
// reference be relied on.
func (s *Storage) refer(ctx context.Context, repo string, d digest.Digest, p place, manifest digest.Digest, random string) error {
	key := s.refKey(repo, d, p, manifest, random)
	if _, err := s.put(ctx, key, nil); err != nil {
		return err
	}
	err := s.reprieve(ctx, p.copy)
	if errors.Is(err, errGone) {
		return errors.Join(err, s.remove(ctx, key))
	}
	return err
}

// reprieve has the copy live if it lives or is condemned.
func (s *Storage) reprieve(ctx context.Context, copy string) error {
	for {
		v, err := s.look(ctx, copy)
		switch {
		case err != nil:
			return err
		case v.State == live:
			return nil
		case v.State != condemned:
			return errGone
		}
		if _, err := s.turn(ctx, copy, v, v.in(live)); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// renew has the grace of what nothing refers to begin now, for those who have
// found the copy.
func (s *Storage) renew(ctx context.Context, copy string) error {
	v, err := s.look(ctx, copy)
	if err == nil && (v.State == live || v.State == condemned) {
		_, err = s.turn(ctx, copy, v, v.in(live))
	}
	if errors.Is(err, errGone) || errors.Is(err, errChanged) {
		return nil
	}
	return err
}

// purge deletes a copy that is dead, its state last. It tells how many bytes went.
func (s *Storage) purge(ctx context.Context, copy string, r record) (freed int64, err error) {
	if r.Multipart != "" {
		err := s.core.AbortMultipartUpload(ctx, s.config.Bucket, s.dataKey(copy, bytesObject), r.Multipart)
		if err = s.fault(ctx, err); err != nil && !errors.Is(err, errNoUpload) && !errors.Is(err, errGone) {
			return 0, err
		}
	}
	if r.Digest != "" {
		if err := s.remove(ctx, s.hintKey(r.Digest, copy)); err != nil {
			return 0, err
		}
	}
	freed, err = s.sweep(ctx, copy, "")
	if err != nil {
		return freed, err
	}
	return freed, s.remove(ctx, s.stateKey(copy))
}

// sweep deletes the objects of a copy but its state and the one to be kept.
func (s *Storage) sweep(ctx context.Context, copy, keep string) (freed int64, err error) {
	var keys []string
	for o, err := range s.list(ctx, s.below("data", copy), "", 100) {
		if err != nil {
			return 0, err
		}
		if o.Key != s.stateKey(copy) && o.Key != s.dataKey(copy, keep) {
			keys, freed = append(keys, o.Key), freed+o.Size
		}
	}
	return freed, s.remove(ctx, keys...)
}

// refs lists how the repository refers to the blob.
func (s *Storage) refs(ctx context.Context, repo string, d digest.Digest) (list []ref, err error) {
	for o, err := range s.list(ctx, s.blobKey(repo, d)+"/", "", 1000) {
		if err != nil {
			return nil, err
		}
		if r, ok := parseRef(o); ok {
			list = append(list, r)
		}
	}
	return list, nil
}

// find tells where the repository has the blob, fault.NotFound if it has not.
// The place is good for the grace.
func (s *Storage) find(ctx context.Context, repo string, d digest.Digest) (place, error) {
	key := s.blobKey(repo, d)
	now := time.Now()
	if p, ok := s.places.get(key); ok && now.Before(p.until) {
		return p, nil
	}
	list, err := s.refs(ctx, repo, d)
	if err != nil {
		return place{}, err
	}
	var best ref
	for _, r := range list {
		if r.manifest != "" && best.manifest == "" || r.manifest == best.manifest && r.updated.After(best.updated) {
			best = r
		}
	}
	if best.key == "" {
		return place{}, fault.New(fault.NotFound, "the repository %s has no blob %s", repo, d)
	}
	if best.manifest == "" && s.line.now().Sub(best.updated) > s.grace/4 {
		if err := s.refer(ctx, repo, d, best.place, "", rand.Text()); errors.Is(err, errGone) {
			return place{}, fault.New(fault.NotFound, "the repository %s has no blob %s any more", repo, d)
		} else if err != nil {
			return place{}, err
		}
	}
	return s.remember(key, best.place, now), nil
}

// remember keeps the place in mind for a while from the time on.
func (s *Storage) remember(key string, p place, from time.Time) place {
	p.until = from.Add(min(30*time.Second, s.grace/8))
	s.places.put(key, p, len(p.copy)+len(p.object))
	return p
}

// lookUp finds a copy of the blob by its digest and has the repository refer to
// it. It is errGone if there is none.
func (s *Storage) lookUp(ctx context.Context, repo string, d digest.Digest) (place, error) {
	for o, err := range s.list(ctx, s.below("digests", dashed(d)), "", 10) {
		if err != nil {
			return place{}, err
		}
		copy := baseOf(o)
		v, err := s.look(ctx, copy)
		if errors.Is(err, errGone) || err == nil && v.State != live && v.State != condemned {
			continue
		} else if err != nil {
			return place{}, err
		}
		p := place{copy: copy, object: v.Object, size: v.Size}
		if err := s.refer(ctx, repo, d, p, "", rand.Text()); !errors.Is(err, errGone) {
			return p, err
		}
	}
	return place{}, errGone
}

func baseOf(o minio.ObjectInfo) string {
	for i := len(o.Key) - 1; i >= 0; i-- {
		if o.Key[i] == '/' {
			return o.Key[i+1:]
		}
	}
	return o.Key
}
