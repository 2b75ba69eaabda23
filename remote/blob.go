package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// enoughProgress is how many bytes make a broken connection count as the first
// one again.
const enoughProgress = 16 << 10

// Blob reads the bytes [from,to) of a blob; to < 0 means its end. The reader
// goes on by itself when the connection breaks, at the byte where it stopped,
// at the same address or the next; it gives up when several attempts in a row
// brought nothing. It notices lengths that differ from the descriptor's, and
// leaves the digest to its caller. Where all addresses send the whole blob
// whatever is asked for, a range in its middle is ErrNoRanges: read from there to
// the end instead. It is for one goroutine, ends with ctx, and
// must be closed. Layers that must not be distributed are read from the
// descriptor's own addresses if the registry has none.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, from, to int64) (io.ReadCloser, error) {
	if to < 0 {
		to = d.Size
	}
	if err := d.Digest.Validate(); err != nil || d.Size < 0 || from < 0 || from > to || to > d.Size {
		return nil, fault.New(fault.Invalid, "cannot read the bytes %d to %d of the blob %s of %d bytes", from, to, clean(d.Digest.String(), 200), d.Size)
	}
	sources, err := r.Sources(ctx, d)
	if err != nil {
		return nil, err
	}
	return (&blobReader{ctx: ctx, patient: true, sources: sources, position: from, mark: from, end: to}).begin()
}

// ReadBlob reads a whole small blob, as a config is, of at most limit bytes. Its
// digest is checked: of addresses that send other bytes the next is asked.
func (r *Repository) ReadBlob(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fault.New(fault.Invalid, "the blob %s has %d bytes, more than the %d that are read", clean(d.Digest.String(), 200), d.Size, limit)
	}
	if err := d.Digest.Validate(); err != nil || d.Size < 0 {
		return nil, fault.New(fault.Invalid, "cannot read the blob %s of %d bytes", clean(d.Digest.String(), 200), d.Size)
	}
	sources, err := r.Sources(ctx, d)
	if err != nil {
		return nil, err
	}
	var data []byte
	for i, s := range sources {
		if data, err = s.whole(ctx, i == len(sources)-1); err == nil || ctx.Err() != nil {
			return data, err
		}
	}
	return nil, err
}

// whole reads a small blob and checks it.
func (s *Source) whole(ctx context.Context, patient bool) ([]byte, error) {
	b, err := s.Read(ctx, 0, s.blob.Size, patient)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, err
	}
	if got := s.blob.Digest.Algorithm().FromBytes(data); got != s.blob.Digest {
		return nil, fault.New(fault.Invalid, "the registry sent another blob than %s: its digest is %s", s.blob.Digest, got)
	}
	return data, nil
}

// BlobSize tells how many bytes a blob has.
func (r *Repository) BlobSize(ctx context.Context, d digest.Digest) (int64, error) {
	if err := d.Validate(); err != nil {
		return 0, fault.New(fault.Invalid, "%q is no digest", clean(d.String(), 200))
	}
	size := int64(-1)
	err := r.each(ctx, hosts.Pull, func(s *session, path string, last bool) error {
		resp, err := s.do(ctx, &call{method: http.MethodHead, below: path + "/blobs/" + d.String(), scope: pullScope(path), once: !last})
		if err != nil {
			return err
		}
		discard(resp)
		if size = resp.ContentLength; size < 0 {
			return fault.New(fault.Unavailable, "%s does not tell the size of the blob %s", s.endpoint.host, d)
		}
		return nil
	})
	return size, err
}

// ErrNoRanges says that a range would cost reading much of what is before it.
var ErrNoRanges = fault.New(fault.Unavailable, "the registry sends blobs only as a whole")

// maxSkip is how many bytes are read in vain for a range that does not go up to
// the end. That one is asked for once, the others by the hundred.
const maxSkip = 1 << 20

// A Source is one address that may have a blob: a mirror, the registry, or one
// that the descriptor names. What it sends is not checked.
type Source struct {
	pace pace
	host string
	blob ocispec.Descriptor
	get  func(ctx context.Context, h http.Header) (*http.Response, error)
}

// Host is the address's host, with its port if it has one.
func (s *Source) Host() string { return s.host }

// Sources are the addresses that may have the blob, in the order in which they
// are to be asked. Mirrors that cannot be reached just now are not among them.
func (r *Repository) Sources(ctx context.Context, d ocispec.Descriptor) ([]*Source, error) {
	var out []*Source
	err := r.each(ctx, hosts.Pull, func(s *session, path string, last bool) error {
		out = append(out, &Source{r.client.pace, s.endpoint.host, d, func(ctx context.Context, h http.Header) (*http.Response, error) {
			resp, err := s.do(ctx, &call{
				method: http.MethodGet, below: path + "/blobs/" + d.Digest.String(), header: h, scope: pullScope(path), once: true,
			})
			if err != nil && !last && fault.KindOf(err) == fault.Unavailable && ctx.Err() == nil {
				s.endpoint.setDown()
			}
			return resp, err
		}})
		return errNext
	})
	if len(out) == 0 {
		return nil, err
	}
	if foreign(d.MediaType) {
		out = append(out, r.client.foreignSources(d)...)
	}
	return out, nil
}

// Read is Repository.Blob of this address alone. Without patience it ends with
// the first failure that no progress came before: there is another source.
func (s *Source) Read(ctx context.Context, from, to int64, patient bool) (io.ReadCloser, error) {
	return (&blobReader{ctx: ctx, patient: patient, sources: []*Source{s}, position: from, mark: from, end: to}).begin()
}

var errNext = errors.New("and the next")

// foreign tells whether layers of the type may lie elsewhere than in the
// registry, OCI image specification, "Non-Distributable Layers".
func foreign(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

const maxForeign = 4

// foreignSources are addresses that an image names. They are asked by HTTPS, as
// nobody, and only outside this machine and its networks.
func (c *Client) foreignSources(d ocispec.Descriptor) []*Source {
	var out []*Source
	for _, text := range d.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(out) == maxForeign {
			continue
		}
		e := &endpoint{client: c, host: u.Host, transport: c.publicTransport(), confined: true}
		out = append(out, &Source{c.pace, u.Host, d, func(ctx context.Context, h http.Header) (*http.Response, error) {
			resp, err := e.exchange(ctx, &call{method: http.MethodGet, url: u, header: h}, "")
			if err == nil && resp.StatusCode/100 != 2 {
				err = refusalOf(resp)
			}
			return resp, err
		}})
	}
	return out
}

// blobReader reads a part of a blob from one source after the other.
type blobReader struct {
	ctx     context.Context // of the request that reads
	patient bool            // the last source is asked again

	d             ocispec.Descriptor
	sources       []*Source // of it; the first is asked
	position, end int64     // of the blob
	body          io.ReadCloser
	open          bool // the body's length is not known
	failures      int  // in a row that brought nothing
	mark          int64
	failure       error // for good
	noRanges      bool  // a source has sent the whole when a range was asked for
}

func (b *blobReader) begin() (io.ReadCloser, error) {
	b.d = b.sources[0].blob
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

// connect asks for the bytes from the position on until a source gives them. A
// source that fails is left for the next; the last is asked again and again.
func (b *blobReader) connect() error {
	for b.position < b.end {
		err := b.request()
		if err == nil {
			return nil
		}
		if b.ctx.Err() != nil {
			return context.Cause(b.ctx)
		}
		if len(b.sources) > 1 {
			b.sources = b.sources[1:]
			continue
		}
		if err := b.failed(err); err != nil {
			if b.noRanges {
				return ErrNoRanges
			}
			return err
		}
	}
	return nil
}

// failed counts a failure and waits before the next attempt, or gives the error
// when there is to be none.
func (b *blobReader) failed(err error) error {
	_, trickle := errors.AsType[tooSlow](err)
	switch {
	case b.position-b.mark >= enoughProgress && !trickle:
		b.failures = 0
	case len(b.sources) > 1:
		b.sources, b.failures = b.sources[1:], 0
		return nil
	case !b.patient:
		return err
	}
	b.mark = b.position
	if b.failures++; b.sources[0].pace.wait(b.ctx, b.failures, err) {
		return nil
	}
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

// request opens the body at the position.
func (b *blobReader) request() error {
	h := http.Header{}
	whole := b.position == 0 && b.end == b.d.Size
	if !whole {
		h.Set("Range", "bytes="+strconv.FormatInt(b.position, 10)+"-"+strconv.FormatInt(b.end-1, 10))
	}
	resp, err := b.sources[0].get(b.ctx, h)
	if err != nil {
		if statusIn(err) == http.StatusRequestedRangeNotSatisfiable {
			return b.wrong("ends before byte %d", b.position)
		}
		return err
	}
	skip, err := b.begins(resp)
	if err == nil && skip > 0 {
		_, err = io.CopyN(io.Discard, resp.Body, skip)
		if err != nil {
			err = b.broken(err)
		}
	}
	if err != nil {
		resp.Body.Close()
		return err
	}
	b.body, b.open = resp.Body, resp.ContentLength < 0
	return nil
}

// begins checks what part of the blob an answer holds, and tells how many bytes
// of it are known already.
func (b *blobReader) begins(resp *http.Response) (skip int64, err error) {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return 0, b.wrong("is sent in the encoding %s, which was not asked for", clean(enc, 64))
	}
	switch resp.StatusCode {
	case http.StatusOK:
		if n := resp.ContentLength; n >= 0 && n != b.d.Size {
			return 0, b.wrong("has %d bytes there, and not %d", n, b.d.Size)
		}
		if b.position > maxSkip && b.end < b.d.Size {
			b.noRanges = true
			return 0, ErrNoRanges
		}
		return b.position, nil
	case http.StatusPartialContent:
		first, last, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		switch {
		case !ok || first != b.position || last >= b.end:
			return 0, b.wrong("is sent from another place than was asked for: %q", clean(resp.Header.Get("Content-Range"), 100))
		case total >= 0 && total != b.d.Size:
			return 0, b.wrong("has %d bytes there, and not %d", total, b.d.Size)
		case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
			return 0, b.wrong("is sent with the length %d in the range %q", resp.ContentLength, clean(resp.Header.Get("Content-Range"), 100))
		}
		return 0, nil
	}
	return 0, b.wrong("is answered with the status %d", resp.StatusCode)
}

func (b *blobReader) wrong(format string, args ...any) error {
	args = append([]any{b.d.Digest, b.sources[0].host}, args...)
	return fault.New(fault.Unavailable, "the blob %s of %s "+format, args...)
}

func (b *blobReader) broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.Unavailable, "the connection to %s broke at byte %d of %d of the blob %s: %w", b.sources[0].host, b.position, b.d.Size, b.d.Digest, transient{err: err})
}

// Read goes on where the last one stopped.
func (b *blobReader) Read(p []byte) (int, error) {
	for b.failure == nil {
		if b.position == b.end {
			b.failure = b.finish()
			break
		}
		if len(p) == 0 {
			return 0, nil
		}
		if b.body == nil {
			b.failure = b.connect()
			continue
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.end-b.position)])
		b.position += int64(n)
		if err != nil && b.position < b.end {
			b.drop()
			if b.ctx.Err() != nil {
				b.failure = context.Cause(b.ctx)
			} else {
				b.failure = b.failed(b.broken(err))
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.failure
}

// finish is io.EOF, unless the source has more than the whole blob.
func (b *blobReader) finish() error {
	defer b.drop()
	if b.body != nil && b.open && b.end == b.d.Size {
		if n, _ := b.body.Read(make([]byte, 1)); n > 0 {
			return b.wrong("has more than %d bytes there", b.d.Size)
		}
	}
	return io.EOF
}

func (b *blobReader) drop() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close ends the request.
func (b *blobReader) Close() error {
	b.drop()
	if b.failure == nil {
		b.failure = errors.New("the reader is closed")
	}
	return nil
}

// parseContentRange reads "bytes first-last/total", RFC 9110, 14.4. total is -1
// for "*".
func parseContentRange(s string) (first, last, total int64, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	span, size, hasSize := strings.Cut(strings.TrimSpace(rest), "/")
	begin, end, hasEnd := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !hasSize || !hasEnd {
		return 0, 0, 0, false
	}
	first, ok = number(begin)
	last, okLast := number(end)
	total, okTotal := int64(-1), true
	if size != "*" {
		total, okTotal = number(size)
	}
	if !ok || !okLast || !okTotal || last < first || total >= 0 && last >= total {
		return 0, 0, 0, false
	}
	return first, last, total, true
}

// number reads digits alone.
func number(s string) (int64, bool) {
	if s == "" || slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
