package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/tarehq/tare/fault"
)

// errChanged says that an object is not the one that was read.
var errChanged = errors.New("somebody else changed it")

// errGone says that there is no such object.
var errGone = errors.New("there is no such object")

const (
	// soon bounds requests of little data, their repetitions included.
	soon = 2 * time.Minute
	// smallObject bounds the objects that are read into memory: a manifest, or the
	// state of an upload of 10,000 parts.
	smallObject = 16 << 20
)

type object struct {
	data    []byte
	etag    string
	updated time.Time
}

// get reads a small object, errGone if there is none.
func (s *Storage) get(ctx context.Context, key string) (object, error) {
	o, _, err := s.getNew(ctx, key, "", smallObject)
	return o, err
}

// errLarge says that an object has more bytes than are to be read.
var errLarge = errors.New("the object is larger")

// getNew reads a small object unless it has the ETag. It is errLarge if it has
// more than most bytes, none of which has been read then.
func (s *Storage) getNew(ctx context.Context, key, etag string, most int64) (o object, same bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	var options minio.GetObjectOptions
	if etag != "" {
		_ = options.SetMatchETagExcept(etag)
	}
	body, info, _, err := s.core.GetObject(ctx, s.config.Bucket, key, options)
	if etag != "" && minio.ToErrorResponse(err).StatusCode == http.StatusNotModified {
		return object{}, true, nil
	}
	if err != nil {
		return object{}, false, s.fault(ctx, err)
	}
	defer body.Close()
	if info.Size > most && most < smallObject {
		return object{}, false, errLarge
	}
	if info.Size > smallObject {
		return object{}, false, fault.New(fault.Internal, "the object %s has %d bytes, which a registry did not write", key, info.Size)
	}
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(body, data); err != nil {
		return object{}, false, s.fault(ctx, err)
	}
	return object{data, info.ETag, info.LastModified}, false, nil
}

// put writes a small object, whatever is there.
func (s *Storage) put(ctx context.Context, key string, data []byte) (etag string, err error) {
	return s.putIf(ctx, key, data, minio.PutObjectOptions{})
}

// swap writes a small object in place of the one with the ETag, or where there
// is none if that is "". It is errChanged if there is something else.
func (s *Storage) swap(ctx context.Context, key, etag string, data []byte) (string, error) {
	var options minio.PutObjectOptions
	if etag == "" {
		options.SetMatchETagExcept("*")
	} else {
		options.SetMatchETag(etag)
	}
	now, err := s.putIf(ctx, key, data, options)
	if errors.Is(err, errGone) { // there is none to be replaced
		return "", errChanged
	}
	if !errors.Is(err, errChanged) {
		return now, err
	}
	// A request whose answer was lost has been repeated, and the first of them
	// may have been the one that changed it.
	if o, err := s.get(ctx, key); err == nil && bytes.Equal(o.data, data) && o.etag != etag {
		return o.etag, nil
	} else if err != nil && !errors.Is(err, errGone) {
		return "", err
	}
	return "", errChanged
}

func (s *Storage) putIf(ctx context.Context, key string, data []byte, options minio.PutObjectOptions) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	options.DisableContentSha256 = true // in chunks that are signed one by one; the whole is
	sum := sha256.Sum256(data)
	for n := 0; ; n++ {
		info, err := s.core.PutObject(ctx, s.config.Bucket, key, bytes.NewReader(data), int64(len(data)), "", hex.EncodeToString(sum[:]), options)
		// A server that keeps keys as paths may delete a directory under the hands of
		// this request, with its last file. No key of ours is a directory.
		if n < 10 && minio.ToErrorResponse(err).Code == "ExistingObjectIsDirectory" {
			continue
		}
		return info.ETag, s.fault(ctx, err)
	}
}

// remove deletes objects whose names are never used again. That they are gone
// already is no error.
func (s *Storage) remove(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.removeOne(ctx, key); err != nil && !errors.Is(err, errGone) {
			return err
		}
	}
	return nil
}

func (s *Storage) removeOne(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return s.fault(ctx, s.core.RemoveObject(ctx, s.config.Bucket, key, minio.RemoveObjectOptions{}))
}

// list goes through the objects whose keys have the prefix, in the order of
// their bytes, from the first after the key on; about page of them are asked for
// at once. An error is the last.
func (s *Storage) list(ctx context.Context, prefix, after string, page int) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		owner := false
		listed, cancel := context.WithCancel(ctx)
		defer cancel()
		for o := range s.core.ListObjectsIter(listed, s.config.Bucket, minio.ListObjectsOptions{
			Prefix: prefix, Recursive: true, StartAfter: after, MaxKeys: page, FetchOwner: &owner,
		}) {
			if o.Err != nil {
				yield(minio.ObjectInfo{}, s.fault(ctx, o.Err))
				return
			}
			if o.Key <= after || o.Key[len(o.Key)-1] == '/' { // a server's own directories
				continue
			}
			if !yield(o, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil { // the listing just ends then
			yield(minio.ObjectInfo{}, s.fault(ctx, err))
		}
	}
}

// fault is the error for whoever runs the registry.
func (s *Storage) fault(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	answer := minio.ToErrorResponse(err)
	switch answer.Code {
	case minio.NoSuchKey:
		return errGone
	case minio.PreconditionFailed, "ConditionalRequestConflict":
		return errChanged
	case minio.NoSuchBucket:
		return fault.New(fault.Unavailable, "there is no bucket %s at %s: make it, or let the registry do so: %w", s.config.Bucket, s.config.Endpoint, err)
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return fault.New(fault.Unavailable, "%s refuses the registry's credentials: check the keys and that they may read, write, list and delete: %w", s.where(), err)
	case "RequestTimeTooSkewed":
		return fault.New(fault.Unavailable, "%s and this machine disagree about the time: set the clocks: %w", s.where(), err)
	case minio.NoSuchUpload:
		return errNoUpload
	case "QuotaExceeded", "XMinioStorageFull", "NoSpaceLeftOnDevice":
		return fault.New(fault.Unavailable, "%s is full: make room, or collect with a shorter grace period: %w", s.where(), err)
	}
	return fault.New(fault.Unavailable, "%s does not answer as it should: check that it is up and reachable: %w", s.where(), err)
}

// errNoUpload says that the server knows no such multipart upload.
var errNoUpload = errors.New("there is no such multipart upload")

func missingBucket(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.Code == minio.NoSuchBucket
}
