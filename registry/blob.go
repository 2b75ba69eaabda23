package registry

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
)

const octets = "application/octet-stream"

var (
	octetStream = []string{octets}
	// What has a digest never changes.
	forever = []string{"max-age=31536000, immutable"}
)

// maxRanges is how many parts of a blob one request may ask for. Each costs
// more than it took to ask; a request for more gets the whole.
const maxRanges = 32

// getBlob sends a blob, or the ranges of it that are asked for. The writer and
// the file are handed on as they are, so that the kernel can move the bytes.
func (q *request) getBlob() error {
	d, err := readDigest(q.item)
	if err != nil {
		return err
	}
	blob, err := q.api.Storage.Blob(q.Context(), q.repo, d)
	if err != nil {
		return err
	}
	defer blob.Content.Close()
	h := q.w.Header()
	if q.unchanged(d, forever) {
		return nil
	}
	if q.api.Redirect && blob.Location != nil && q.Method == http.MethodGet {
		location, err := blob.Location(q.Context())
		if err == nil {
			h.Set("Location", location)
			h.Set("Cache-Control", "no-store") // the address is good for minutes only
			q.status(http.StatusTemporaryRedirect)
			q.pulledBlob(d, blob.Size)
			return nil
		}
		q.api.Log.Warn("a blob is sent through the registry: its storage gave no address", slog.Any("error", err))
	}
	h["Content-Type"] = octetStream
	w, ranged := q.w, (*rangeWriter)(nil)
	if ranges := q.Header["Range"]; ranges != nil {
		if strings.Count(ranges[0], ",") >= maxRanges {
			q.Header.Del("Range")
		}
		ranged = &rangeWriter{ResponseWriter: w, q: q}
		w = ranged
	}
	q.begun = true
	http.ServeContent(w, q.Request, "", time.Time{}, blob.Content)
	if q.Method == http.MethodGet && q.Context().Err() == nil && (ranged == nil || !ranged.failed) {
		q.pulledBlob(d, blob.Size)
	}
	return nil
}

func (q *request) pulledBlob(d digest.Digest, size int64) {
	q.tell(Event{Action: Pull, Digest: d, MediaType: octets, Size: size})
}

// rangeWriter tells a range that a blob does not have in the registry's words
// instead of those of net/http. The rest passes, the kernel's copy included.
type rangeWriter struct {
	http.ResponseWriter
	q      *request
	failed bool
}

func (w *rangeWriter) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.failed = true
	w.q.fail(&problem{status: status, Code: unsupported, Message: "the blob does not have this range of bytes"})
}

func (w *rangeWriter) Write(b []byte) (int, error) {
	if w.failed {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

func (w *rangeWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}

func (q *request) deleteBlob() error {
	d, err := readDigest(q.item)
	if err != nil {
		return err
	}
	err = q.api.Storage.DeleteBlob(q.whole(), q.repo, d)
	if errors.Is(err, fault.Conflict) {
		// The specification knows no conflict here, but blobs that are not to be deleted.
		q.w.Header().Set("Allow", "GET, HEAD")
		return refuse(http.StatusMethodNotAllowed, unsupported, err)
	}
	if err != nil {
		return err
	}
	q.accepted()
	q.tell(Event{Action: Delete, Digest: d, MediaType: octets})
	return nil
}

func (q *request) accepted() {
	q.w.Header().Set("Content-Length", "0")
	q.status(http.StatusAccepted)
}
