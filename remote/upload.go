package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// upload is a blob on its way to a registry, OCI distribution specification,
// "Pushing Blobs". A small blob goes in one PUT; a larger one in pieces, by
// PATCH, and an empty PUT; so does one whose single PUT failed. After a failure
// the registry is asked how far it came.
type upload struct {
	session  *session
	path     string
	d        ocispec.Descriptor
	open     func(offset int64) (io.ReadCloser, error)
	progress func(done int64)

	at      *url.URL // where the next request goes; nil: no upload is open
	offset  int64    // how much the registry has
	pieces  bool
	whole   bool // the registry takes no pieces
	piece   int64
	resumed bool // the registry was asked how much it has
	stored  bool // the registry has the blob, although it could not say so
}

// leastPiece is the smallest piece that is tried when a registry finds them too
// large.
const leastPiece = 64 << 10

// PushBlob sends a blob. open gives its bytes from an offset on, up to its end,
// and may be called several times; progress, which may be nil, is told how many
// bytes are sent, and goes back where the registry lost some.
func (r *Repository) PushBlob(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error), progress func(done int64)) error {
	if err := d.Digest.Validate(); err != nil || d.Size < 0 {
		return fault.New(fault.Invalid, "cannot push the blob %s of %d bytes", clean(d.Digest.String(), 200), d.Size)
	}
	s, path, err := r.target(ctx)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(int64) {}
	}
	u := &upload{session: s, path: path, d: d, open: open, progress: progress, at: r.takeKept(d.Digest), piece: r.client.config.Chunk}
	u.pieces = d.Size > u.piece
	return u.run(ctx)
}

// run repeats attempts as long as they bring something.
func (u *upload) run(ctx context.Context) error {
	p := u.session.endpoint.client.pace
	best, failures := int64(0), 0
	for {
		err := u.attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			u.cancel(ctx)
			return context.Cause(ctx)
		}
		if u.offset-best >= enoughProgress {
			best, failures = u.offset, 0
		}
		if failures++; !p.wait(ctx, failures, u.mend(ctx, err)) {
			u.cancel(ctx)
			return err
		}
	}
}

// attempt goes on from where the upload stands to its end.
func (u *upload) attempt(ctx context.Context) error {
	if u.stored {
		u.progress(u.d.Size)
		return nil
	}
	if u.at == nil {
		if err := u.start(ctx); err != nil {
			return err
		}
	}
	for u.pieces && u.offset < u.d.Size {
		if err := u.patch(ctx, min(u.piece, u.d.Size-u.offset)); err != nil {
			return err
		}
	}
	return u.finish(ctx)
}

// start opens an upload.
func (u *upload) start(ctx context.Context) error {
	resp, err := u.session.do(ctx, &call{method: http.MethodPost, below: u.path + "/blobs/uploads/", scope: pushScope(u.path), once: true})
	if err != nil {
		return err
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusAccepted {
		return fault.New(fault.Unavailable, "%s answers the begin of an upload with the status %d", u.session.endpoint.host, resp.StatusCode)
	}
	u.offset = 0
	if least, ok := number(resp.Header.Get("OCI-Chunk-Min-Length")); ok && least > u.piece {
		u.piece = min(least, max(u.d.Size, 1)) // a registry that wants larger pieces
	}
	u.at, err = uploadLocation(resp)
	return err
}

// patch sends the next n bytes.
func (u *upload) patch(ctx context.Context, n int64) error {
	resp, err := u.session.do(ctx, &call{
		method: http.MethodPatch, url: u.at, scope: pushScope(u.path), once: true, slow: true,
		header: http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Content-Range": {strconv.FormatInt(u.offset, 10) + "-" + strconv.FormatInt(u.offset+n-1, 10)},
		},
		body: u.body(n), length: n,
	})
	if err != nil {
		return err
	}
	defer discard(resp)
	if resp.StatusCode/100 == 2 {
		if at, err := uploadLocation(resp); err == nil {
			u.at = at
		}
	}
	got, ok := uploadRange(resp.Header.Get("Range"))
	if !ok || got == 0 && u.offset+n == 1 {
		got = u.offset + n // the answer does not say; of one byte it says the same as of none
	}
	if got <= u.offset || got > u.d.Size {
		return fault.New(fault.Unavailable, "%s has taken %d bytes of the blob %s and says to have %d", u.session.endpoint.host, u.offset+n, u.d.Digest, got)
	}
	u.offset = got
	u.progress(got)
	return nil
}

// finish sends what is left with the digest.
func (u *upload) finish(ctx context.Context) error {
	to := *u.at
	if to.RawQuery != "" {
		to.RawQuery += "&" // what is there may be signed as it is
	}
	to.RawQuery += "digest=" + url.QueryEscape(u.d.Digest.String())
	left := u.d.Size - u.offset
	resp, err := u.session.do(ctx, &call{
		method: http.MethodPut, url: &to, scope: pushScope(u.path), once: true, slow: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}}, body: u.body(left), length: left,
	})
	if err != nil {
		return err
	}
	discard(resp)
	u.progress(u.d.Size)
	return sameDigest(resp, u.d.Digest)
}

// mend decides, after a failure, where the upload stands. It gives the error
// for the back-off, not transient where going on is of no use.
func (u *upload) mend(ctx context.Context, err error) error {
	var source sourceError
	status := statusIn(err)
	switch {
	case errors.As(err, &source), u.at == nil:
		return err
	case status == http.StatusNotFound, hasCode(err, "BLOB_UPLOAD_UNKNOWN"), hasCode(err, "BLOB_UPLOAD_INVALID"):
		u.restart()
	case u.resumed && hasCode(err, "DIGEST_INVALID"):
		// The registry was still writing when it was asked how much it has.
		u.restart()
	case status == http.StatusRequestEntityTooLarge && !u.whole && min(u.piece, u.d.Size) > leastPiece:
		u.piece = max(min(u.piece, u.d.Size)/8, leastPiece) // a proxy's limit, often
		u.restart()
	case (status == http.StatusMethodNotAllowed || hasCode(err, "UNSUPPORTED")) && !u.whole:
		u.whole = u.pieces // or else the other way
		u.restart()
	case status == http.StatusRequestedRangeNotSatisfiable, isTransient(err):
		u.ask(ctx)
	default:
		return err
	}
	if u.pieces = !u.whole; u.whole && u.offset > 0 {
		u.restart()
	}
	u.progress(u.offset)
	if isTransient(err) {
		return err
	}
	return fault.New(fault.Unavailable, "%w", transient{err: err})
}

func (u *upload) restart() { u.at, u.offset, u.resumed = nil, 0, false }

// ask learns from the registry how much it has. An upload of which it does not
// tell is begun anew, unless it is complete and only the answer was lost.
func (u *upload) ask(ctx context.Context) {
	resp, err := u.session.do(ctx, &call{method: http.MethodGet, url: u.at, scope: pushScope(u.path), once: true})
	if statusIn(err) == http.StatusNotFound {
		head, err := u.session.do(ctx, &call{method: http.MethodHead, below: u.path + "/blobs/" + u.d.Digest.String(), scope: pushScope(u.path), once: true})
		if err == nil {
			discard(head)
			u.stored = true
			return
		}
	}
	if err != nil {
		if statusIn(err) != 0 {
			u.restart()
		}
		return // not reached: the next attempt will see
	}
	defer discard(resp)
	got, ok := uploadRange(resp.Header.Get("Range"))
	if !ok || got > u.d.Size || resp.StatusCode != http.StatusNoContent {
		u.restart()
		return
	}
	u.offset, u.resumed = got, true
	if at, err := uploadLocation(resp); err == nil {
		u.at = at
	}
}

// cancel tells the registry that nothing more comes, as well as that can be
// done in a short time.
func (u *upload) cancel(ctx context.Context) {
	if u.at == nil {
		return
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer done()
	if resp, err := u.session.do(ctx, &call{method: http.MethodDelete, url: u.at, scope: pushScope(u.path), once: true}); err == nil {
		discard(resp)
	}
}

// body opens the next n bytes, and tells of them as they go.
func (u *upload) body(n int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		if n == 0 {
			return http.NoBody, nil
		}
		src, err := u.open(u.offset)
		if err != nil {
			return nil, fault.New(fault.KindOf(err), "%w", sourceError{err})
		}
		return &sending{src: src, left: n, done: u.offset, progress: u.progress}, nil
	}
}

// sending counts what is read of a piece, and holds its source to its length.
type sending struct {
	src        io.ReadCloser
	left, done int64
	progress   func(done int64)
}

func (s *sending) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.src.Read(p[:min(int64(len(p)), s.left)])
	s.left, s.done = s.left-int64(n), s.done+int64(n)
	if n > 0 {
		s.progress(s.done)
	}
	switch {
	case err == io.EOF && s.left > 0:
		err = sourceError{fmt.Errorf("it ends %d bytes too early", s.left)}
	case err == io.EOF, err == nil:
		err = nil
	default:
		err = sourceError{err}
	}
	if err == nil && s.left == 0 {
		err = io.EOF
	}
	return n, err
}

func (s *sending) Close() error { return s.src.Close() }

// uploadLocation is where the next request of an upload goes.
func uploadLocation(resp *http.Response) (*url.URL, error) {
	text := resp.Header.Get("Location")
	at, err := resp.Request.URL.Parse(text)
	if err != nil || text == "" || at.Host == "" {
		return nil, fault.New(fault.Unavailable, "the registry does not say where the upload goes on")
	}
	at.User, at.Fragment = nil, ""
	return at, nil
}

// uploadRange reads the header Range of an answer, "0-99" or "bytes=0-99", and
// gives how many bytes the registry has. Of none it says "0-0" or nothing.
func uploadRange(s string) (int64, bool) {
	begin, end, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "bytes="), "-")
	if !ok || begin != "0" {
		return 0, false
	}
	last, ok := number(end)
	switch {
	case !ok || last == 1<<63-1:
		return 0, false
	case last == 0:
		return 0, true
	}
	return last + 1, true
}
