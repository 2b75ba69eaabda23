package image

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/internal/testutil"
)

func TestHolds(t *testing.T) {
	testutil.RequireRoot(t)
	f, _ := transfers(t, t.TempDir())
	m := f.Making()
	put := func(data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := m.Put(d, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	plain := bytes.Repeat([]byte("a layer"), 1000)
	var packed bytes.Buffer
	z, err := compression.Compress(&packed, compression.Gzip, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	diffID, other := digest.FromBytes(plain), digest.FromString("another")
	blob, half, archive := put(packed.Bytes()), put(packed.Bytes()[:packed.Len()/2]), put(plain)
	nowhere := ocispec.Descriptor{Digest: other, Size: 1}
	for range 2 { // the second time it is noted
		for _, c := range []struct {
			d    ocispec.Descriptor
			is   digest.Digest
			want bool
		}{{blob, diffID, true}, {blob, other, false}, {half, diffID, false}, {archive, diffID, true}, {nowhere, diffID, false}, {blob, "../x", false}} {
			if got, err := m.Holds(t.Context(), c.d, c.is); err != nil || got != c.want {
				t.Errorf("%s holds %s: %v %v", c.d.Digest, c.is, got, err)
			}
		}
	}
}
