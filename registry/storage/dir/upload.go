package dir

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

const (
	stateSuffix = ".state"
	dataSuffix  = ".data"
	tmpSuffix   = ".tmp"
	idLength    = 32 // hexadecimal digits

	checkpoint = 8 << 20 // bytes after which an upload's state is written at the latest
	stateSize  = 1 << 10 // of the file, so that one write replaces the whole
)

// claims are the ids below uploads that somebody works with.
type claims struct{ taken sync.Map }

func (c *claims) take(id string) bool {
	_, taken := c.taken.LoadOrStore(id, struct{}{})
	return !taken
}

func (c *claims) release(id string) { c.taken.Delete(id) }

func (c *claims) fresh() (id string, release func()) {
	var b [idLength / 2]byte
	rand.Read(b[:])
	id = hex.EncodeToString(b[:])
	c.take(id)
	return id, func() { c.release(id) }
}

func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "0123456789abcdef") == ""
}

func (s *Storage) uploadPath(id, suffix string) string {
	return filepath.Join(s.root, uploads, id+suffix)
}

// state is what is known of an upload on disk. Bytes of its body beyond size
// are not the upload's. After a restart of the machine the body may lack what was not
// synced; the sum of the hash tells.
type state struct {
	Repository string           `json:"repository"`
	Algorithm  digest.Algorithm `json:"algorithm"`
	Size       int64            `json:"size"`
	Hash       []byte           `json:"hash,omitempty"`
	Boot       string           `json:"boot,omitempty"`
}

var bootID = sync.OnceValue(func() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
})

// upload is an upload that somebody has open.
type upload struct {
	s     *Storage
	id    string
	state state
	hash  hash.Hash
	body  *body // nil as long as it is empty
	saved int64 // size that the state's file tells
	over  bool
}

// CreateUpload begins a blob for the repository.
func (s *Storage) CreateUpload(_ context.Context, repo string, algorithm digest.Algorithm) (storage.Upload, error) {
	if !algorithm.Available() {
		return nil, unsupported(algorithm)
	}
	id, _ := s.busy.fresh()
	u := &upload{s: s, id: id, state: state{Repository: repo, Algorithm: algorithm, Boot: bootID()}, hash: algorithm.Hash()}
	if err := u.save(); err != nil {
		os.Remove(s.uploadPath(id, stateSuffix))
		s.busy.release(id)
		return nil, explain(err)
	}
	return u, nil
}

func unsupported(a digest.Algorithm) error {
	return fault.New(fault.Invalid, "the digest algorithm %q is not supported: use sha256 or sha512", a)
}

// OpenUpload goes on with an upload.
func (s *Storage) OpenUpload(_ context.Context, repo, id string) (storage.Upload, error) {
	unknown := fault.New(fault.NotFound, "repository %s has no upload %s: begin another one", repo, id)
	if !validID(id) {
		return nil, unknown
	}
	if !s.busy.take(id) {
		if u, err := s.readState(id); err != nil || u.Repository != repo {
			return nil, unknown
		}
		return nil, fault.New(fault.Conflict, "upload %s is being written to: wait for that request to end", id)
	}
	u, err := s.reopen(repo, id)
	if err != nil {
		s.busy.release(id)
		if errors.Is(err, fs.ErrNotExist) {
			err = unknown
		}
		return nil, explain(err)
	}
	return u, nil
}

func (s *Storage) readState(id string) (st state, err error) {
	data, err := os.ReadFile(s.uploadPath(id, stateSuffix))
	if err != nil {
		return st, err
	}
	if json.Unmarshal(data, &st) != nil || st.Size < 0 || !st.Algorithm.Available() {
		return st, fs.ErrNotExist // cut off by the loss of power
	}
	return st, nil
}

func (s *Storage) reopen(repo, id string) (*upload, error) {
	st, err := s.readState(id)
	if err != nil {
		return nil, err
	}
	if st.Repository != repo {
		return nil, fs.ErrNotExist
	}
	u := &upload{s: s, id: id, state: st, hash: st.Algorithm.Hash(), saved: st.Size}
	if st.Size == 0 {
		return u, nil
	}
	if err := u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(st.Hash); err != nil {
		return nil, fs.ErrNotExist
	}
	if u.body, err = s.bodies.load(u.path(dataSuffix)); err != nil {
		return nil, err
	}
	if err := u.verify(); err != nil {
		return nil, errors.Join(err, s.bodies.release(u.body))
	}
	return u, nil
}

// verify finds out whether the body has what the state says.
func (u *upload) verify() error {
	if u.body.size.Load() < u.state.Size {
		return fs.ErrNotExist
	}
	if u.state.Boot == bootID() {
		return nil
	}
	got, err := u.sum(u.state.Algorithm)
	if err != nil {
		return err
	}
	if got != digest.NewDigest(u.state.Algorithm, u.hash) {
		return fs.ErrNotExist
	}
	u.state.Boot = bootID()
	return u.save()
}

// sum reads what the upload has and gives its digest.
func (u *upload) sum(a digest.Algorithm) (digest.Digest, error) {
	if u.body == nil {
		return a.FromBytes(nil), nil
	}
	h := a.Hash()
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(u.body.f, 0, u.state.Size), make([]byte, smallBuffer))
	return digest.NewDigest(a, h), err
}

func (u *upload) path(suffix string) string { return u.s.uploadPath(u.id, suffix) }
func (u *upload) ID() string                { return u.id }
func (u *upload) Size() int64               { return u.state.Size }

// save writes the state. It outlives the process with that.
func (u *upload) save() error {
	var err error
	if u.state.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(u.state)
	if err != nil {
		return err
	}
	padded := make([]byte, max(stateSize, len(data)))
	for i := copy(padded, data); i < len(padded); i++ {
		padded[i] = '\n'
	}
	f, err := os.OpenFile(u.path(stateSuffix), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(padded, 0); err == nil {
		u.saved = u.state.Size
	}
	return errors.Join(err, f.Close())
}

// Append takes the bytes of r.
func (u *upload) Append(ctx context.Context, r io.Reader) (taken int64, err error) {
	b := u.s.buffers.begin()
	defer b.end()
	for err == nil {
		var p []byte
		p, err = b.next(r)
		if e := u.write(p, &taken); e != nil {
			err = e
			break
		}
		if err == nil && u.state.Size-u.saved >= checkpoint {
			if err = u.flush(); err == nil {
				err = u.save()
			}
		}
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	if err == io.EOF {
		err = nil
	}
	if err = u.s.bodies.spoil(u.body, err); errors.Is(err, errUnsynced) {
		return taken, explain(errors.Join(err, u.Cancel(ctx)))
	}
	if u.saved != u.state.Size {
		err = errors.Join(err, u.save())
	}
	return taken, explain(err)
}

func (u *upload) write(p []byte, taken *int64) error {
	for len(p) > 0 {
		n, err := u.step(p)
		u.hash.Write(p[:n])
		u.state.Size += int64(n)
		*taken += int64(n)
		if p = p[n:]; err != nil {
			return err
		}
	}
	return nil
}

// step takes some bytes, or moves the upload to another body.
func (u *upload) step(p []byte) (n int, err error) {
	if u.body != nil {
		if n, err = u.body.take(p, u.state.Size); n > 0 || err != nil {
			return n, err
		}
	}
	return u.branch(p)
}

// branch finds the body that goes on with p, or makes it.
func (u *upload) branch(p []byte) (int, error) {
	t := &u.s.bodies
	start := t.startOf(p)
	if u.body != nil {
		start = u.body.start
	}
	var tried []*body
	for {
		next, made, err := t.sibling(u.body, u.state.Size, start, tried, func() (*body, error) { return t.create(u.path(tmpSuffix), start) })
		if err != nil {
			return 0, err
		}
		if made {
			return u.begin(next, p)
		}
		if n, err := u.join(next, p); n > 0 || err != nil && !errors.Is(err, errNoSharing) {
			return n, err
		}
		tried = append(tried, next)
	}
}

// begin goes on in a body that was just made.
func (u *upload) begin(next *body, p []byte) (int, error) {
	n, err := next.fill(u.body, u.state.Size, p)
	if n > 0 {
		err = errors.Join(err, os.Rename(u.path(tmpSuffix), u.path(dataSuffix)))
	}
	next.mu.Unlock()
	if n > 0 {
		return n, errors.Join(err, u.turn(next))
	}
	return 0, errors.Join(err, u.s.bodies.release(next), os.Remove(u.path(tmpSuffix)))
}

// join goes on in a body that somebody else made, if it has p.
func (u *upload) join(next *body, p []byte) (int, error) {
	next.mu.Lock() // waits until it was begun
	size := next.size.Load()
	next.mu.Unlock()
	n := 0
	var err error
	if size > u.state.Size {
		n, err = next.same(p[:min(int64(len(p)), size-u.state.Size)], u.state.Size)
	}
	if n > 0 && err == nil {
		if err = next.link(u.path(tmpSuffix)); err == nil {
			err = move(u.path(tmpSuffix), u.path(dataSuffix))
		} else {
			err = errNoSharing // its last name went, or the file system has no second ones
		}
	}
	if n == 0 || err != nil {
		return 0, errors.Join(err, u.s.bodies.release(next))
	}
	return n, u.turn(next)
}

// turn leaves the body for the next one.
func (u *upload) turn(next *body) (err error) {
	if u.body != nil {
		err = u.s.bodies.release(u.body)
	}
	u.body = next
	return err
}

// Commit gives the blob to the repository.
func (u *upload) Commit(ctx context.Context, d digest.Digest) error {
	if !d.Algorithm().Available() {
		return unsupported(d.Algorithm())
	}
	got, err := digest.NewDigest(u.state.Algorithm, u.hash), error(nil)
	if d.Algorithm() != u.state.Algorithm {
		if got, err = u.sum(d.Algorithm()); err != nil {
			return explain(err)
		}
	}
	if got != d {
		return errors.Join(fault.New(fault.Invalid, "the bytes have the digest %s instead of %s: push them again", got, d), u.Cancel(ctx))
	}
	unlock, err := u.s.digests.Lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	if !u.s.stored(d, u.state.Size) || !u.same(d) {
		if err := u.keep(d); err != nil {
			if err = u.s.bodies.spoil(u.body, err); errors.Is(err, errUnsynced) { // trying again would succeed
				err = errors.Join(err, u.Cancel(ctx))
			}
			return explain(err)
		}
	}
	err = u.s.update(func(tx *bbolt.Tx) error { return u.s.linkBlob(tx, u.state.Repository, d, u.state.Size) })
	if err != nil {
		return err
	}
	return u.Cancel(ctx)
}

// keep makes the body, which has the digest, a blob. The digest is locked.
func (u *upload) keep(d digest.Digest) error {
	if u.body == nil {
		b, err := u.s.bodies.create(u.path(dataSuffix), 0)
		if err != nil {
			return err
		}
		u.body = b
	}
	if err := u.seal(); err != nil {
		return err
	}
	if err := writeOut(u.body.f); err != nil {
		return err
	}
	// A second name: should what follows fail, the upload is as it was.
	from := u.path(tmpSuffix)
	if err := u.body.link(from); err != nil {
		from = u.path(dataSuffix)
	}
	if err := u.s.place(from, d, u.body.f); err != nil {
		return err
	}
	if u.body.lost.Load() { // somebody else was told just now
		return errUnsynced
	}
	u.forget(u.state.Size - 2*checkpoint)
	return nil
}

// seal gives the upload a body that ends with it and is never written again.
func (u *upload) seal() error {
	b := u.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.lost.Load():
		return errUnsynced
	case b.sealed && b.size.Load() == u.state.Size:
		return nil
	case b.size.Load() == u.state.Size:
	case !b.sealed && u.s.bodies.alone(b): // what a process that was killed had not acknowledged
		if err := b.f.Truncate(u.state.Size); err != nil {
			return err
		}
		b.size.Store(u.state.Size)
	default:
		own, err := u.copyOut()
		if err != nil {
			return err
		}
		b = own
	}
	if err := b.f.Chmod(0o444); err != nil {
		return err
	}
	b.sealed = true
	return nil
}

// copyOut gives the upload a copy of what it shares.
func (u *upload) copyOut() (*body, error) {
	own, err := u.s.bodies.create(u.path(tmpSuffix), 0)
	if err != nil {
		return nil, err
	}
	if _, err := own.fill(u.body, u.state.Size, nil); err != nil {
		return nil, errors.Join(err, own.f.Close(), os.Remove(u.path(tmpSuffix)))
	}
	own.size.Store(u.state.Size)
	if err := os.Rename(u.path(tmpSuffix), u.path(dataSuffix)); err != nil {
		return nil, errors.Join(err, own.f.Close())
	}
	return own, u.turn(own)
}

// Cancel drops what was taken.
func (u *upload) Cancel(context.Context) error {
	if u.over {
		return nil
	}
	return explain(errors.Join(u.s.removeUpload(u.id), u.Close()))
}

// removeUpload removes the files of an upload that was claimed.
func (s *Storage) removeUpload(id string) (err error) {
	for _, suffix := range []string{stateSuffix, dataSuffix, tmpSuffix} {
		if e := os.Remove(s.uploadPath(id, suffix)); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Close leaves the upload to the next one.
func (u *upload) Close() (err error) {
	if u.over {
		return nil
	}
	u.over = true
	if u.body != nil {
		err = u.s.bodies.release(u.body)
	}
	u.s.busy.release(u.id)
	return err
}
