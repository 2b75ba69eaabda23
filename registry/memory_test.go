package registry

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// memory is a storage for these tests: it keeps the interface's word as long as
// the process lives, behind one lock.
type memory struct {
	mu      sync.Mutex
	repos   map[string]*memoryRepo
	uploads map[string]*memoryUpload
	ids     int
	failing error // what every method returns, if it is not nil
}

type memoryRepo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]*storage.Manifest
	tags      map[string]storage.Tag
}

func newMemory() *memory {
	return &memory{repos: map[string]*memoryRepo{}, uploads: map[string]*memoryUpload{}}
}

func missing(what string) error { return fault.New(fault.NotFound, "there is no %s", what) }

// repo returns a repository, an empty one where there is none. mu is held.
func (m *memory) repo(name string) *memoryRepo {
	r := m.repos[name]
	if r == nil {
		r = &memoryRepo{map[digest.Digest][]byte{}, map[digest.Digest]*storage.Manifest{}, map[string]storage.Tag{}}
	}
	return r
}

func (m *memory) CreateUpload(_ context.Context, repo string, _ digest.Algorithm) (storage.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing != nil {
		return nil, m.failing
	}
	m.ids++
	u := &memoryUpload{m: m, repo: repo, id: "upload-" + strconv.Itoa(m.ids), open: true}
	m.uploads[u.id] = u
	return u, nil
}

func (m *memory) OpenUpload(_ context.Context, repo, id string) (storage.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.uploads[id]
	switch {
	case u == nil || u.repo != repo:
		return nil, missing("upload " + id)
	case u.open:
		return nil, fault.New(fault.Conflict, "the upload is open")
	}
	u.open = true
	return u, nil
}

type memoryUpload struct {
	m        *memory
	repo, id string
	data     []byte
	open     bool
}

func (u *memoryUpload) ID() string  { return u.id }
func (u *memoryUpload) Size() int64 { return int64(len(u.data)) }

func (u *memoryUpload) Append(_ context.Context, r io.Reader) (int64, error) {
	data, err := io.ReadAll(r)
	u.data = append(u.data, data...)
	return int64(len(data)), err
}

func (u *memoryUpload) Commit(_ context.Context, d digest.Digest) error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	if u.m.failing != nil {
		return u.m.failing
	}
	delete(u.m.uploads, u.id)
	if got := d.Algorithm().FromBytes(u.data); got != d {
		return fault.New(fault.Invalid, "the bytes have the digest %s", got)
	}
	r := u.m.repo(u.repo)
	u.m.repos[u.repo] = r
	r.blobs[d] = u.data
	return nil
}

func (u *memoryUpload) Cancel(context.Context) error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	delete(u.m.uploads, u.id)
	return nil
}

func (u *memoryUpload) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	u.open = false
	return nil
}

type memoryContent struct{ *bytes.Reader }

func (memoryContent) Close() error { return nil }

func (m *memory) Blob(_ context.Context, repo string, d digest.Digest) (*storage.Blob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing != nil {
		return nil, m.failing
	}
	data, ok := m.repo(repo).blobs[d]
	if !ok {
		return nil, missing("blob " + string(d))
	}
	return &storage.Blob{Content: memoryContent{bytes.NewReader(data)}, Size: int64(len(data))}, nil
}

func (m *memory) Mount(_ context.Context, repo, from string, d digest.Digest) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.repo(from).blobs[d]
	if !ok {
		return 0, missing("blob " + string(d))
	}
	r := m.repo(repo)
	m.repos[repo] = r
	r.blobs[d] = data
	return int64(len(data)), nil
}

func (m *memory) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.repo(repo)
	if _, ok := r.blobs[d]; !ok {
		return missing("blob " + string(d))
	}
	for _, one := range r.manifests {
		if slices.ContainsFunc(one.Blobs, func(b ocispec.Descriptor) bool { return b.Digest == d }) {
			return fault.New(fault.Conflict, "a manifest names the blob %s", d)
		}
	}
	delete(r.blobs, d)
	return nil
}

func (m *memory) PutManifest(_ context.Context, repo string, one storage.Manifest, tags ...storage.NewTag) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.repo(repo)
	var lacks []digest.Digest
	for _, b := range one.Blobs {
		if _, ok := r.blobs[b.Digest]; !ok {
			lacks = append(lacks, b.Digest)
		}
	}
	if lacks != nil {
		return &storage.MissingError{Digests: lacks}
	}
	for _, tag := range tags {
		if old, ok := r.tags[tag.Name]; ok && tag.Immutable && old.Target.Digest != one.Descriptor.Digest {
			return fault.New(fault.Conflict, "the tag %s is immutable", tag.Name)
		}
	}
	m.repos[repo] = r
	r.manifests[one.Descriptor.Digest] = &one
	for _, tag := range tags {
		r.tags[tag.Name] = storage.Tag{Name: tag.Name, Target: one.Descriptor, Updated: time.Now()}
	}
	return nil
}

func (m *memory) Manifest(_ context.Context, repo string, d digest.Digest) (*storage.Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.repo(repo).manifests[d]; one != nil {
		return one, nil
	}
	return nil, missing("manifest " + string(d))
}

func (m *memory) Tag(_ context.Context, repo, name string) (storage.Tag, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing != nil {
		return storage.Tag{}, m.failing
	}
	tag, ok := m.repo(repo).tags[name]
	if !ok {
		return tag, missing("tag " + name)
	}
	return tag, nil
}

func (m *memory) DeleteManifest(_ context.Context, repo string, d digest.Digest, fixed func(string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.repo(repo)
	if r.manifests[d] == nil {
		return missing("manifest " + string(d))
	}
	for name, tag := range r.tags {
		if tag.Target.Digest == d && fixed != nil && fixed(name) {
			return storage.Fixed(repo, name)
		}
	}
	delete(r.manifests, d)
	for name, tag := range r.tags {
		if tag.Target.Digest == d {
			delete(r.tags, name)
		}
	}
	return nil
}

func (m *memory) KeepManifest(ctx context.Context, repo string, d digest.Digest) error {
	_, err := m.Manifest(ctx, repo, d)
	return err
}

func (m *memory) DeleteTag(_ context.Context, repo, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.repo(repo).tags[name]; !ok {
		return missing("tag " + name)
	}
	delete(m.repo(repo).tags, name)
	return nil
}

func (m *memory) ExpireManifest(ctx context.Context, repo string, d digest.Digest, _ time.Time, _ time.Duration) error {
	return m.DeleteManifest(ctx, repo, d, nil)
}

func (m *memory) ExpireTag(ctx context.Context, repo string, read storage.Tag) error {
	return m.DeleteTag(ctx, repo, read.Name)
}

func after[V any](all map[string]V, last string, n int) []string {
	var names []string
	for name := range all {
		if name > last {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	if n >= 0 && len(names) > n {
		names = names[:n]
	}
	return names
}

func (m *memory) Repositories(_ context.Context, last string, n int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return after(m.repos, last, n), nil
}

func (m *memory) Tags(_ context.Context, repo, last string, n int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.repos[repo] == nil {
		return nil, missing("repository " + repo)
	}
	return after(m.repos[repo].tags, last, n), nil
}

func (m *memory) Manifests(_ context.Context, repo string, last digest.Digest, n int) ([]digest.Digest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]bool{}
	for d := range m.repo(repo).manifests {
		all[string(d)] = true
	}
	var list []digest.Digest
	for _, d := range after(all, string(last), n) {
		list = append(list, digest.Digest(d))
	}
	return list, nil
}

func (m *memory) Referrers(_ context.Context, repo string, d, last digest.Digest, n int) ([]ocispec.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]bool{}
	for _, one := range m.repo(repo).manifests {
		if one.Subject == d {
			all[string(one.Descriptor.Digest)] = true
		}
	}
	var list []ocispec.Descriptor
	for _, one := range after(all, string(last), n) {
		list = append(list, m.repo(repo).manifests[digest.Digest(one)].Descriptor)
	}
	return list, nil
}

func (m *memory) Usage(_ context.Context, repo string) (sum int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, data := range m.repo(repo).blobs {
		sum += int64(len(data))
	}
	for _, one := range m.repo(repo).manifests {
		sum += int64(len(one.Data))
	}
	return sum, nil
}

func (m *memory) Collect(context.Context, time.Duration) (storage.Collected, error) {
	return storage.Collected{}, nil
}
func (m *memory) Ready(context.Context) error { return m.failing }
func (m *memory) Close() error                { return nil }
