package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// postUpload begins an upload. It ends it at once where the blob comes along
// (digest) or is in another repository (mount, from).
func (q *request) postUpload() error {
	query := q.URL.Query()
	if query.Has("mount") {
		d, err := readDigest(query.Get("mount"))
		if err != nil {
			return err
		}
		if mounted, err := q.mount(query.Get("from"), d); mounted || err != nil {
			return err
		}
		return q.begin(d.Algorithm())
	}
	if query.Has("digest") {
		d, err := readDigest(query.Get("digest"))
		if err != nil {
			return err
		}
		return q.postBlob(d)
	}
	algorithm := digest.Canonical
	if query.Has("digest-algorithm") {
		switch algorithm = digest.Algorithm(query.Get("digest-algorithm")); algorithm {
		case digest.SHA256, digest.SHA512:
		default:
			return refuse(http.StatusBadRequest, digestInvalid, fault.New(fault.Invalid, "the digest algorithm %.50q is not supported: use sha256 or sha512", string(algorithm)))
		}
	}
	return q.begin(algorithm)
}

func (q *request) begin(algorithm digest.Algorithm) error {
	up, err := q.api.Storage.CreateUpload(q.Context(), q.repo, algorithm)
	if err != nil {
		return err
	}
	defer up.Close()
	q.progress(http.StatusAccepted, up.ID(), up.Size())
	return nil
}

// mount gives the repository a blob of another one that the client may read. It
// is no error that this cannot be: the client uploads the blob then.
func (q *request) mount(from string, d digest.Digest) (bool, error) {
	if from == q.repo || !storage.ValidRepository(from) || !q.mayPull(from) {
		return false, nil
	}
	blob, err := q.api.Storage.Blob(q.Context(), from, d)
	if there, err := known(err); !there {
		return false, err
	}
	size := blob.Size
	if err := blob.Content.Close(); err != nil {
		return false, err
	}
	err = q.grow(size, "", q.hasBlob(d), func(ctx context.Context) error {
		_, err := q.api.Storage.Mount(ctx, q.repo, from, d)
		return err
	})
	if there, err := known(err); !there {
		return false, err
	}
	q.created(d)
	q.tell(Event{Action: Push, Digest: d, MediaType: octets, Size: size, From: from})
	return true, nil
}

// postBlob takes a blob in a single request.
func (q *request) postBlob(d digest.Digest) error {
	up, err := q.api.Storage.CreateUpload(q.Context(), q.repo, d.Algorithm())
	if err != nil {
		return err
	}
	defer up.Close()
	q.writer = new(writer)
	if err = q.take(up, d); err == nil {
		err = q.commit(up, d)
	}
	if err != nil {
		_ = up.Cancel(q.whole()) // the client does not know of it, and begins again
		q.api.quotas.drop(q.repo, up.ID(), 0)
	}
	return err
}

// open goes on with an upload, and ends the request that has it. The returned
// function ends that.
func (q *request) open() (storage.Upload, func(), error) {
	return q.openUnless(func(old *writer) bool { old.stop(); return false })
}

// openUnless opens the upload unless what it met is enough, which leaves it nil.
func (q *request) openUnless(met func(old *writer) (enough bool)) (storage.Upload, func(), error) {
	if !validID(q.item) {
		return nil, nil, fault.New(fault.NotFound, "no such upload: begin a new one")
	}
	mine, err := q.api.writers.enter(q, met)
	if err != nil || mine == nil {
		return nil, nil, err
	}
	up, err := q.api.Storage.OpenUpload(q.Context(), q.repo, q.item)
	if err != nil {
		q.api.writers.leave(q, mine)
		if errors.Is(err, fault.Conflict) {
			err = busy()
		}
		return nil, nil, err
	}
	mine.size.Store(up.Size())
	q.writer = mine
	return up, func() { up.Close(); q.api.writers.leave(q, mine) }, nil
}

func busy() error {
	return refuse(http.StatusConflict, blobUploadInvalid, fault.New(fault.Conflict, "another request writes to this upload: wait for its end"))
}

// validID tells whether a storage may be asked for the upload.
func validID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return id != "" && len(id) <= 255
}

// getUpload tells how far the upload is, also while another request brings more.
func (q *request) getUpload() error {
	size := int64(-1)
	up, leave, err := q.openUnless(func(old *writer) bool { size = old.size.Load(); return size >= 0 })
	if err != nil {
		return err
	}
	if up != nil {
		defer leave()
		size = up.Size()
	}
	q.progress(http.StatusNoContent, q.item, size)
	return nil
}

func (q *request) patchUpload() error {
	up, leave, err := q.open()
	if err != nil {
		return err
	}
	defer leave()
	if err := q.take(up, ""); err != nil {
		return err
	}
	q.progress(http.StatusAccepted, up.ID(), up.Size())
	return nil
}

func (q *request) putUpload() error {
	up, leave, err := q.open()
	if err != nil {
		return err
	}
	defer leave()
	d, err := readDigest(q.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	if err := q.take(up, d); err != nil {
		return err
	}
	return q.commit(up, d)
}

func (q *request) deleteUpload() error {
	up, leave, err := q.open()
	if err != nil {
		return err
	}
	defer leave()
	if err := up.Cancel(q.whole()); err != nil {
		return err
	}
	q.api.quotas.drop(q.repo, up.ID(), 0)
	q.status(http.StatusNoContent)
	return nil
}

// commit makes the upload a blob of the repository.
func (q *request) commit(up storage.Upload, d digest.Digest) error {
	size := up.Size()
	err := q.grow(size, up.ID(), q.hasBlob(d), func(ctx context.Context) error {
		err := up.Commit(ctx, d)
		if errors.Is(err, fault.Invalid) {
			q.api.quotas.drop(q.repo, up.ID(), 0)
			return refuse(http.StatusBadRequest, digestInvalid, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	q.created(d)
	q.tell(Event{Action: Push, Digest: d, MediaType: octets, Size: size})
	return nil
}

func (q *request) created(d digest.Digest) {
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.repo+"/blobs/"+string(d))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Content-Length", "0")
	q.status(http.StatusCreated)
}

// take appends the request's body to the upload. What came stays, however the
// request ends. d is the digest that the upload is to have, "" if that is not known.
func (q *request) take(up storage.Upload, d digest.Digest) error {
	length, err := q.announced(up)
	if err != nil {
		return err
	}
	b := &body{r: q.Body, writer: q.writer, room: q.room(up)}
	if b.limit, err = q.ration(d); err != nil {
		return err
	}
	if b.limit > 0 {
		q.api.quotas.enter(q.repo, up.ID())
		defer func() { q.api.quotas.leave(q.repo, up.ID(), up.Size()) }()
		b.reach = func(size int64) (int64, error) { return q.reach(up.ID(), size, b.limit) }
		b.size = up.Size()
	}
	if err := b.admit(q, length); err != nil {
		return err
	}
	if length >= 0 {
		b.r = io.LimitReader(q.Body, length) // a stream may have more than its range says
	}
	taken, err := up.Append(q.whole(), b)
	switch {
	case b.full:
		return b.refusal(q)
	case b.err != nil:
		return refuse(http.StatusBadRequest, blobUploadInvalid, fault.New(fault.Invalid, "the request ended after %d bytes, which are kept: %w", taken, b.err))
	case err != nil:
		return err
	case length >= 0 && taken != length:
		return refuse(http.StatusBadRequest, sizeInvalid, fault.New(fault.Invalid, "%d bytes came where %d were announced", taken, length))
	}
	if n, _ := io.ReadFull(q.Body, make([]byte, 1)); n > 0 {
		return refuse(http.StatusBadRequest, sizeInvalid, fault.New(fault.Invalid, "more bytes came than the %d that Content-Range says, which are kept", length))
	}
	return nil
}

// announced is how many bytes the request says it brings, -1 if it does not.
func (q *request) announced(up storage.Upload) (length int64, err error) {
	length = q.ContentLength
	chunk := q.Header.Get("Content-Range")
	if chunk == "" {
		return length, nil
	}
	start, end, ok := parseChunk(chunk)
	switch {
	case !ok:
		return 0, fault.New(fault.Invalid, "invalid Content-Range %.100q: use FIRST-LAST, the positions of the chunk's first and last byte", chunk)
	case start != up.Size():
		q.progressHeaders(up.ID(), up.Size())
		return 0, refuse(http.StatusRequestedRangeNotSatisfiable, blobUploadInvalid, fault.New(fault.Invalid,
			"the chunk begins at %d, and %d bytes are here: go on from there", start, up.Size()))
	case length >= 0 && length != end-start+1:
		return 0, refuse(http.StatusBadRequest, sizeInvalid, fault.New(fault.Invalid, "Content-Range says %d bytes and Content-Length %d", end-start+1, length))
	}
	return end - start + 1, nil
}

// room is how many bytes the upload may still get as a blob, -1 for any number.
func (q *request) room(up storage.Upload) int64 {
	if q.api.MaxBlob > 0 {
		return max(q.api.MaxBlob-up.Size(), 0)
	}
	return -1
}

// ration is the quota that what comes counts against, 0 for none: a blob that the
// repository has costs nothing.
func (q *request) ration(d digest.Digest) (int64, error) {
	limit := q.quota()
	if limit == 0 || d == "" {
		return limit, nil
	}
	there, err := q.hasBlob(d)(q.Context())
	if there {
		limit = 0
	}
	return limit, err
}

// body tells a client's failure from the storage's, and how much it may send.
type body struct {
	r      io.Reader
	writer *writer
	room   int64 // -1 for any number of bytes
	full   bool
	err    error

	limit int64 // the quota, 0 for none
	over  bool  // it is that which is full
	size  int64 // of the upload with what came
	reach func(size int64) (int64, error)
	cause error // why it could not be told what there is room for
}

// admit refuses what is announced to be more than there is room for.
func (b *body) admit(q *request, length int64) error {
	switch {
	case length <= 0:
		return nil
	case b.room >= 0 && length > b.room:
		return b.refusal(q)
	case b.limit == 0:
		return nil
	}
	size, err := b.reach(b.size + length)
	if err == nil && size < b.size+length {
		b.over = true
		err = b.refusal(q)
	}
	return err
}

// refusal is what to say of more than there is room for.
func (b *body) refusal(q *request) error {
	switch {
	case b.cause != nil:
		return b.cause
	case b.over:
		return q.full(b.limit)
	}
	return refuse(http.StatusRequestEntityTooLarge, sizeInvalid, fault.New(fault.Invalid,
		"this registry takes blobs of at most %s: make the layer smaller, or ask who runs the registry for more", units.BytesSize(float64(q.api.MaxBlob))))
}

var errRoom = errors.New("there is no room for more")

func (b *body) Read(p []byte) (int, error) {
	if b.writer.stopped.Load() {
		b.err = errStopped
		return 0, b.err
	}
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF && b.writer.stopped.Load() {
		err = errStopped
	}
	if b.room >= 0 {
		if int64(n) > b.room {
			n, err, b.full = int(b.room), errRoom, true
		}
		b.room -= int64(n)
	}
	if b.limit > 0 && n > 0 {
		size, cause := b.reach(b.size + int64(n))
		if cause != nil {
			size = b.size
		}
		if left := max(size-b.size, 0); left < int64(n) {
			n, err, b.full, b.over, b.cause = int(left), errRoom, true, true, cause
		}
		b.size += int64(n)
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	b.writer.size.Add(int64(n))
	return n, err
}

// parseChunk reads the specification's form of Content-Range, FIRST-LAST.
func parseChunk(s string) (start, end int64, ok bool) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	start, ok1 := position(first)
	end, ok2 := position(last)
	return start, end, ok1 && ok2 && start <= end
}

func position(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 63)
	return n, err == nil
}

// progress answers with how far the upload is.
func (q *request) progress(status int, id string, size int64) {
	q.progressHeaders(id, size)
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", "0")
	}
	q.status(status)
}

// progressHeaders has Docker's habit: an upload without a byte is at 0-0 as well.
func (q *request) progressHeaders(id string, size int64) {
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.repo+"/blobs/uploads/"+id)
	h.Set("Range", "0-"+strconv.FormatInt(max(size-1, 0), 10))
	h.Set("Docker-Upload-UUID", id)
}
