package content

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
)

// Remaker makes the bytes of blobs again that the store does not keep: what is
// unpacked is not kept a second time as an archive. Its methods may be called at
// the same time.
type Remaker interface {
	// Size tells whether it has the blob, and how many bytes that is.
	Size(d digest.Digest) (int64, bool)
	// Write writes the blob.
	Write(ctx context.Context, d digest.Digest, w io.Writer) error
}

// SetRemaker has blobs count as here that r can make. It is called once, before
// anything is looked for.
func (s *Store) SetRemaker(r Remaker) { s.remaker = r }

// remake opens a blob that is made again. The file has no name: it goes when it
// is closed.
func (s *Store) remake(d digest.Digest) (*os.File, int64, error) {
	if s.remaker == nil {
		return nil, 0, notHere(d)
	}
	if _, gone := s.forgotten.Load(d); gone {
		return nil, 0, notHere(d)
	}
	size, ok := s.remaker.Size(d)
	if !ok {
		return nil, 0, notHere(d)
	}
	f, err := os.CreateTemp(s.path("ingest"), "again")
	if err != nil {
		return nil, 0, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, 0, err
	}
	if err := s.fillAgain(f, d, size); err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("the content %s cannot be made again: %w", d, err)
	}
	return f, size, nil
}

func (s *Store) fillAgain(f *os.File, d digest.Digest, size int64) error {
	sum, out := d.Verifier(), bufio.NewWriterSize(f, 1<<20)
	// Who opens a blob does not wait for somebody else, as far as he knows.
	if err := s.remaker.Write(context.Background(), d, io.MultiWriter(out, sum)); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	n, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if n != size || !sum.Verified() {
		return fault.New(fault.Internal, "its %d bytes are others than the %d that there were", n, size)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
