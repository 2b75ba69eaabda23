package bucket

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/registry/storage"
)

// Config says where the bucket is.
type Config struct {
	Endpoint string // host or host:port
	Bucket   string
	Prefix   string // of all keys; "" for none
	Region   string // "" asks the server
	// AccessKey and SecretKey are the credentials. Without them they come from the
	// environment (AWS_ACCESS_KEY_ID…), ~/.aws/credentials, or the machine's role.
	AccessKey, SecretKey string
	Insecure             bool   // plain HTTP
	CA                   string // a file with certificates in PEM that are trusted besides the system's
	PathStyle            bool   // endpoint/bucket/key rather than bucket.endpoint/key
	Create               bool   // the bucket if there is none
	// Grace is the shortest with which a registry of this bucket collects; a day for 0.
	Grace time.Duration
	// Spool is a directory for what an upload received since its last part, at
	// most twice partSize for each; "" is the system's for temporary files. One in
	// memory would cost what the spool is to save.
	Spool string
}

// Storage keeps repositories in a bucket.
type Storage struct {
	config Config
	core   minio.Core
	line   *line
	grace  time.Duration

	manifests *cache[*storedManifest] // by key
	tags      *cache[storedTag]       // by key
	places    *cache[place]           // by the key of the repository's blob
	pushing   keylock.Locks[digest.Digest]
	reading   keylock.Locks[string] // keys of large manifests that are being read

	// senders is filled by those that send bytes of blobs: a request has buffers,
	// what waits in a spool has none.
	senders chan struct{}

	mu   sync.Mutex
	open map[string]bool // uploads that somebody has here

	asked        sync.Mutex
	deletesMatch *bool // the server has a conditional DELETE; nil before it was asked
}

var _ storage.Storage = (*Storage)(nil)

// Open opens the storage in the bucket, an empty one if there is none yet.
func Open(ctx context.Context, c Config) (*Storage, error) {
	base, err := c.transport()
	if err != nil {
		return nil, err
	}
	return open(ctx, c, base)
}

func open(ctx context.Context, c Config, base http.RoundTripper) (*Storage, error) {
	if c.Endpoint == "" || c.Bucket == "" {
		return nil, fault.New(fault.Invalid, "a bucket needs an endpoint and a name")
	}
	c.Prefix = strings.Trim(path.Clean("/"+c.Prefix), "/")
	s := &Storage{
		config: c, line: &line{base: base}, grace: cmp.Or(c.Grace, 24*time.Hour),
		manifests: newCache[*storedManifest](32 << 20), tags: newCache[storedTag](1 << 20), places: newCache[place](4 << 20),
		open: map[string]bool{}, senders: make(chan struct{}, 8),
	}
	lookup := minio.BucketLookupAuto
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(c.Endpoint, &minio.Options{
		Creds: c.credentials(), Secure: !c.Insecure, Region: c.Region, BucketLookup: lookup, Transport: s.line, MaxRetries: 3,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "the bucket's endpoint %q: %w", c.Endpoint, err)
	}
	s.core = *client
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (c Config) credentials() *credentials.Credentials {
	if c.AccessKey != "" {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	})
}

func (c Config) transport() (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true, // the bytes are those of the object
	}
	if c.CA == "" {
		return t, nil
	}
	data, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the certificates of the bucket's authority: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fault.New(fault.Invalid, "%s has no certificate in PEM", c.CA)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return t, nil
}

// begin makes the format object, and has the server show that it knows
// conditional writes: without them two registries would overwrite each other's work.
func (s *Storage) begin(ctx context.Context) error {
	_, err := s.swap(ctx, s.key("format"), "", formatNow)
	if missingBucket(err) && s.config.Create {
		if err := s.core.MakeBucket(ctx, s.config.Bucket, minio.MakeBucketOptions{Region: s.config.Region}); err != nil {
			return s.fault(ctx, err)
		}
		_, err = s.swap(ctx, s.key("format"), "", formatNow)
	}
	if err != nil && !errors.Is(err, errChanged) {
		return err
	}
	format, err := s.get(ctx, s.key("format"))
	if err != nil {
		return err
	}
	if string(format.data) != string(formatNow) {
		return fault.New(fault.Unavailable, "the bucket %s holds a registry of another format, %.100q: use the version of tare-registry that wrote it, or a prefix of its own", s.config.Bucket, format.data)
	}
	for _, etag := range []string{"", "00000000000000000000000000000000"} {
		if _, err := s.swap(ctx, s.key("format"), etag, []byte(`{"version":1,"probe":true}`)); err == nil {
			_, err = s.put(ctx, s.key("format"), formatNow)
			return errors.Join(fault.New(fault.Unavailable, "the server %s ignores conditional writes (If-Match, If-None-Match), without which registries that share a bucket would overwrite each other: use another S3 server", s.config.Endpoint), err)
		} else if !errors.Is(err, errChanged) {
			return err
		}
	}
	return nil
}

var formatNow = []byte(`{"version":1}`)

// Ready tells whether the bucket can be written and read.
func (s *Storage) Ready(ctx context.Context) error {
	text := []byte(time.Now().String())
	if _, err := s.put(ctx, s.key("ready"), text); err != nil {
		return err
	}
	_, err := s.get(ctx, s.key("ready"))
	return err
}

// Close has nothing to end: all that runs is owned by a request.
func (s *Storage) Close() error {
	s.line.closeIdle()
	return nil
}

// where names the bucket in messages.
func (s *Storage) where() string {
	return fmt.Sprintf("the bucket %s at %s", s.config.Bucket, s.config.Endpoint)
}
