package history

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Content serves what is attached to records, and images, as containerd serves
// blobs. Nothing can be written.
type Content struct {
	contentapi.UnimplementedContentServer
	History *History
	// Blob opens one of the daemon's.
	Blob func(context.Context, digest.Digest) (io.ReadCloser, error)
}

// open opens a blob. Its size is -1 if it is not known yet.
func (c *Content) open(ctx context.Context, name string) (r io.ReadCloser, size int64, err error) {
	d, err := digest.Parse(name)
	if err != nil {
		return nil, 0, status.Errorf(codes.InvalidArgument, "%q failed validation", name)
	}
	f, err := c.History.open(d)
	if err == nil {
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, st.Size(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	if r, err = c.Blob(ctx, d); err != nil {
		return nil, 0, status.Errorf(codes.NotFound, "content %s: not found", d)
	}
	return r, -1, nil
}

// Info tells of a blob how large it is.
func (c *Content) Info(ctx context.Context, q *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	r, size, err := c.open(ctx, q.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size < 0 {
		if size, err = io.Copy(io.Discard, r); err != nil {
			return nil, err
		}
	}
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: q.Digest, Size: size}}, nil
}

// pieceSize is how much of a blob one message has, in bytes, as with containerd.
const pieceSize = 1 << 20

// Read sends a part of a blob, or all from its offset if it has no size.
func (c *Content) Read(q *contentapi.ReadContentRequest, s contentapi.Content_ReadServer) error {
	r, _, err := c.open(s.Context(), q.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	if q.Offset < 0 || q.Size < 0 {
		return status.Errorf(codes.OutOfRange, "invalid range %d+%d of %s", q.Offset, q.Size, q.Digest)
	}
	if err := skip(r, q.Offset); err != nil {
		return status.Errorf(codes.OutOfRange, "read past the end of %s", q.Digest)
	}
	var rest io.Reader = r
	if q.Size > 0 {
		rest = io.LimitReader(r, q.Size)
	}
	piece := make([]byte, pieceSize)
	for at := q.Offset; ; {
		n, err := io.ReadFull(rest, piece)
		if n > 0 {
			if err := s.Send(&contentapi.ReadContentResponse{Offset: at, Data: piece[:n]}); err != nil {
				return err
			}
			at += int64(n)
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
	}
}

func skip(r io.Reader, n int64) error {
	if f, ok := r.(*os.File); ok {
		_, err := f.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
