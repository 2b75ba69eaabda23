package bucket

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/s3"
)

var prefixes atomic.Int64

// configFor is an empty registry in the server's bucket.
func configFor(t *testing.T, server *s3.Server) Config {
	return Config{Endpoint: server.Host, Bucket: "registry", Prefix: fmt.Sprint("a prefix/", prefixes.Add(1)), Region: "us-east-1",
		AccessKey: s3.AccessKey, SecretKey: s3.SecretKey, Insecure: true, PathStyle: true, Spool: t.TempDir()}
}

func openAt(t testing.TB, c Config, through func(http.RoundTripper) http.RoundTripper) *Storage {
	t.Helper()
	base, err := c.transport()
	if err != nil {
		t.Fatal(err)
	}
	if through != nil {
		base = through(base)
	}
	s, err := open(t.Context(), c, base)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type maker struct{ server *s3.Server }

func (m maker) Open(t *testing.T) storage.Storage { return openAt(t, configFor(t, m.server), nil) }

func (m maker) Reopen(t *testing.T, s storage.Storage) storage.Storage {
	return openAt(t, s.(*Storage).config, nil)
}

func TestContract(t *testing.T) {
	storagetest.Run(t, maker{s3.Start(t, "registry")})
}
