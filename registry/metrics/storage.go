package metrics

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

type storageMetrics struct {
	operations, errors *prometheus.CounterVec
	seconds            *prometheus.HistogramVec

	collections, blobs, bytes prometheus.Counter
}

func newStorageMetrics() storageMetrics {
	plain := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	}
	return storageMetrics{
		operations: counter("storage_operations_total", "Operations of the storage.", "operation"),
		errors:     counter("storage_errors_total", "Operations of the storage that failed.", "operation"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "storage_seconds",
			Help: "How long operations of the storage took.", Buckets: []float64{.0001, .001, .01, .1, 1, 10, 100}}, []string{"operation"}),
		collections: plain("collections_total", "Garbage collections that ended well."),
		blobs:       plain("collected_blobs_total", "Blobs that garbage collections removed."),
		bytes:       plain("collected_bytes_total", "Bytes that garbage collections freed."),
	}
}

func (s *storageMetrics) register(all *prometheus.Registry) {
	all.MustRegister(s.operations, s.errors, s.seconds, s.collections, s.blobs, s.bytes)
}

// Storage gives a storage whose work is counted.
func (m *Metrics) Storage(s storage.Storage) storage.Storage {
	c := &counted{Storage: s, m: &m.storage}
	for i, name := range operations {
		c.of[i] = series{m.storage.operations.WithLabelValues(name), m.storage.errors.WithLabelValues(name), m.storage.seconds.WithLabelValues(name)}
	}
	return c
}

// operation is one of the storage. Those that lists are made of are not told apart.
type operation int

const (
	createUpload operation = iota
	openUpload
	appendUpload
	commitUpload
	openBlob
	mountBlob
	deleteBlob
	putManifest
	getManifest
	getTag
	deleteManifest
	deleteTag
	list
	collect
)

var operations = [...]string{
	createUpload: "create_upload", openUpload: "open_upload", appendUpload: "append", commitUpload: "commit",
	openBlob: "blob", mountBlob: "mount", deleteBlob: "delete_blob", putManifest: "put_manifest", getManifest: "manifest",
	getTag: "tag", deleteManifest: "delete_manifest", deleteTag: "delete_tag", list: "list", collect: "collect",
}

type series struct {
	count, failed prometheus.Counter
	seconds       prometheus.Observer
}

// counted is a storage with its series looked up once.
type counted struct {
	storage.Storage
	m  *storageMetrics
	of [len(operations)]series
}

// end counts an operation. It has failed where the storage has: that something
// is not there, or cannot be, is an answer.
func (c *counted) end(o operation, start time.Time, err error) {
	s := &c.of[o]
	s.count.Inc()
	s.seconds.Observe(time.Since(start).Seconds())
	if err == nil {
		return
	}
	switch kind := fault.KindOf(err); {
	case errors.Is(err, context.Canceled):
	case kind == fault.Internal || kind == fault.Unavailable:
		s.failed.Inc()
	}
}

func (c *counted) CreateUpload(ctx context.Context, repo string, a digest.Algorithm) (storage.Upload, error) {
	start := time.Now()
	u, err := c.Storage.CreateUpload(ctx, repo, a)
	c.end(createUpload, start, err)
	return c.upload(u, err)
}

func (c *counted) OpenUpload(ctx context.Context, repo, id string) (storage.Upload, error) {
	start := time.Now()
	u, err := c.Storage.OpenUpload(ctx, repo, id)
	c.end(openUpload, start, err)
	return c.upload(u, err)
}

func (c *counted) upload(u storage.Upload, err error) (storage.Upload, error) {
	if err != nil {
		return nil, err
	}
	return &countedUpload{u, c}, nil
}

type countedUpload struct {
	storage.Upload
	c *counted
}

// source tells a failure of whoever sends from one of the storage.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (u *countedUpload) Append(ctx context.Context, r io.Reader) (int64, error) {
	start, from := time.Now(), &source{Reader: r}
	n, err := u.Upload.Append(ctx, from)
	failed := err
	if from.err != nil {
		failed = nil
	}
	u.c.end(appendUpload, start, failed)
	return n, err
}

func (u *countedUpload) Commit(ctx context.Context, d digest.Digest) error {
	start := time.Now()
	err := u.Upload.Commit(ctx, d)
	u.c.end(commitUpload, start, err)
	return err
}

func (c *counted) Blob(ctx context.Context, repo string, d digest.Digest) (*storage.Blob, error) {
	start := time.Now()
	b, err := c.Storage.Blob(ctx, repo, d)
	c.end(openBlob, start, err)
	return b, err
}

func (c *counted) Mount(ctx context.Context, repo, from string, d digest.Digest) (int64, error) {
	start := time.Now()
	n, err := c.Storage.Mount(ctx, repo, from, d)
	c.end(mountBlob, start, err)
	return n, err
}

func (c *counted) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	start := time.Now()
	err := c.Storage.DeleteBlob(ctx, repo, d)
	c.end(deleteBlob, start, err)
	return err
}

func (c *counted) PutManifest(ctx context.Context, repo string, m storage.Manifest, tags ...storage.NewTag) error {
	start := time.Now()
	err := c.Storage.PutManifest(ctx, repo, m, tags...)
	c.end(putManifest, start, err)
	return err
}

func (c *counted) Manifest(ctx context.Context, repo string, d digest.Digest) (*storage.Manifest, error) {
	start := time.Now()
	m, err := c.Storage.Manifest(ctx, repo, d)
	c.end(getManifest, start, err)
	return m, err
}

func (c *counted) Tag(ctx context.Context, repo, name string) (storage.Tag, error) {
	start := time.Now()
	t, err := c.Storage.Tag(ctx, repo, name)
	c.end(getTag, start, err)
	return t, err
}

func (c *counted) DeleteManifest(ctx context.Context, repo string, d digest.Digest, fixed func(string) bool) error {
	start := time.Now()
	err := c.Storage.DeleteManifest(ctx, repo, d, fixed)
	c.end(deleteManifest, start, err)
	return err
}

func (c *counted) DeleteTag(ctx context.Context, repo, name string) error {
	start := time.Now()
	err := c.Storage.DeleteTag(ctx, repo, name)
	c.end(deleteTag, start, err)
	return err
}

func (c *counted) Repositories(ctx context.Context, last string, n int) ([]string, error) {
	start := time.Now()
	names, err := c.Storage.Repositories(ctx, last, n)
	c.end(list, start, err)
	return names, err
}

func (c *counted) Tags(ctx context.Context, repo, last string, n int) ([]string, error) {
	start := time.Now()
	names, err := c.Storage.Tags(ctx, repo, last, n)
	c.end(list, start, err)
	return names, err
}

func (c *counted) Referrers(ctx context.Context, repo string, d, last digest.Digest, n int) ([]ocispec.Descriptor, error) {
	start := time.Now()
	found, err := c.Storage.Referrers(ctx, repo, d, last, n)
	c.end(list, start, err)
	return found, err
}

func (c *counted) Collect(ctx context.Context, grace time.Duration) (storage.Collected, error) {
	start := time.Now()
	freed, err := c.Storage.Collect(ctx, grace)
	c.end(collect, start, err)
	c.m.blobs.Add(float64(freed.Blobs))
	c.m.bytes.Add(float64(freed.Bytes))
	if err == nil {
		c.m.collections.Inc()
	}
	return freed, err
}
