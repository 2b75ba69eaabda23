package dir

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// What registry.db holds; digests are text:
//
//	meta/format                          {"version":1}
//	meta/index                           which index.json files are ours; see index.go
//	meta/foreign                         descriptors of index.json that are no repository's
//	bytes/<digest>                       size, number of repositories that have it as blob or manifest
//	repositories/<name>/usage            bytes of its blobs and manifests
//	                   /blobs/<digest>   size, number of its manifests that name it
//	                   /manifests/<digest>  what was read in it, JSON
//	                   /tags/<tag>       time, digest
//	                   /referrers/<subject> <digest>
//
// A repository whose last blob and manifest go goes too. The repository named
// "" holds what foreign descriptors lead to.
var (
	bucketMeta      = []byte("meta")
	bucketBytes     = []byte("bytes")
	bucketRepos     = []byte("repositories")
	bucketBlobs     = []byte("blobs")
	bucketManifests = []byte("manifests")
	bucketTags      = []byte("tags")
	bucketReferrers = []byte("referrers")
	keyFormat       = []byte("format")
	keyIndex        = []byte("index")
	keyForeign      = []byte("foreign")
	keyUsage        = []byte("usage")
)

// repository is one as a transaction sees it.
type repository struct {
	tx   *bbolt.Tx
	name string
	all  *bbolt.Bucket
}

func (r repository) blobs() *bbolt.Bucket     { return r.all.Bucket(bucketBlobs) }
func (r repository) manifests() *bbolt.Bucket { return r.all.Bucket(bucketManifests) }
func (r repository) tags() *bbolt.Bucket      { return r.all.Bucket(bucketTags) }
func (r repository) referrers() *bbolt.Bucket { return r.all.Bucket(bucketReferrers) }

// repoKey is the name of a repository's bucket, whose key cannot be empty.
func repoKey(name string) []byte { return append([]byte{'/'}, name...) }

// lookRepo finds the repository, fault.NotFound when it has nothing.
func lookRepo(tx *bbolt.Tx, name string) (repository, error) {
	b := tx.Bucket(bucketRepos).Bucket(repoKey(name))
	if b == nil {
		return repository{}, fault.New(fault.NotFound, "there is no repository %s: push to it first", name)
	}
	return repository{tx, name, b}, nil
}

// makeRepo finds the repository or makes it.
func makeRepo(tx *bbolt.Tx, name string) (repository, error) {
	if r, err := lookRepo(tx, name); err == nil {
		return r, nil
	}
	b, err := tx.Bucket(bucketRepos).CreateBucket(repoKey(name))
	if err != nil {
		return repository{}, broken{err}
	}
	for _, key := range [][]byte{bucketBlobs, bucketManifests, bucketTags, bucketReferrers} {
		if _, err := b.CreateBucket(key); err != nil {
			return repository{}, broken{err}
		}
	}
	return lookRepo(tx, name)
}

// prune removes the repository if nothing is left in it.
func (r repository) prune() error {
	if k, _ := r.blobs().Cursor().First(); k != nil {
		return nil
	}
	if k, _ := r.manifests().Cursor().First(); k != nil {
		return nil
	}
	return breaks(r.tx.Bucket(bucketRepos).DeleteBucket(repoKey(r.name)))
}

// breaks marks an error of the database itself.
func breaks(err error) error {
	if err != nil {
		return broken{err}
	}
	return nil
}

// counted is a size and how many things count on it.
type counted struct {
	size  int64
	users uint32
}

func (c counted) put(b *bbolt.Bucket, key []byte) error {
	return breaks(b.Put(key, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(c.size)), c.users)))
}

func readCounted(v []byte) (c counted, ok bool) {
	if len(v) != 12 {
		return c, false
	}
	return counted{int64(binary.BigEndian.Uint64(v)), binary.BigEndian.Uint32(v[8:])}, true
}

// lost is the size of a blob that manifests name and that is not there any more.
const lost = -1

// blob finds a blob that the repository has.
func (r repository) blob(d digest.Digest) (counted, bool) {
	c, ok := readCounted(r.blobs().Get([]byte(d)))
	return c, ok && c.size != lost
}

// usage is the bytes of all that the repository has.
func (r repository) usage() int64 {
	if v := r.all.Get(keyUsage); len(v) == 8 {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// has tells whether the bytes are the repository's, as a blob or a manifest.
func (r repository) has(key []byte) bool {
	_, ok := r.blob(digest.Digest(key))
	return ok || r.manifests().Get(key) != nil
}

// gain counts bytes that the repository has not had, before their record is
// made; lose, after the last record of them has gone.
func (r repository) gain(key []byte, size int64) error {
	if r.has(key) {
		return nil
	}
	return r.count(key, size, 1)
}

func (r repository) lose(key []byte, size int64) error {
	if r.has(key) {
		return nil
	}
	return r.count(key, -size, -1)
}

func (r repository) count(key []byte, size int64, users int) error {
	all := r.tx.Bucket(bucketBytes)
	c, _ := readCounted(all.Get(key))
	c.size, c.users = max(c.size, size), uint32(int(c.users)+users)
	if err := c.put(all, key); err != nil {
		return err
	}
	return breaks(r.all.Put(keyUsage, binary.BigEndian.AppendUint64(nil, uint64(r.usage()+size))))
}

// link gives the repository the blob.
func (r repository) link(d digest.Digest, size int64) error {
	key := []byte(d)
	c, ok := readCounted(r.blobs().Get(key))
	if ok && c.size != lost {
		return nil
	}
	if err := r.gain(key, size); err != nil {
		return err
	}
	c.size = size
	return c.put(r.blobs(), key)
}

// unlink takes the blob from the repository. Manifests may go on naming it.
func (r repository) unlink(d digest.Digest) error {
	key := []byte(d)
	c, ok := r.blob(d)
	if !ok {
		return nil
	}
	size := c.size
	if c.size = lost; c.users > 0 {
		if err := c.put(r.blobs(), key); err != nil {
			return err
		}
	} else if err := breaks(r.blobs().Delete(key)); err != nil {
		return err
	}
	return r.lose(key, size)
}

// record is what is kept of a manifest: storage.Manifest without its bytes.
type record struct {
	Descriptor ocispec.Descriptor
	Blobs      []ocispec.Descriptor `json:",omitempty"`
	Manifests  []ocispec.Descriptor `json:",omitempty"`
	Subject    digest.Digest        `json:",omitempty"`
	Updated    time.Time            `json:",omitzero"`
}

func newRecord(m storage.Manifest) record {
	return record{Descriptor: m.Descriptor, Blobs: m.Blobs, Manifests: m.Manifests, Subject: m.Subject, Updated: time.Now()}.trim()
}

// trim leaves out what nobody asks a registry for.
func (r record) trim() record {
	blobs, manifests := r.Blobs, r.Manifests
	r.Blobs, r.Manifests = nil, nil
	for _, d := range blobs {
		r.Blobs = append(r.Blobs, bare(d))
	}
	for _, d := range manifests {
		m := bare(d)
		m.Platform, m.ArtifactType = d.Platform, d.ArtifactType
		r.Manifests = append(r.Manifests, m)
	}
	return r
}

func (r record) manifest(data []byte) *storage.Manifest {
	return &storage.Manifest{Descriptor: r.Descriptor, Data: data, Blobs: r.Blobs, Manifests: r.Manifests, Subject: r.Subject, Updated: r.Updated}
}

// names lists the blobs of the manifest, each once.
func (r record) names() []digest.Digest {
	seen, list := make(map[digest.Digest]bool, len(r.Blobs)), make([]digest.Digest, 0, len(r.Blobs))
	for _, b := range r.Blobs {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			list = append(list, b.Digest)
		}
	}
	return list
}

func (r repository) manifest(d digest.Digest) (rec record, ok bool, err error) {
	v := r.manifests().Get([]byte(d))
	if v == nil {
		return rec, false, nil
	}
	return rec, true, breaks(json.Unmarshal(v, &rec))
}

func referrerKey(subject, d digest.Digest) []byte { return []byte(string(subject) + " " + string(d)) }

// addManifest stores the record, whose blobs are all there.
func (r repository) addManifest(rec record) error {
	d := rec.Descriptor.Digest
	if _, err := r.dropManifest(d); err != nil {
		return err
	}
	if err := r.gain([]byte(d), rec.Descriptor.Size); err != nil {
		return err
	}
	for _, b := range rec.names() {
		if c, ok := r.blob(b); ok {
			c.users++
			if err := c.put(r.blobs(), []byte(b)); err != nil {
				return err
			}
		}
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return broken{err}
	}
	if rec.Subject != "" {
		if err := breaks(r.referrers().Put(referrerKey(rec.Subject, d), nil)); err != nil {
			return err
		}
	}
	return breaks(r.manifests().Put([]byte(d), data))
}

// renew has the manifests that an index names be put when it was.
func (r repository) renew(index record) error {
	for _, m := range index.Manifests {
		rec, ok, err := r.manifest(m.Digest)
		if err != nil {
			return err
		}
		if !ok || rec.Updated.Equal(index.Updated) {
			continue
		}
		rec.Updated = index.Updated
		data, err := json.Marshal(rec)
		if err != nil {
			return broken{err}
		}
		if err := breaks(r.manifests().Put([]byte(m.Digest), data)); err != nil {
			return err
		}
	}
	return nil
}

// dropManifest removes the record, and returns the blobs that nothing names any
// longer.
func (r repository) dropManifest(d digest.Digest) (free []digest.Digest, err error) {
	rec, ok, err := r.manifest(d)
	if err != nil || !ok {
		return nil, err
	}
	for _, b := range rec.names() {
		c, ok := readCounted(r.blobs().Get([]byte(b)))
		if !ok || c.users == 0 {
			continue
		}
		c.users--
		if c.users == 0 && c.size == lost {
			err = breaks(r.blobs().Delete([]byte(b)))
		} else {
			err = c.put(r.blobs(), []byte(b))
		}
		if err != nil {
			return nil, err
		}
		if c.users == 0 {
			free = append(free, b)
		}
	}
	if rec.Subject != "" {
		if err := breaks(r.referrers().Delete(referrerKey(rec.Subject, d))); err != nil {
			return nil, err
		}
	}
	if err := breaks(r.manifests().Delete([]byte(d))); err != nil {
		return nil, err
	}
	return free, r.lose([]byte(d), rec.Descriptor.Size)
}

// tagged is what a tag points to.
type tagged struct {
	digest  digest.Digest
	updated time.Time
	// foreign is the descriptor that index.json had for it when it came from there,
	// as JSON: other programs may have said more in it.
	foreign []byte
}

func (t tagged) bytes() []byte {
	v := append(binary.BigEndian.AppendUint64(nil, uint64(t.updated.UnixNano())), t.digest...)
	if t.foreign != nil {
		v = append(append(v, '\n'), t.foreign...)
	}
	return v
}

func readTag(v []byte) (t tagged, ok bool) {
	if len(v) < 8 {
		return t, false
	}
	d, foreign, _ := bytes.Cut(v[8:], []byte{'\n'})
	return tagged{digest.Digest(d), time.Unix(0, int64(binary.BigEndian.Uint64(v))), foreign}, true
}

func (r repository) tag(name string) (tagged, bool) { return readTag(r.tags().Get([]byte(name))) }

func (r repository) setTag(name string, t tagged) error {
	return breaks(r.tags().Put([]byte(name), t.bytes()))
}

// target is the descriptor that index.json has for the tag.
func (r repository) target(t tagged) (d ocispec.Descriptor, ok bool, err error) {
	if t.foreign != nil {
		return d, true, breaks(json.Unmarshal(t.foreign, &d))
	}
	rec, ok, err := r.manifest(t.digest)
	return bare(rec.Descriptor), ok, err
}

// page gives at most n keys of the bucket (all for n < 0), from the first after
// last on.
func page(b *bbolt.Bucket, last string, n int, visit func(key []byte) error) error {
	c := b.Cursor()
	k, _ := c.Seek([]byte(last))
	if last != "" && bytes.Equal(k, []byte(last)) {
		k, _ = c.Next()
	}
	for ; k != nil && n != 0; k, _ = c.Next() {
		if err := visit(k); err != nil {
			return err
		}
		n--
	}
	return nil
}
