package dir

import (
	"context"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
)

// Repositories lists repositories in the order of their names' bytes.
func (s *Storage) Repositories(_ context.Context, last string, n int) (list []string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		// Of the key of "", whose repository is nobody's, only what follows is listed.
		return page(tx.Bucket(bucketRepos), string(repoKey(last)), n, func(key []byte) error {
			list = append(list, string(key[1:]))
			return nil
		})
	})
	return list, explain(err)
}

// Tags lists tags of a repository.
func (s *Storage) Tags(_ context.Context, repo, last string, n int) (list []string, err error) {
	err = s.listIn(repo, last, n, func(r repository) *bbolt.Bucket { return r.tags() }, func(key []byte) { list = append(list, string(key)) })
	return list, err
}

// Manifests lists the digests of a repository's manifests.
func (s *Storage) Manifests(_ context.Context, repo string, last digest.Digest, n int) (list []digest.Digest, err error) {
	err = s.listIn(repo, string(last), n, func(r repository) *bbolt.Bucket { return r.manifests() },
		func(key []byte) { list = append(list, digest.Digest(key)) })
	return list, err
}

func (s *Storage) listIn(repo, last string, n int, bucket func(repository) *bbolt.Bucket, add func(key []byte)) error {
	return explain(s.db.View(func(tx *bbolt.Tx) error {
		r, err := lookRepo(tx, repo)
		if err != nil {
			return err
		}
		return page(bucket(r), last, n, func(key []byte) error {
			add(key)
			return nil
		})
	}))
}

// Usage is the bytes of the repository's blobs and manifests.
func (s *Storage) Usage(_ context.Context, repo string) (n int64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if r, err := lookRepo(tx, repo); err == nil {
			n = r.usage()
		}
		return nil
	})
	return n, explain(err)
}
