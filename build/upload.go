package build

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/tarehq/tare/fault"
)

// uploadHost is the host of addresses that mean a file which the client sends:
// what it was given on its standard input.
const uploadHost = "buildkit-session"

// Uploader is a Session that sends files by their address.
type Uploader interface {
	// Upload writes the file that the client has for the address.
	Upload(ctx context.Context, u *url.URL, to io.Writer) error
}

// upload has a file of the client's here for as long as the job.
func (j *Job) upload(ctx context.Context, u *url.URL, attrs map[string]string) (*output, error) {
	s, ok := j.session.(Uploader)
	if !ok {
		return nil, fault.New(fault.Invalid, "the client of the build sends no files")
	}
	dir, err := os.MkdirTemp(j.solver.scratchDir(), "upload")
	if err != nil {
		return nil, err
	}
	j.atEnd(func() { _ = os.RemoveAll(dir) }) // the next process removes all that lies there
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	from, to := io.Pipe()
	defer from.Close()
	go func() { to.CloseWithError(s.Upload(ctx, u, to)) }() // ends with from
	return &output{dir: dir}, save(&http.Response{Body: from, Header: http.Header{}}, u, attrs, dir, &about{})
}
