package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// Blob opens a blob. Nothing is asked of its bytes before they are read.
func (s *Storage) Blob(ctx context.Context, repo string, d digest.Digest) (*storage.Blob, error) {
	p, err := s.find(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	key := s.dataKey(p.copy, p.object)
	return &storage.Blob{
		Content: &content{s: s, ctx: ctx, key: key, size: p.size, forget: func() { s.places.remove(s.blobKey(repo, d)) }},
		Size:    p.size,
		Location: func(ctx context.Context) (string, error) {
			u, err := s.core.PresignedGetObject(ctx, s.config.Bucket, key, 15*time.Minute, nil)
			if err != nil {
				return "", s.fault(ctx, err)
			}
			return u.String(), nil
		},
	}, nil
}

// Mount refers to the copy that the other repository has.
func (s *Storage) Mount(ctx context.Context, repo, from string, d digest.Digest) (int64, error) {
	p, err := s.find(ctx, from, d)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if err := s.refer(ctx, repo, d, p, "", rand.Text()); errors.Is(err, errGone) {
		s.places.remove(s.blobKey(from, d))
		return 0, fault.New(fault.NotFound, "the repository %s has no blob %s any more", from, d)
	} else if err != nil {
		return 0, err
	}
	s.remember(s.blobKey(repo, d), p, now)
	return p.size, nil
}

// DeleteBlob takes away the loose references. When a manifest refers to the blob
// in the same moment, one of the two is told so.
func (s *Storage) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	list, err := s.refs(ctx, repo, d)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fault.New(fault.NotFound, "the repository %s has no blob %s", repo, d)
	}
	if err := named(repo, d, list); err != nil {
		return err
	}
	for _, r := range list {
		if err := s.renew(ctx, r.copy); err != nil {
			return err
		}
		if err := s.remove(ctx, r.key); err != nil {
			return err
		}
	}
	s.places.remove(s.blobKey(repo, d))
	if list, err = s.refs(ctx, repo, d); err != nil {
		return err
	}
	return named(repo, d, list)
}

func named(repo string, d digest.Digest, list []ref) error {
	for _, r := range list {
		if r.manifest != "" {
			return fault.New(fault.Conflict, "the blob %s is in use by the manifest %s of %s: delete that first", d, r.manifest, repo)
		}
	}
	return nil
}

// content reads an object by one request per range that is read.
type content struct {
	s      *Storage
	ctx    context.Context //nolint:containedctx // of the request that reads
	key    string
	size   int64
	forget func()

	offset int64
	body   io.ReadCloser // from offset on; nil before it is asked for
}

func (c *content) Read(p []byte) (int, error) {
	if c.offset >= c.size {
		return 0, io.EOF
	}
	if err := c.ask(); err != nil {
		return 0, err
	}
	n, err := c.body.Read(p)
	c.offset += int64(n)
	switch {
	case errors.Is(err, io.EOF) && c.offset < c.size:
		err = io.ErrUnexpectedEOF
	case err != nil && !errors.Is(err, io.EOF):
		err = c.s.fault(c.ctx, err)
	}
	return n, err
}

// WriteTo hands the answer's body on, for writers that read by themselves.
func (c *content) WriteTo(w io.Writer) (int64, error) {
	if c.offset >= c.size {
		return 0, nil
	}
	if err := c.ask(); err != nil {
		return 0, err
	}
	n, err := io.Copy(w, c.body)
	c.offset += n
	if err == nil && c.offset < c.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *content) ask() error {
	if c.body != nil {
		return nil
	}
	var options minio.GetObjectOptions
	if c.offset > 0 {
		if err := options.SetRange(c.offset, 0); err != nil {
			return err
		}
	}
	body, _, _, err := c.s.core.GetObject(c.ctx, c.s.config.Bucket, c.key, options)
	err = c.s.fault(c.ctx, err)
	if errors.Is(err, errGone) {
		c.forget()
		return fault.New(fault.NotFound, "the blob was deleted a moment ago")
	}
	c.body = body
	return err
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.offset
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d: before the start", offset)
	}
	if offset != c.offset {
		if err := c.Close(); err != nil {
			return 0, err
		}
		c.offset = offset
	}
	return offset, nil
}

func (c *content) Close() error {
	if c.body == nil {
		return nil
	}
	body := c.body
	c.body = nil
	return body.Close()
}
