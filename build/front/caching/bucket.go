package caching

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build/cacheio"
	"github.com/tarehq/tare/fault"
)

// shop is a place that has objects by their names.
type shop interface {
	// get opens an object; fault.NotFound if there is none.
	get(ctx context.Context, name string) (io.ReadCloser, error)
	// has tells when an object was written, the zero time for none.
	has(ctx context.Context, name string) (time.Time, error)
	put(ctx context.Context, name string, r io.Reader, size int64) error
	// touch has an object be as new as one that is written now.
	touch(ctx context.Context, name string) error
}

// store is a cache in a shop, as BuildKit has it:
//
//	<prefix>blobs/<digest>    a layer
//	<prefix>manifests/<name>  the config of the cache
type store struct {
	shop
	title            string
	blobs, manifests string   // prefixes
	names            []string // of manifests; the first is read, all are written
	fresh            time.Duration
}

// storeOf reads where a cache of a kind lies that has objects.
func storeOf(kind string, attrs map[string]string) (*store, error) {
	s := &store{blobs: attrs["prefix"] + orElse(attrs["blobs_prefix"], "blobs/"), manifests: attrs["prefix"] + orElse(attrs["manifests_prefix"], "manifests/"), names: []string{"buildkit"}, fresh: 24 * time.Hour}
	if names := attrs["name"]; names != "" {
		s.names = strings.Split(names, ";")
	}
	if d, err := time.ParseDuration(attrs["touch_refresh"]); err == nil {
		s.fresh = d
	}
	if kind == "azblob" { // which has paths, and S3 has names
		prefix := orElse(attrs["prefix"], os.Getenv("BUILDKIT_AZURE_STORAGE_PREFIX"))
		s.blobs, s.manifests = path.Join(prefix, orElse(attrs["blobs_prefix"], "blobs"))+"/", path.Join(prefix, orElse(attrs["manifests_prefix"], "manifests"))+"/"
		a, err := azureOf(attrs)
		if err != nil {
			return nil, err
		}
		s.shop, s.title = a, kind+":"+a.container+"/"+s.manifests+s.names[0]
		return s, nil
	}
	b, err := bucketOf(attrs)
	if err != nil {
		return nil, err
	}
	s.shop, s.title = b, kind+":"+b.name+"/"+s.manifests+s.names[0]
	return s, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (s *store) blob(d digest.Digest) string { return s.blobs + d.String() }

// read reads what the cache has. Where there is none, it is an empty one.
func (s *store) read(ctx context.Context) (*cacheio.Cache, error) {
	r, err := s.get(ctx, s.manifests+s.names[0])
	if fault.KindOf(err) == fault.NotFound {
		return cacheio.ReadConfig([]byte("{}"))
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, cacheio.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	return cacheio.ReadConfig(text)
}

// write writes a cache: blobs that are there stay, and what names them comes last.
func (s *store) write(ctx context.Context, config []byte, blobs []ocispec.Descriptor, open func(ocispec.Descriptor) (io.ReadCloser, error), tell func(name string) (end func())) error {
	for _, d := range blobs {
		when, err := s.has(ctx, s.blob(d.Digest))
		switch {
		case err != nil:
			return err
		case when.IsZero():
			if err := s.send(ctx, d, open, tell); err != nil {
				return err
			}
		case time.Since(when) > s.fresh: // or a rule of the bucket's takes it away
			if err := s.touch(ctx, s.blob(d.Digest)); err != nil {
				return err
			}
		}
	}
	for _, name := range s.names {
		if err := s.put(ctx, s.manifests+name, bytes.NewReader(config), int64(len(config))); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) send(ctx context.Context, d ocispec.Descriptor, open func(ocispec.Descriptor) (io.ReadCloser, error), tell func(name string) (end func())) error {
	defer tell("writing layer " + d.Digest.String())()
	r, err := open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.put(ctx, s.blob(d.Digest), r, d.Size)
}

// bucket is a shop behind S3's interface.
type bucket struct {
	client *minio.Client
	name   string
}

// bucketOf reads what names a bucket, by the options or the builder's environment.
func bucketOf(attrs map[string]string) (*bucket, error) {
	said := func(key, variable string) (string, error) {
		if v := orElse(attrs[key], os.Getenv(variable)); v != "" {
			return v, nil
		}
		return "", fault.New(fault.Invalid, "%s ($%s) not set for s3 cache", key, variable)
	}
	name, err := said("bucket", "AWS_BUCKET")
	if err != nil {
		return nil, err
	}
	region, err := said("region", "AWS_REGION")
	if err != nil {
		return nil, err
	}
	o := &minio.Options{Region: region, Secure: true, Creds: credentials.NewStaticV4(attrs["access_key_id"], attrs["secret_access_key"], attrs["session_token"])}
	if attrs["access_key_id"] == "" {
		o.Creds = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}})
	}
	if path, _ := strconv.ParseBool(attrs["use_path_style"]); path {
		o.BucketLookup = minio.BucketLookupPath
	}
	host := "s3." + region + ".amazonaws.com"
	if endpoint := attrs["endpoint_url"]; endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return nil, fault.New(fault.Invalid, "endpoint_url=%s is no address of a server: say https://HOST", endpoint)
		}
		host, o.Secure = u.Host, u.Scheme != "http"
	}
	b := &bucket{name: name}
	b.client, err = minio.New(host, o)
	return b, err
}

// failed puts an error of the server's into words.
func (b *bucket) failed(what, name string, err error) error {
	answer := minio.ToErrorResponse(err)
	kind := fault.Unavailable
	if answer.StatusCode == 404 && answer.Code != minio.NoSuchBucket {
		kind = fault.NotFound
	}
	return fault.New(kind, "cannot %s %s of the bucket %s: %w", what, name, b.name, err)
}

func (b *bucket) get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, _, _, err := (&minio.Core{Client: b.client}).GetObject(ctx, b.name, name, minio.GetObjectOptions{})
	if err != nil {
		return nil, b.failed("read", name, err)
	}
	return r, nil
}

func (b *bucket) has(ctx context.Context, name string) (time.Time, error) {
	o, err := b.client.StatObject(ctx, b.name, name, minio.StatObjectOptions{})
	if err == nil {
		return o.LastModified, nil
	}
	if err = b.failed("look for", name, err); fault.KindOf(err) == fault.NotFound {
		return time.Time{}, nil
	}
	return time.Time{}, err
}

func (b *bucket) put(ctx context.Context, name string, r io.Reader, size int64) error {
	if _, err := b.client.PutObject(ctx, b.name, name, r, size, minio.PutObjectOptions{}); err != nil {
		return b.failed("write", name, err)
	}
	return nil
}

func (b *bucket) touch(ctx context.Context, name string) error {
	to := minio.CopyDestOptions{Bucket: b.name, Object: name, ReplaceMetadata: true, UserMetadata: map[string]string{"touched": strconv.FormatInt(time.Now().Unix(), 10)}}
	if _, err := b.client.CopyObject(ctx, to, minio.CopySrcOptions{Bucket: b.name, Object: name}); err != nil {
		return b.failed("renew", name, err)
	}
	return nil
}
