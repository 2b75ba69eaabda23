// Package storage says what a registry keeps and what it promises about it.
// Package dir keeps it in a directory of one machine, package bucket in an
// S3-compatible bucket that several registries share; package storagetest is
// the contract that both are held to.
//
// A blob is bytes with a digest. A repository has blobs, manifests and tags.
// The same blob in two repositories is stored once; who may read it is decided
// by repository.
//
//	Upload.Commit, Mount           the repository has the blob
//	PutManifest                    the repository has the manifest, which keeps all that it names
//	Blob, KeepManifest             what nothing keeps is not due before the grace period is over
//	DeleteManifest, DeleteTag, …   what nothing keeps any longer is due
//	Collect                        what has been due for the grace period is removed
//
// Whatever a method has acknowledged by returning nil survives the end of the
// process at any point and, as far as the disk or the bucket keeps its word,
// the loss of power; of an upload that has not come to its end, power may take the
// bytes, and it is not there any more then. A manifest is there only if all that it names was there
// when it was put, and then nothing of that is removed before the manifest is,
// whatever runs beside it.
package storage

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// Storage keeps repositories. All methods may be called at the same time.
// Names, tags and digests have been checked by the caller: they are well formed
// by the OCI distribution specification 1.1. What is not there is
// fault.NotFound; a disk that is full, or a bucket that does not answer, is
// fault.Unavailable with a sentence for whoever runs the registry.
type Storage interface {
	// CreateUpload begins a blob for the repository. Its digest will probably be
	// of the algorithm; Commit takes others, at the cost of a second reading.
	CreateUpload(ctx context.Context, repo string, algorithm digest.Algorithm) (Upload, error)
	// OpenUpload goes on with an upload, as after a request that ended early or a
	// restart. It is fault.Conflict while somebody else has it open.
	OpenUpload(ctx context.Context, repo, id string) (Upload, error)

	// Blob opens a blob of the repository. A blob that was found stays for the
	// grace period at least, even if nothing keeps it.
	Blob(ctx context.Context, repo string, d digest.Digest) (*Blob, error)
	// Mount gives the repository a blob that another one has, and tells its size.
	Mount(ctx context.Context, repo, from string, d digest.Digest) (int64, error)
	// DeleteBlob takes the blob from the repository. It is fault.Conflict while a
	// manifest of the repository names it.
	DeleteBlob(ctx context.Context, repo string, d digest.Digest) error

	// PutManifest stores a manifest and points the tags to it, all or nothing.
	// The error is a MissingError when the repository lacks what it names, and
	// fault.Conflict when an immutable tag points elsewhere. A manifest that is put
	// again keeps the Blobs that it is put with now, also those that it was put
	// without before: a copy of an image is put with those that have arrived.
	PutManifest(ctx context.Context, repo string, m Manifest, tags ...NewTag) error
	// Manifest reads a manifest by its digest. Its Data must not be changed.
	Manifest(ctx context.Context, repo string, d digest.Digest) (*Manifest, error)
	// Tag reads what the tag points to.
	Tag(ctx context.Context, repo, tag string) (Tag, error)
	// KeepManifest has a manifest that somebody was told of stay for the grace
	// period at least, as Blob does for blobs: it is for what clients rely on, such
	// as the manifests of an index that they are about to put.
	KeepManifest(ctx context.Context, repo string, d digest.Digest) error
	// DeleteManifest removes the manifest and the tags that point to it. It is
	// fault.Conflict, and nothing has gone, if one of these is fixed; nil fixes none.
	// Indexes that name the manifest stay.
	DeleteManifest(ctx context.Context, repo string, d digest.Digest, fixed func(tag string) bool) error
	DeleteTag(ctx context.Context, repo, tag string) error
	// ExpireTag deletes the tag as long as it is what was read: to point elsewhere,
	// or to have been set again, is fault.Conflict.
	ExpireTag(ctx context.Context, repo string, read Tag) error
	// ExpireManifest deletes a manifest to which no tag points, which was put at
	// the time of updated for the last time, and neither put nor kept since the grace
	// period began; else it is fault.Conflict.
	ExpireManifest(ctx context.Context, repo string, d digest.Digest, updated time.Time, grace time.Duration) error

	// Repositories lists at most n (all for n < 0) of the repositories that have
	// a manifest or a blob, in the order of their bytes, from the first after last on.
	Repositories(ctx context.Context, last string, n int) ([]string, error)
	// Tags lists tags of a repository in the same way. A repository that has
	// nothing is fault.NotFound.
	Tags(ctx context.Context, repo, last string, n int) ([]string, error)
	// Manifests lists the digests of a repository's manifests in the same way.
	Manifests(ctx context.Context, repo string, last digest.Digest, n int) ([]digest.Digest, error)
	// Referrers lists the repository's manifests whose subject is d, which need
	// not be there, in the same way. Descriptors have artifact type and annotations
	// as the specification says. There may be none.
	Referrers(ctx context.Context, repo string, d, last digest.Digest, n int) ([]ocispec.Descriptor, error)
	// Usage is the bytes of the repository's blobs and manifests, each once.
	Usage(ctx context.Context, repo string) (int64, error)

	// Collect removes what has been due for at least the grace period: blobs that
	// no manifest of their repository names, bytes that no repository has, and
	// uploads that nobody wrote to. It runs beside everything else, and two
	// collections beside each other are safe.
	Collect(ctx context.Context, grace time.Duration) (Collected, error)
	// Ready tells whether the storage can read and write now.
	Ready(ctx context.Context) error
	// Close ends what runs in the background. Nobody may use the storage any more.
	Close() error
}

// Upload is a blob on its way, for one goroutine. Its holder ends with Close,
// after which the next OpenUpload has it, unless Commit or Cancel ended the
// upload itself.
type Upload interface {
	ID() string
	// Size is how many bytes have been taken.
	Size() int64
	// Append takes the bytes of r after those that are there, and returns how
	// many of them it took; these stay even if r fails.
	Append(ctx context.Context, r io.Reader) (int64, error)
	// Commit gives the blob to the repository. Bytes that have another digest are
	// fault.Invalid, and end the upload.
	Commit(ctx context.Context, d digest.Digest) error
	// Cancel drops what was taken.
	Cancel(ctx context.Context) error
	Close() error
}

// Blob is a blob to be read from its start; its reader closes it.
type Blob struct {
	// Content is an *os.File where the bytes lie in a file, so that the kernel
	// can send them.
	Content io.ReadSeekCloser
	Size    int64
	// Location, if it is not nil, gives an address from which a client can fetch
	// the bytes itself for some minutes.
	Location func(ctx context.Context) (string, error)
}

// Manifest is a manifest or an index, and what was read in it.
type Manifest struct {
	// Descriptor has the media type that its reader is told, digest, size and,
	// for a list of referrers, artifact type and annotations.
	Descriptor ocispec.Descriptor
	Data       []byte
	// Blobs are its config and layers that the registry has to have: not those
	// that must not be distributed.
	Blobs []ocispec.Descriptor
	// Manifests are those that an index names. They need not be there: an index may
	// be pushed for fewer platforms than it has.
	Manifests []ocispec.Descriptor
	Subject   digest.Digest // "" if it has none
	// Updated is when it, or an index that names it, was last put. The storage sets
	// it, to a few seconds; the zero time is not known.
	Updated time.Time
}

// NewTag is a tag that is to point to a manifest.
type NewTag struct {
	Name string
	// Immutable refuses the tag if it points to another manifest already.
	Immutable bool
}

// Tag is a name for a manifest of the same repository.
type Tag struct {
	Name    string
	Target  ocispec.Descriptor
	Updated time.Time
	// Stale says that the repository is a copy, and that the one it is copied from,
	// which may have moved the tag, does not answer.
	Stale bool
}

// Collected is what a collection has removed.
type Collected struct {
	Blobs, Uploads int
	Bytes          int64 // of the storage
}

// MissingError lists what a manifest names and the repository lacks. It is
// fault.NotFound.
type MissingError struct{ Digests []digest.Digest }

// UpstreamError tells that what is not here could not be had from the registry
// that it would come from. It is fault.Unavailable, and its sentence is for
// clients.
type UpstreamError struct {
	Name string
	Err  error
}

func (e *UpstreamError) Error() string {
	return "the upstream " + e.Name + " has failed: " + e.Err.Error()
}

// Unwrap leaves Err out: what is invalid there is not what the client sent.
func (e *UpstreamError) Unwrap() error { return fault.Unavailable }

// Fixed is the refusal to delete what an immutable tag points to.
func Fixed(repo, tag string) error {
	return fault.New(fault.Conflict, "the tag %s of %s is immutable, so it stays with all that it points to: ask who runs the registry to change that", tag, repo)
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the manifest names %v, which the repository does not have: push it first", e.Digests)
}

func (e *MissingError) Unwrap() error { return fault.NotFound }
