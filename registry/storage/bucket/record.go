package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
)

// Record is a small object in the bucket that all its registries change: a line
// with a random word, for no ETag to come twice, and the content.
type Record struct {
	s   *Storage
	key string
}

// Record gives the one of a name, which no other object has.
func (s *Storage) Record(name string) Record { return Record{s, s.key(name)} }

// Read gives the content, nil if nothing was written.
func (r Record) Read(ctx context.Context) ([]byte, error) {
	data, _, err := r.get(ctx)
	return data, err
}

func (r Record) get(ctx context.Context) (data []byte, etag string, err error) {
	o, err := r.s.get(ctx, r.key)
	if errors.Is(err, errGone) {
		return nil, "", nil
	}
	_, data, _ = bytes.Cut(o.data, []byte("\n"))
	return data, o.etag, err
}

// Change replaces the content by what the function makes of it, unless that
// fails. It is called again where another registry was faster.
func (r Record) Change(ctx context.Context, f func([]byte) ([]byte, error)) error {
	for {
		data, etag, err := r.get(ctx)
		if err == nil {
			data, err = f(data)
		}
		if err != nil {
			return err
		}
		data = slices.Concat([]byte(rand.Text()+"\n"), data)
		if _, err = r.s.swap(ctx, r.key, etag, data); !errors.Is(err, errChanged) {
			return err
		}
	}
}
