package dir

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/internal/atomicfile"
)

// index.json is written some time after the changes, because each writing costs as
// much as there are names. Before the first change that it lacks, a marker file
// is made, which keeps an image store from taking for garbage what it does not
// name; it goes when index.json has everything. registry.db knows what was written, by
// which Open sees whether another program has changed it; see import.go.

// indexDelay is the least time between a change and the index.json that has it.
// A writing that takes longer than a part of it is done less often.
const (
	indexDelay = 2 * time.Second
	indexShare = 20
)

type indexWriter struct {
	mu       sync.Mutex
	behind   bool // as the marker says
	changing bool // a transaction is under way
	changes  uint64

	wake chan struct{}
	end  chan struct{}
	done chan struct{}
	err  error // of the last writing
	log  atomic.Pointer[slog.Logger]
}

// LogTo has failures to write index.json be logged, which no request is told of.
// They are tried again until it is written; what the registry has is not in danger.
func (s *Storage) LogTo(log *slog.Logger) { s.index.log.Store(log) }

// tell logs when failures begin and when they end.
func (w *indexWriter) tell(err error) {
	log, before := w.log.Load(), w.err
	w.err = err
	switch {
	case log == nil:
	case err != nil && before == nil:
		log.Error("image stores cannot use the directory: its index.json is behind", "error", err)
	case err == nil && before != nil:
		log.Info("index.json has all images again")
	}
}

// mark says that names are about to change.
func (s *Storage) mark() error {
	w := &s.index
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.behind {
		f, err := os.OpenFile(s.path(content.BehindFile), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Close(), atomicfile.SyncDir(s.root)); err != nil {
			return err
		}
		w.behind = true
	}
	w.changing = true
	return nil
}

// marked says that they have changed.
func (w *indexWriter) marked() {
	w.mu.Lock()
	w.changing = false
	w.changes++
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// caughtUp removes the marker if nothing has changed since.
func (s *Storage) caughtUp(changes uint64) error {
	w := &s.index
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changing || w.changes != changes || !w.behind {
		return nil
	}
	if err := os.Remove(s.path(content.BehindFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.behind = false
	return nil
}

func (w *indexWriter) start(s *Storage) {
	w.wake, w.end, w.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	if w.behind {
		w.wake <- struct{}{}
	}
	go func() {
		defer close(w.done)
		delay := indexDelay
		for {
			select {
			case <-w.wake:
			case <-w.end:
				return
			}
			select {
			case <-time.After(delay):
			case <-w.end:
				return
			}
			began := time.Now()
			err := explain(s.writeIndex())
			if w.tell(err); err != nil {
				w.marked() // the disk may have room again later
			}
			delay = max(indexDelay, indexShare*time.Since(began))
		}
	}()
}

// abandon ends the writing.
func (w *indexWriter) abandon() {
	close(w.end)
	<-w.done
}

func (w *indexWriter) stop(s *Storage) error {
	w.abandon()
	return s.writeIndex()
}

// identity is what an index.json of ours is known by.
type identity struct {
	Size   int64         `json:"size"`
	Time   int64         `json:"time"` // of the last change of the bytes, ns
	Inode  uint64        `json:"inode"`
	Digest digest.Digest `json:"digest"`
}

// looksLike tells whether a file is that without a look into it.
func (i identity) looksLike(o identity) bool {
	return i.Size == o.Size && i.Time == o.Time && i.Inode == o.Inode
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	return identity{Size: st.Size, Time: st.Mtim.Nano(), Inode: st.Ino}, nil
}

// known lists the index.json files that are ours: the present one, and the next one if
// a crash came in between.
func known(tx *bbolt.Tx) (list []identity, err error) {
	if v := tx.Bucket(bucketMeta).Get(keyIndex); v != nil {
		err = json.Unmarshal(v, &list)
	}
	return list, err
}

func setKnown(tx *bbolt.Tx, list ...identity) error {
	data, err := json.Marshal(list)
	if err != nil {
		return broken{err}
	}
	return breaks(tx.Bucket(bucketMeta).Put(keyIndex, data))
}

// writeIndex writes index.json if it is behind.
func (s *Storage) writeIndex() (err error) {
	s.index.mu.Lock()
	changes, behind := s.index.changes, s.index.behind
	s.index.mu.Unlock()
	if !behind {
		return nil
	}
	f, err := os.CreateTemp(s.root, "."+ocispec.ImageIndexFile+".tmp*")
	if err != nil {
		return fmt.Errorf("cannot write index.json: %w", err)
	}
	defer func() {
		if e := os.Remove(f.Name()); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	next, err := s.encodeIndex(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write index.json: %w", err)
	}
	if err := s.replaceIndex(f.Name(), next); err != nil {
		return fmt.Errorf("cannot write index.json: %w", err)
	}
	return s.caughtUp(changes)
}

// replaceIndex gives the file its place. At any moment registry.db knows the one
// that is there.
func (s *Storage) replaceIndex(from string, next identity) error {
	path := s.path(ocispec.ImageIndexFile)
	var present []identity
	err := s.update(func(tx *bbolt.Tx) error {
		list, err := known(tx)
		if err != nil {
			return err
		}
		for _, i := range list {
			if there, ok := statIndex(path); ok && i.looksLike(there) {
				present = []identity{i}
			}
		}
		return setKnown(tx, append(present, next)...)
	})
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(from, path), atomicfile.SyncDir(s.root))
}

func statIndex(path string) (identity, bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return identity{}, false
	}
	return identity{Size: st.Size, Time: st.Mtim.Nano(), Inode: st.Ino}, true
}

// encodeIndex writes all names, and returns when they are on disk.
func (s *Storage) encodeIndex(f *os.File) (identity, error) {
	sum := sha256.New()
	w := &indexEncoder{w: bufio.NewWriterSize(io.MultiWriter(f, sum), 64<<10)}
	fmt.Fprintf(w.w, `{"schemaVersion":2,"mediaType":%q,"manifests":[`, ocispec.MediaTypeImageIndex)
	err := s.db.View(func(tx *bbolt.Tx) error {
		for c, key, _ := cursor(tx.Bucket(bucketRepos)); key != nil; key, _ = c.Next() {
			if len(key) == 1 {
				continue // what foreign descriptors lead to
			}
			r, err := lookRepo(tx, string(key[1:]))
			if err != nil {
				return err
			}
			if err := w.repository(r); err != nil {
				return err
			}
		}
		var foreign []ocispec.Descriptor
		if v := tx.Bucket(bucketMeta).Get(keyForeign); v != nil {
			if err := json.Unmarshal(v, &foreign); err != nil {
				return err
			}
		}
		for _, d := range foreign {
			if err := w.add(d); err != nil {
				return err
			}
		}
		return nil
	})
	w.w.WriteString("]}")
	if err := errors.Join(err, w.w.Flush(), f.Chmod(0o644), f.Sync()); err != nil {
		return identity{}, err
	}
	id, err := identify(f)
	id.Digest = digest.NewDigest(digest.SHA256, sum)
	return id, err
}

type indexEncoder struct {
	w   *bufio.Writer
	any bool
}

func (w *indexEncoder) add(d ocispec.Descriptor) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if w.any {
		w.w.WriteByte(',')
	}
	w.any = true
	_, err = w.w.Write(data)
	return err
}

// repository writes the tags of a repository, and those of its manifests that
// an image store would not reach from them.
func (w *indexEncoder) repository(r repository) error {
	listed := map[digest.Digest]bool{}
	targets := map[digest.Digest]ocispec.Descriptor{} // many tags may point to one
	for c, tag, v := cursor(r.tags()); tag != nil; tag, v = c.Next() {
		t, _ := readTag(v)
		target, ok := targets[t.digest]
		if !ok || t.foreign != nil {
			var err error
			if target, ok, err = r.target(t); err != nil {
				return err
			}
			if !ok {
				continue
			}
			if t.foreign == nil {
				targets[t.digest] = target
			}
		}
		listed[t.digest] = true
		e := content.Entry{Name: r.taggedName(string(tag)), Target: annotate(r, target), Updated: t.updated}
		if err := w.add(content.Annotate(e)); err != nil {
			return err
		}
	}
	entries, attached, err := untagged(r, listed)
	if err != nil {
		return err
	}
	for _, rec := range entries {
		d := bare(rec.Descriptor)
		if err := w.add(content.Annotate(content.Entry{Name: r.digestName(d.Digest), Target: annotate(r, d)})); err != nil {
			return err
		}
	}
	for _, rec := range attached {
		d := bare(rec.Descriptor)
		d.Annotations = map[string]string{content.AnnotationAttached: string(rec.Subject), content.AnnotationFrom: attachedBy + r.name}
		if err := w.add(d); err != nil {
			return err
		}
	}
	return nil
}

// untagged finds what is to be named beside the tags, which lead to what is
// listed: as an entry of its own, or attached to one. An image store follows an
// index that is named to the manifests in it, if their types are what it says.
// What is deeper than that is named, too: that is rare, and surely kept.
func untagged(r repository, listed map[digest.Digest]bool) (entries, attached []record, err error) {
	var indexes, rest, later []record
	inside, covered := map[digest.Digest]bool{}, map[digest.Digest]string{}
	for c, k, v := cursor(r.manifests()); k != nil; k, v = c.Next() {
		var rec record
		if err := json.Unmarshal(v, &rec); err != nil {
			return nil, nil, err
		}
		if len(rec.Manifests) > 0 {
			indexes = append(indexes, rec)
		}
		for _, m := range rec.Manifests {
			inside[m.Digest] = true
		}
		if !listed[rec.Descriptor.Digest] {
			rest = append(rest, rec)
		}
	}
	for _, rec := range rest {
		if d := rec.Descriptor.Digest; rec.Subject == "" && !inside[d] {
			listed[d] = true
			entries = append(entries, rec)
		}
	}
	for _, rec := range indexes {
		if listed[rec.Descriptor.Digest] && content.IsIndex(rec.Descriptor.MediaType) && len(rec.Manifests) <= content.MaxChildren {
			for _, m := range rec.Manifests {
				covered[m.Digest] = m.MediaType
			}
		}
	}
	for _, rec := range rest {
		switch d := rec.Descriptor; {
		case listed[d.Digest], covered[d.Digest] == d.MediaType:
		case listed[rec.Subject]:
			attached = append(attached, rec)
		default:
			later = append(later, rec)
		}
	}
	return append(entries, later...), attached, nil
}
