package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/registry/storage"
)

// chunk is how many blobs one transaction removes: it is what those wait for who
// want one of them at the moment.
const chunk = 256

// due is a blob that no manifest of its repository names.
type due struct {
	repo   string
	digest digest.Digest
}

// Collect removes what has been due for the grace period.
func (s *Storage) Collect(ctx context.Context, grace time.Duration) (c storage.Collected, err error) {
	s.collect.Lock()
	defer s.collect.Unlock()
	for _, step := range []func(context.Context, time.Duration, *storage.Collected) error{
		s.collectLinks, s.collectBytes, s.collectFiles, s.collectUploads,
	} {
		if err := step(ctx, grace, &c); err != nil {
			return c, explain(err)
		}
	}
	return c, nil
}

// collectLinks takes from repositories the blobs that none of their manifests name.
func (s *Storage) collectLinks(ctx context.Context, grace time.Duration, _ *storage.Collected) error {
	var list []due
	err := s.db.View(func(tx *bbolt.Tx) error {
		for c, name, _ := cursor(tx.Bucket(bucketRepos)); name != nil; name, _ = c.Next() {
			repo := string(name[1:])
			for c, k, v := cursor(tx.Bucket(bucketRepos).Bucket(name).Bucket(bucketBlobs)); k != nil; k, v = c.Next() {
				if blob, _ := readCounted(v); blob.users == 0 {
					list = append(list, due{repo, digest.Digest(k)})
				}
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(list, chunk) {
		if err := errors.Join(context.Cause(ctx), s.dropLinks(part, grace)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Storage) dropLinks(list []due, grace time.Duration) error {
	digests := make([]digest.Digest, len(list))
	for i, d := range list {
		digests[i] = d.digest
	}
	var condemned map[digest.Digest]bool
	defer func() { s.found.pardon(condemned) }()
	return s.update(func(tx *bbolt.Tx) error {
		condemned = s.found.condemn(digests, grace)
		for _, d := range list {
			r, err := lookRepo(tx, d.repo)
			if err != nil || !condemned[d.digest] {
				continue
			}
			if blob, ok := r.blob(d.digest); !ok || blob.users > 0 {
				continue
			}
			if err := errors.Join(r.unlink(d.digest), r.prune()); err != nil {
				return broken{err}
			}
		}
		return nil
	})
}

// collectBytes removes the files of bytes that no repository has, and the records
// of files that are not there: who pushes such a blob again heals what names it.
func (s *Storage) collectBytes(ctx context.Context, grace time.Duration, c *storage.Collected) error {
	last := ""
	for {
		var list []digest.Digest
		n := 0
		err := s.db.View(func(tx *bbolt.Tx) error {
			return page(tx.Bucket(bucketBytes), last, 4096, func(key []byte) error {
				last = string(key)
				n++
				bytes, _ := readCounted(tx.Bucket(bucketBytes).Get(key))
				if bytes.users == 0 && s.found.due(digest.Digest(key), grace) || s.isLost(digest.Digest(key)) {
					list = append(list, digest.Digest(key))
				}
				return context.Cause(ctx)
			})
		})
		if err != nil || n == 0 {
			return err
		}
		for part := range slices.Chunk(list, chunk) {
			if err := s.dropBytes(ctx, part, c); err != nil {
				return err
			}
		}
	}
}

// isLost tells whether the file of a blob is not there.
func (s *Storage) isLost(d digest.Digest) bool {
	_, err := os.Lstat(s.blobPath(d))
	return errors.Is(err, fs.ErrNotExist)
}

func (s *Storage) dropBytes(ctx context.Context, list []digest.Digest, c *storage.Collected) error {
	slices.Sort(list) // nobody else waits for a second one
	for _, d := range list {
		unlock, err := s.digests.Lock(ctx, d)
		if err != nil {
			return err
		}
		defer unlock()
	}
	var gone []digest.Digest
	err := s.update(func(tx *bbolt.Tx) error {
		all := tx.Bucket(bucketBytes)
		for _, d := range list {
			key := []byte(d)
			bytes, ok := readCounted(all.Get(key))
			switch {
			case ok && bytes.users == 0:
				if err := breaks(all.Delete(key)); err != nil {
					return err
				}
				gone = append(gone, d)
			case ok && s.isLost(d):
				if err := forgetBlob(tx, d); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range gone {
		if err := s.removeFile(d, c); err != nil {
			return err
		}
	}
	return nil
}

// forgetBlob takes a blob whose file is lost from all repositories. Manifests go on
// naming it, so that it is kept when it comes back.
func forgetBlob(tx *bbolt.Tx, d digest.Digest) error {
	var names []string
	for c, k, _ := cursor(tx.Bucket(bucketRepos)); k != nil; k, _ = c.Next() {
		names = append(names, string(k[1:]))
	}
	for _, name := range names {
		r, err := lookRepo(tx, name)
		if err != nil {
			return broken{err}
		}
		if err := r.unlink(d); err != nil {
			return err
		}
		if err := r.prune(); err != nil {
			return err
		}
	}
	return nil
}

// removeFile removes a blob's file, which no record speaks of. The digest is locked.
func (s *Storage) removeFile(d digest.Digest, c *storage.Collected) error {
	path := s.blobPath(d)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() { // which is nobody's blob
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	c.Blobs++
	c.Bytes += st.Size()
	return nil
}

// collectFiles removes files below blobs that no record speaks of: what a crash
// left between the two.
func (s *Storage) collectFiles(ctx context.Context, _ time.Duration, c *storage.Collected) error {
	algorithms, err := os.ReadDir(s.path(ocispec.ImageBlobsDir))
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		if !a.IsDir() {
			continue
		}
		err := eachName(filepath.Join(s.path(ocispec.ImageBlobsDir), a.Name()), func(names []string) error {
			var strays []digest.Digest
			err := s.db.View(func(tx *bbolt.Tx) error {
				for _, name := range names {
					d := digest.NewDigestFromEncoded(digest.Algorithm(a.Name()), name)
					if d.Validate() == nil && tx.Bucket(bucketBytes).Get([]byte(d)) == nil {
						strays = append(strays, d)
					}
				}
				return context.Cause(ctx)
			})
			for _, d := range strays {
				err = errors.Join(err, s.removeStray(ctx, d, c))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachName reads a directory in parts.
func eachName(dir string, visit func(names []string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		if err := visit(names); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *Storage) removeStray(ctx context.Context, d digest.Digest, c *storage.Collected) error {
	unlock, err := s.digests.Lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	known := false
	err = s.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketBytes).Get([]byte(d)) != nil
		return nil
	})
	if err != nil || known {
		return err
	}
	return s.removeFile(d, c)
}

// collectUploads removes uploads that nobody wrote to, and what is left of some.
func (s *Storage) collectUploads(ctx context.Context, grace time.Duration, c *storage.Collected) error {
	return eachName(s.path(uploads), func(names []string) error {
		for _, name := range names {
			id, _, _ := strings.Cut(name, ".")
			if err := errors.Join(context.Cause(ctx), s.collectUpload(id, grace, c)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Storage) collectUpload(id string, grace time.Duration, c *storage.Collected) error {
	if !validID(id) || !s.busy.take(id) {
		return nil
	}
	defer s.busy.release(id)
	now, young, found, size := time.Now(), false, false, int64(0)
	for _, suffix := range []string{stateSuffix, dataSuffix, tmpSuffix} {
		path := s.uploadPath(id, suffix)
		st, err := os.Lstat(path)
		if err != nil {
			continue
		}
		found = true
		if suffix != stateSuffix {
			size += st.Size()
		} else if st.ModTime().After(now.Add(time.Minute)) {
			// The clock was set back: it is as old as that.
			if err := os.Chtimes(path, now, now); err != nil {
				return err
			}
		}
		young = young || suffix == stateSuffix && now.Sub(st.ModTime()) < grace
	}
	if young || !found {
		return nil
	}
	c.Uploads++
	c.Bytes += size
	return s.removeUpload(id)
}
