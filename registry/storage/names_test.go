package storage

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestValidNames(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for _, name := range []string{"a", "a/b", "a.b/c_d/e__f/g---h", "0", strings.Repeat("a", 255)} {
		if !ValidRepository(name) {
			t.Errorf("the repository %q is refused", name)
		}
	}
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a.", "a..b", "a___b", "A", "a b", "a%2fb", "a\x00", "_a", "a:b", strings.Repeat("a", 256)} {
		if ValidRepository(name) {
			t.Errorf("the repository %q is taken", name)
		}
	}
	for _, tag := range []string{"latest", "v1.0-rc_1", "_x", "A", strings.Repeat("a", 128)} {
		if !ValidTag(tag) {
			t.Errorf("the tag %q is refused", tag)
		}
	}
	for _, tag := range []string{"", ".x", "-x", "a/b", "a:b", "a b", "ä", strings.Repeat("a", 129)} {
		if ValidTag(tag) {
			t.Errorf("the tag %q is taken", tag)
		}
	}
	for _, d := range []string{"sha256:" + hex, "sha512:" + hex + hex} {
		if !ValidDigest(digest.Digest(d)) {
			t.Errorf("the digest %q is refused", d)
		}
	}
	for _, d := range []string{"", ":", "sha256:", "sha256:" + hex[1:], "sha256:" + strings.ToUpper(hex), "sha512:" + hex, "sha384:" + hex, "md5:" + hex, hex, "sha256" + hex, "sha256:" + hex + "0"} {
		if ValidDigest(digest.Digest(d)) {
			t.Errorf("the digest %q is taken", d)
		}
	}
}

// FuzzDigest: what is taken for a digest is one for its library as well.
func FuzzDigest(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("sha512:" + strings.Repeat("f", 128))
	f.Add("sha256+x:" + strings.Repeat("f", 64))
	f.Fuzz(func(t *testing.T, s string) {
		d := digest.Digest(s)
		valid := d.Validate() == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
		if ValidDigest(d) != valid {
			t.Fatalf("%q: %v, its library says %v", s, ValidDigest(d), valid)
		}
	})
}
