package bucket

import (
	"context"
	"errors"
	"path"
	"slices"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
)

// Repositories lists the names by looking at the first objects of each: a page
// of the listing has several repositories, or a part of a big one whose rest is skipped.
func (s *Storage) Repositories(ctx context.Context, last string, n int) (names []string, err error) {
	const page = 100
	prefix := s.below("repos")
	skip := func(repo string) string { return prefix + repo + "!0" } // "0" comes after "/"
	after := ""
	if last != "" {
		after = skip(last)
	}
	for n < 0 || len(names) < n {
		seen := 0
		for o, err := range s.list(ctx, prefix, after, page) {
			if err != nil {
				return nil, err
			}
			after = o.Key
			e, ok := s.parseEntry(o.Key)
			if ok && isContent(e, o) && (len(names) == 0 || names[len(names)-1] != e.repo) {
				names = append(names, e.repo)
			}
			if seen++; seen == page || len(names) == n {
				break
			}
		}
		if seen < page {
			break
		}
		if e, ok := s.parseEntry(after); ok && len(names) > 0 && names[len(names)-1] == e.repo {
			after = skip(e.repo)
		}
	}
	return names, nil
}

// isContent tells whether the object makes a repository: a reference to a blob,
// or a manifest.
func isContent(e entry, o minio.ObjectInfo) bool {
	return e.section == "blobs" || e.section == "manifests" && o.Size >= aManifest
}

// Tags lists tags.
func (s *Storage) Tags(ctx context.Context, repo, last string, n int) ([]string, error) {
	after := ""
	if last != "" {
		after = s.tagKey(repo, last)
	}
	return s.names(ctx, repo, "tags", after, 1, n)
}

// Manifests lists digests of manifests.
func (s *Storage) Manifests(ctx context.Context, repo string, last digest.Digest, n int) ([]digest.Digest, error) {
	after := ""
	if last != "" {
		after = s.manifestKey(repo, last)
	}
	names, err := s.names(ctx, repo, "manifests", after, aManifest, n)
	digests := make([]digest.Digest, len(names))
	for i, name := range names {
		digests[i] = undashed(name)
	}
	return digests, err
}

// names lists objects of a section that have at least the size. It is
// fault.NotFound if there are none and the repository has nothing else.
func (s *Storage) names(ctx context.Context, repo, section, after string, size int64, n int) (names []string, err error) {
	page := 1000
	if n >= 0 {
		page = min(page, n+1)
	}
	for o, err := range s.list(ctx, s.below("repos", repo+"!", section), after, page) {
		if err != nil {
			return nil, err
		}
		if len(names) == n {
			break
		}
		if o.Size >= size {
			names = append(names, path.Base(o.Key))
		}
	}
	if len(names) > 0 {
		return names, nil
	}
	for o, err := range s.list(ctx, s.below("repos", repo+"!"), "", 100) {
		if err != nil {
			return nil, err
		}
		e, ok := s.parseEntry(o.Key)
		if ok && isContent(e, o) {
			return nil, nil
		}
		if e.section > "manifests" {
			break
		}
	}
	return nil, fault.New(fault.NotFound, "there is no repository %s", repo)
}

// Referrers lists the manifests with the subject.
func (s *Storage) Referrers(ctx context.Context, repo string, subject, last digest.Digest, n int) (list []ocispec.Descriptor, err error) {
	for more := true; more && len(list) != n; {
		var digests []digest.Digest
		if digests, more, err = s.referrers(ctx, repo, subject, last, n-len(list)); err != nil {
			return nil, err
		}
		found := make([]*ocispec.Descriptor, len(digests))
		work, all := errgroup.WithContext(ctx)
		work.SetLimit(width)
		for i, d := range digests {
			last = d
			work.Go(func() error {
				m, err := s.manifest(all, repo, d)
				if err == nil && m.manifest != nil {
					found[i] = &m.manifest.Descriptor
				}
				return err
			})
		}
		if err := work.Wait(); err != nil {
			return nil, err
		}
		for _, d := range found {
			if d != nil {
				list = append(list, *d)
			}
		}
	}
	return list, nil
}

// referrers lists the names of at most n (all for n < 0) that come after last.
// more tells whether there may be others.
func (s *Storage) referrers(ctx context.Context, repo string, subject, last digest.Digest, n int) (digests []digest.Digest, more bool, err error) {
	after := ""
	if last != "" {
		after = s.referrerKey(repo, subject, last, "~") // comes after all that is random there
	}
	for o, err := range s.list(ctx, s.below("repos", repo+"!", "referrers", dashed(subject)), after, 1000) {
		if err != nil {
			return nil, false, err
		}
		if d := referrerOf(o); !slices.Contains(digests[max(0, len(digests)-1):], d) {
			if len(digests) == n {
				return digests, true, nil
			}
			digests = append(digests, d)
		}
	}
	return digests, false, nil
}

// referrerOf is the digest in the name of a referrer, ALGORITHM-HEX-RANDOM.
func referrerOf(o minio.ObjectInfo) digest.Digest {
	name := path.Base(o.Key)
	return undashed(name[:max(0, len(name)-27)])
}

// Usage adds up sizes that names tell, and those of manifests, which are read
// where they are not remembered.
func (s *Storage) Usage(ctx context.Context, repo string) (int64, error) {
	sizes := map[digest.Digest]int64{}
	var manifests []digest.Digest
	for o, err := range s.list(ctx, s.below("repos", repo+"!"), "", 1000) {
		if err != nil {
			return 0, err
		}
		e, ok := s.parseEntry(o.Key)
		if !ok || e.section > "manifests" {
			break
		}
		if r, ok := parseRef(o); ok && e.section == "blobs" {
			sizes[undashed(path.Dir(e.name))] = r.size
		} else if isContent(e, o) {
			manifests = append(manifests, undashed(e.name))
		}
	}
	found := make([]int64, len(manifests))
	work, all := errgroup.WithContext(ctx)
	work.SetLimit(width)
	for i, d := range manifests {
		if _, ok := sizes[d]; ok { // its bytes are a blob as well
			continue
		}
		work.Go(func() error {
			m, err := s.sizeOf(all, repo, d)
			found[i] = m
			return err
		})
	}
	err := work.Wait()
	var total int64
	for _, size := range sizes {
		total += size
	}
	for _, size := range found {
		total += size
	}
	return total, err
}

// sizeOf is the size of a manifest, which is that of all with its digest.
func (s *Storage) sizeOf(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	if known, ok := s.manifests.get(s.manifestKey(repo, d)); ok {
		return known.manifest.Descriptor.Size, nil
	}
	m, err := s.Manifest(ctx, repo, d)
	if errors.Is(err, fault.NotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return m.Descriptor.Size, nil
}
