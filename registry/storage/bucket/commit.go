package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
)

// Commit makes the upload a blob, or drops it for a copy that is there already.
func (u *upload) Commit(ctx context.Context, d digest.Digest) error {
	if u.ended {
		return fault.New(fault.NotFound, "the upload %s has ended", u.id)
	}
	same := d.Algorithm() == u.v.Algorithm
	if sum := digest.NewDigest(u.v.Algorithm, u.hash); same && sum != d {
		return u.refuse(ctx, sum, d)
	}
	unlock, err := u.s.pushing.Lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	if same {
		if done, err := u.join(ctx, d); done || err != nil {
			return err
		}
	}
	object, sure, err := u.finish(ctx)
	if err != nil {
		return err
	}
	if !same || !sure {
		sum, err := u.read(ctx, object, d.Algorithm())
		if err != nil {
			return err
		}
		if sum != d {
			return u.refuse(ctx, sum, d)
		}
		if done, err := u.join(ctx, d); done || err != nil {
			return err
		}
	}
	return u.live(ctx, d, object)
}

func (u *upload) refuse(ctx context.Context, sum, d digest.Digest) error {
	u.ended = true
	return errors.Join(fault.New(fault.Invalid, "the bytes have the digest %s and not %s: upload them again", sum, d), u.drop(ctx))
}

// join refers to a copy that is there already, and drops the own one.
func (u *upload) join(ctx context.Context, d digest.Digest) (done bool, err error) {
	now := time.Now()
	p, err := u.s.lookUp(ctx, u.v.Repository, d)
	if errors.Is(err, errGone) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	u.s.remember(u.s.blobKey(u.v.Repository, d), p, now)
	u.ended = true
	return true, u.drop(ctx)
}

// finish gives the name of the object that has all the bytes. It is not sure of
// them when the parts were put together before by somebody who told nobody.
func (u *upload) finish(ctx context.Context) (object string, sure bool, err error) {
	if u.v.Multipart == "" {
		if u.v.Tail != "" {
			return u.v.Tail, true, nil
		}
		return bytesObject, true, u.store(ctx, bytesObject) // a blob of no bytes
	}
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	bucket, key := u.s.config.Bucket, u.s.dataKey(u.id, bytesObject)
	parts := make([]minio.CompletePart, 0, len(u.parts)+1)
	for i, etag := range u.parts {
		parts = append(parts, minio.CompletePart{PartNumber: i + 1, ETag: etag})
	}
	if u.v.Tail != "" {
		var last minio.CompletePart
		if last, err = u.s.core.CopyObjectPart(ctx, bucket, u.s.dataKey(u.id, u.v.Tail), bucket, key, u.v.Multipart, len(parts)+1, 0, -1, nil); err == nil {
			parts = append(parts, last)
		}
	}
	if err == nil {
		_, err = u.s.core.CompleteMultipartUpload(ctx, bucket, key, u.v.Multipart, parts, minio.PutObjectOptions{})
	}
	err = u.s.fault(ctx, err)
	if errors.Is(err, errNoUpload) {
		return bytesObject, false, nil
	}
	return bytesObject, true, err
}

// read reads the object to know its digest.
func (u *upload) read(ctx context.Context, object string, a digest.Algorithm) (digest.Digest, error) {
	body, _, _, err := u.s.core.GetObject(ctx, u.s.config.Bucket, u.s.dataKey(u.id, object), minio.GetObjectOptions{})
	if err = u.s.fault(ctx, err); errors.Is(err, errGone) {
		return "", u.stolen()
	} else if err != nil {
		return "", err
	}
	defer body.Close()
	h := a.Hash()
	n, err := io.Copy(h, body)
	if err != nil {
		return "", u.s.fault(ctx, err)
	}
	if n != u.size {
		return "", u.stolen()
	}
	return digest.NewDigest(a, h), nil
}

// live has the copy live and the repository refer to it.
func (u *upload) live(ctx context.Context, d digest.Digest, object string) error {
	repo := u.v.Repository
	if err := u.turn(ctx, record{State: live, Digest: d, Object: object, Size: u.size}); err != nil {
		return err
	}
	u.ended = true
	now := time.Now()
	p := place{copy: u.id, object: object, size: u.size}
	work, both := errgroup.WithContext(ctx)
	work.Go(func() error { _, err := u.s.put(both, u.s.hintKey(d, u.id), nil); return err })
	work.Go(func() error { return u.s.refer(both, repo, d, p, "", rand.Text()) })
	err := work.Wait()
	if errors.Is(err, errGone) {
		return fault.New(fault.Unavailable, "the blob %s was collected as soon as it came: upload it again, and collect with a longer grace period", d)
	} else if err != nil {
		return err
	}
	u.s.remember(u.s.blobKey(repo, d), p, now)
	if object == bytesObject {
		_, _ = u.s.sweep(ctx, u.id, bytesObject) // or by a collection
	}
	return nil
}
