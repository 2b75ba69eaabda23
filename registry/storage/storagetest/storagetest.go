// Package storagetest is the contract that every storage of a registry is held to.
package storagetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// Maker gives the storages of one test.
type Maker interface {
	// Open opens an empty storage, which the test closes.
	Open(t *testing.T) storage.Storage
	// Reopen opens what is left of the storage when its process ended without
	// closing it. Nobody uses that one any more.
	Reopen(t *testing.T, s storage.Storage) storage.Storage
}

// Run holds the storages that m makes to the contract.
func Run(t *testing.T, m Maker) {
	for name, test := range map[string]func(*testing.T, Maker){
		"blobs":      blobs,
		"uploads":    uploads,
		"mounts":     mounts,
		"manifests":  manifests,
		"growing":    growing,
		"tags":       tags,
		"lists":      lists,
		"referrers":  referrers,
		"usage":      usage,
		"collecting": collecting,
		"grace":      grace,
		"restart":    restart,
		"expiring":   expiring,
		"expired":    expireAndPut,
		"kept":       keptManifest,
		"large":      largeManifest,
		"fixed":      fixedTags,
		"fixing":     fixing,
		"racing":     racing,
		"sharing":    sharing,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}

func open(t *testing.T, m Maker) storage.Storage {
	t.Helper()
	s := m.Open(t)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is checks that the error is of the kind.
func is(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v instead of an error of the kind %v", err, kind)
	}
}

func same(t testing.TB, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not as wanted (-want +got):\n%s", diff)
	}
}

// Bytes gives n bytes that look random, the same for the same seed.
func Bytes(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 7})
	r.Read(data)
	return data
}

// Push gives the repository the blob.
func Push(t testing.TB, s storage.Storage, repo string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := digest.FromBytes(data)
	ok(t, Upload(t, s, repo, d, data))
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(data))}
}

// Upload uploads the data as the digest.
func Upload(t testing.TB, s storage.Storage, repo string, d digest.Digest, data []byte) error {
	t.Helper()
	u, err := s.CreateUpload(t.Context(), repo, d.Algorithm())
	ok(t, err)
	defer u.Close()
	n, err := u.Append(t.Context(), bytes.NewReader(data))
	ok(t, err)
	if n != int64(len(data)) || u.Size() != n {
		t.Errorf("%d of %d bytes were taken, the size is %d", n, len(data), u.Size())
	}
	return u.Commit(t.Context(), d)
}

// Read reads the blob.
func Read(t testing.TB, s storage.Storage, repo string, d digest.Digest) []byte {
	t.Helper()
	b, err := s.Blob(t.Context(), repo, d)
	ok(t, err)
	defer b.Content.Close()
	data, err := io.ReadAll(b.Content)
	ok(t, err)
	if b.Size != int64(len(data)) || d.Algorithm().FromBytes(data) != d {
		t.Errorf("blob %s of the size %d has %d bytes of the digest %s", d, b.Size, len(data), d.Algorithm().FromBytes(data))
	}
	return data
}

// Image makes the manifest of an image over the blobs, the first of which is its
// config.
func Image(blobs ...ocispec.Descriptor) storage.Manifest {
	return manifestOf(ocispec.Manifest{Config: blobs[0], Layers: blobs[1:]}, "")
}

// Artifact makes a manifest with a subject.
func Artifact(subject ocispec.Descriptor, kind string, config ocispec.Descriptor) storage.Manifest {
	m := manifestOf(ocispec.Manifest{ArtifactType: kind, Config: config, Layers: []ocispec.Descriptor{config}, Subject: &subject,
		Annotations: map[string]string{"org.example.kind": kind}}, subject.Digest)
	m.Descriptor.ArtifactType, m.Descriptor.Annotations = kind, map[string]string{"org.example.kind": kind}
	return m
}

func manifestOf(doc ocispec.Manifest, subject digest.Digest) storage.Manifest {
	doc.Versioned, doc.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	data, _ := json.Marshal(doc)
	return storage.Manifest{Descriptor: describe(ocispec.MediaTypeImageManifest, data), Data: data,
		Blobs: append([]ocispec.Descriptor{doc.Config}, doc.Layers...), Subject: subject}
}

// Index makes an index of the manifests.
func Index(list ...ocispec.Descriptor) storage.Manifest {
	data, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
	return storage.Manifest{Descriptor: describe(ocispec.MediaTypeImageIndex, data), Data: data, Manifests: list}
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// PushImage pushes an image of a config and two layers, with the tags.
func PushImage(t testing.TB, s storage.Storage, repo string, seed uint64, tags ...string) storage.Manifest {
	t.Helper()
	m := Image(Push(t, s, repo, Bytes(seed, 300)), Push(t, s, repo, Bytes(seed+1, 70_000)), Push(t, s, repo, Bytes(seed+2, 5000)))
	var list []storage.NewTag
	for _, name := range tags {
		list = append(list, storage.NewTag{Name: name})
	}
	ok(t, s.PutManifest(t.Context(), repo, m, list...))
	return m
}

// Whole reads all of an image.
func Whole(t testing.TB, s storage.Storage, repo string, d digest.Digest) {
	t.Helper()
	m, err := s.Manifest(t.Context(), repo, d)
	if err != nil {
		t.Errorf("manifest %s: %v", d, err)
		return
	}
	if digest.FromBytes(m.Data) != d && d.Algorithm() == digest.SHA256 {
		t.Errorf("manifest %s is damaged", d)
	}
	for _, b := range m.Blobs {
		Read(t, s, repo, b.Digest)
	}
}
