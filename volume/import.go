package volume

import (
	"context"
	"io"
	"os"
	"time"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/treecopy"
)

// ImportRequest says what volume an archive is to become.
type ImportRequest struct {
	Name    string
	Options map[string]string // size
	Labels  map[string]string
}

// Import makes a local volume of a tar, compressed or not. It is whole or not
// there, and survives power loss when settle has ended.
func (s *Service) Import(ctx context.Context, req ImportRequest, tar io.Reader) (wire.Volume, error) {
	r := Record{Name: req.Name, Driver: Local, Options: req.Options, Labels: req.Labels, Created: time.Now()}
	for option := range req.Options {
		if option != sizeOption {
			return wire.Volume{}, fault.New(fault.Invalid, "import %s: invalid option %q: an imported volume can have size alone", r.Name, option)
		}
	}
	if _, err := r.size(); err != nil {
		return wire.Volume{}, fault.New(fault.Invalid, "import %s: %w", r.Name, err)
	}
	err := s.add(ctx, r, func(at *os.File) error { return fill(ctx, at, r, tar) })
	if err != nil {
		return wire.Volume{}, fault.New(fault.KindOf(err), "import %s: %w", r.Name, err)
	}
	return s.wire(r, nil), nil
}

// fill makes the content of a volume from a tar, and reads that to its end.
func fill(ctx context.Context, at *os.File, r Record, tar io.Reader) error {
	data, err := treecopy.Make(at, dataName)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := data.Chmod(0o755); err != nil {
		return err
	}
	if err := bound(data, r); err != nil {
		return err
	}
	plain, _, err := compression.Decompress(tar)
	if err != nil {
		return err
	}
	defer plain.Close()
	ahead := archive.ReadAhead(plain)
	defer ahead.Close()
	end := &ending{r: ahead}
	if _, err := archive.Extract(ctx, data, end, archive.Options{Whiteouts: archive.Verbatim, Crew: true}); err != nil {
		return err
	}
	if end.early {
		return fault.New(fault.Invalid, "the archive is truncated: it has no end, which is two blocks of zeros")
	}
	_, err = io.Copy(io.Discard, ahead)
	return err
}

// ending knows whether its reader came to where nothing was left. Who reads a tar
// stops at the two blocks of zeros; one that is cut off between two entries looks to
// it as if it ended there.
type ending struct {
	r     io.Reader
	early bool
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.early = e.early || n == 0 && err == io.EOF
	return n, err
}
