package bucket

import (
	"context"
	"crypto/rand"
	"encoding"
	"errors"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

const (
	// partSize is that of all parts but the last, as some servers want it. With at
	// most maxParts of them a blob has up to 78 GiB.
	partSize = 8 << 20
	maxParts = 10_000
	// partTime bounds the sending of a part, its repetitions included.
	partTime = 15 * time.Minute
)

// upload is a copy in the state uploading that somebody has open here.
type upload struct {
	s    *Storage
	id   string
	v    version // as it is in the bucket
	hash hash.Hash

	size    int64    // taken so far; less what is lost if it cannot be saved
	parts   []string // ETags of those that were sent
	tail    spool    // what comes after the parts
	loaded  bool     // the tail has the bytes of v.Tail
	other   spool    // the part that is being sent
	sending chan sent
	savedAt time.Time
	ended   bool // by Commit or Cancel
	closed  bool
}

type sent struct {
	etag string
	err  error
}

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// CreateUpload makes the state, which is the upload.
func (s *Storage) CreateUpload(ctx context.Context, repo string, algorithm digest.Algorithm) (storage.Upload, error) {
	u := &upload{s: s, id: rand.Text(), hash: algorithm.Hash(), loaded: true, savedAt: time.Now()}
	s.hold(u.id)
	var err error
	u.v, err = s.turn(ctx, u.id, version{}, record{State: uploading, Repository: repo, Algorithm: algorithm})
	if err != nil {
		s.release(u.id)
		return nil, err
	}
	u.tail.dir, u.other.dir = s.config.Spool, s.config.Spool
	return u, nil
}

// OpenUpload reads the state.
func (s *Storage) OpenUpload(ctx context.Context, repo, id string) (storage.Upload, error) {
	if !isCopy(id) {
		return nil, fault.New(fault.NotFound, "the repository %s has no upload %.100q", repo, id)
	}
	if !s.hold(id) {
		return nil, fault.New(fault.Conflict, "the upload %s is being written to: wait for that to end", id)
	}
	u, err := s.resume(ctx, repo, id)
	if err != nil {
		s.release(id)
		return nil, err
	}
	return u, nil
}

func (s *Storage) resume(ctx context.Context, repo, id string) (*upload, error) {
	v, err := s.look(ctx, id)
	if errors.Is(err, errGone) || err == nil && (v.State != uploading || v.Repository != repo || !v.Algorithm.Available()) {
		return nil, fault.New(fault.NotFound, "the repository %s has no upload %s", repo, id)
	} else if err != nil {
		return nil, err
	}
	u := &upload{s: s, id: id, v: v, size: v.Size, parts: v.Parts, loaded: v.Tail == "", savedAt: time.Now()}
	u.hash = v.Algorithm.Hash()
	u.tail.dir, u.other.dir = s.config.Spool, s.config.Spool
	if len(v.Hash) == 0 {
		return u, nil
	}
	if err := u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(v.Hash); err != nil {
		return nil, fault.New(fault.NotFound, "the upload %s was begun by another version of the registry: begin it anew", id)
	}
	return u, nil
}

func (s *Storage) hold(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[id] {
		return false
	}
	s.open[id] = true
	return true
}

func (s *Storage) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

func (s *Storage) held(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id]
}

func (u *upload) ID() string  { return u.id }
func (u *upload) Size() int64 { return u.size }

// Append sends a part whenever there is one and saves the upload at the end,
// also when the client has gone.
func (u *upload) Append(ctx context.Context, r io.Reader) (int64, error) {
	start := u.v.Size
	if u.ended {
		return 0, fault.New(fault.NotFound, "the upload %s has ended", u.id)
	}
	ctx, cancel := lingering(ctx)
	defer cancel()
	if err := u.load(ctx); err != nil {
		return 0, err
	}
	failed, err := u.take(ctx, r)
	if err == nil && u.size != u.v.Size {
		err = u.save(ctx)
	}
	if err != nil {
		u.settle()
		u.revert()
		return u.size - start, err
	}
	return u.size - start, failed
}

// lingering is a context that lasts a little longer than the request whose
// context it is made of: what a client sent before it went is to be saved.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(30*time.Second, cancel) })
	return longer, func() { stop(); cancel() }
}

// take reads until r ends. What failed is r's error, err the bucket's.
func (u *upload) take(ctx context.Context, r io.Reader) (failed, err error) {
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, end := r.Read(buffer[:min(len(buffer), int(partSize-u.tail.size))])
		u.hash.Write(buffer[:n])
		if _, err := u.tail.Write(buffer[:n]); err != nil {
			return nil, err
		}
		u.size += int64(n)
		if u.tail.size == partSize {
			if err := u.send(ctx); err != nil {
				return nil, err
			}
		}
		if errors.Is(end, io.EOF) {
			return nil, nil
		} else if end != nil {
			return end, nil
		}
		// An upload that takes long must not look as if nobody wrote to it.
		if time.Since(u.savedAt) > min(time.Minute, u.s.grace/4) {
			if err := u.save(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// load reads the tail that was saved, so that the next part can have it.
func (u *upload) load(ctx context.Context) error {
	if u.loaded {
		return nil
	}
	body, _, _, err := u.s.core.GetObject(ctx, u.s.config.Bucket, u.s.dataKey(u.id, u.v.Tail), minio.GetObjectOptions{})
	if err = u.s.fault(ctx, err); errors.Is(err, errGone) {
		return u.stolen()
	} else if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(&u.tail, body)
	if want := u.v.Size - int64(len(u.parts))*partSize; err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		u.tail.reset()
		return u.s.fault(ctx, err)
	}
	u.loaded = true
	return nil
}

// send has the tail sent as the next part, while the one after it is received.
func (u *upload) send(ctx context.Context) error {
	if err := u.arrive(); err != nil {
		return err
	}
	if len(u.parts) == maxParts-1 {
		return fault.New(fault.Invalid, "a blob in a bucket has at most %d bytes", int64(partSize)*maxParts)
	}
	if err := u.multipart(ctx); err != nil {
		return err
	}
	u.tail, u.other = u.other, u.tail
	u.tail.reset()
	u.sending = make(chan sent, 1)
	go func(part spool, number int, done chan<- sent) {
		etag, err := u.put(ctx, &part, number)
		done <- sent{etag, err}
	}(u.other, len(u.parts)+1, u.sending)
	return nil
}

// multipart begins the upload in parts. It is known by the state before the
// first part comes, so that a collection can end it.
func (u *upload) multipart(ctx context.Context) error {
	if u.v.Multipart != "" {
		return nil
	}
	id, err := u.s.core.NewMultipartUpload(ctx, u.s.config.Bucket, u.s.dataKey(u.id, bytesObject), minio.PutObjectOptions{})
	if err != nil {
		return u.s.fault(ctx, err)
	}
	next := u.v.record
	next.Multipart = id
	return u.turn(ctx, next)
}

func (u *upload) put(ctx context.Context, part *spool, number int) (etag string, err error) {
	ctx, done, err := u.s.sender(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	p, err := u.s.core.PutObjectPart(ctx, u.s.config.Bucket, u.s.dataKey(u.id, bytesObject), u.v.Multipart, number,
		part.reader(), part.size, minio.PutObjectPartOptions{})
	if err = u.s.fault(ctx, err); errors.Is(err, errNoUpload) {
		err = u.stolen()
	}
	return p.ETag, err
}

// sender waits until few enough others send bytes, and bounds the time for it.
func (s *Storage) sender(ctx context.Context) (bounded context.Context, done func(), err error) {
	select {
	case s.senders <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, s.fault(ctx, ctx.Err())
	}
	bounded, cancel := context.WithTimeout(ctx, partTime)
	return bounded, func() { cancel(); <-s.senders }, nil
}

// arrive waits for the part that is being sent.
func (u *upload) arrive() error {
	if u.sending == nil {
		return nil
	}
	part := <-u.sending
	u.sending = nil
	if part.err == nil {
		u.parts = append(u.parts[:len(u.parts):len(u.parts)], part.etag)
	}
	return part.err
}

// settle waits for the part that is being sent, whatever becomes of it.
func (u *upload) settle() { _ = u.arrive() }

// save writes what the next request needs.
func (u *upload) save(ctx context.Context) error {
	if err := u.arrive(); err != nil {
		return err
	}
	next := u.v.record
	next.Size, next.Parts, next.Tail = u.size, u.parts, ""
	var err error
	if next.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	if u.tail.size > 0 {
		next.Tail = newTail()
		if err := u.store(ctx, next.Tail); err != nil {
			return err
		}
	}
	before := u.v.Tail
	if err := u.turn(ctx, next); err != nil {
		return err
	}
	if before != "" {
		_ = u.s.remove(ctx, u.s.dataKey(u.id, before)) // or at the upload's end
	}
	return nil
}

// store writes the tail as an object of its own.
func (u *upload) store(ctx context.Context, object string) error {
	if u.tail.size == 0 {
		_, err := u.s.put(ctx, u.s.dataKey(u.id, object), nil)
		return err
	}
	ctx, done, err := u.s.sender(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = u.s.core.PutObject(ctx, u.s.config.Bucket, u.s.dataKey(u.id, object), u.tail.reader(), u.tail.size, "", "", minio.PutObjectOptions{})
	return u.s.fault(ctx, err)
}

// turn swaps the state of the upload.
func (u *upload) turn(ctx context.Context, next record) error {
	v, err := u.s.turn(ctx, u.id, u.v, next)
	if errors.Is(err, errChanged) {
		return u.stolen()
	} else if err != nil {
		return err
	}
	u.v, u.savedAt = v, time.Now()
	return nil
}

func (u *upload) stolen() error {
	return fault.New(fault.Conflict, "the upload %s was written to by somebody else, or given up: begin it anew", u.id)
}

// revert goes back to what the bucket has.
func (u *upload) revert() {
	u.size, u.parts, u.loaded = u.v.Size, u.v.Parts, u.v.Tail == ""
	u.tail.reset()
	u.hash = u.v.Algorithm.Hash()
	if u.v.Hash != nil {
		_ = u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.v.Hash) // it was marshalled here or read before
	}
}

// Cancel has the copy dead at once.
func (u *upload) Cancel(ctx context.Context) error {
	u.settle()
	u.ended = true
	return u.drop(ctx)
}

func (u *upload) drop(ctx context.Context) error {
	v, err := u.s.turn(ctx, u.id, u.v, u.v.in(dead))
	if errors.Is(err, errChanged) {
		return nil // it is somebody else's, or gone
	} else if err != nil {
		return err
	}
	_, err = u.s.purge(ctx, u.id, v.record)
	return err
}

// Close gives the upload back. What Append took is in the bucket already.
func (u *upload) Close() error {
	if u.closed {
		return nil
	}
	u.closed, u.ended = true, true
	u.settle()
	u.s.release(u.id)
	return errors.Join(u.tail.close(), u.other.close())
}
