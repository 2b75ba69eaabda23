package reference

import (
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
)

const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	const invalid = "invalid reference format"
	cases := []struct{ in, canonical, familiar, err string }{
		{in: "busybox", canonical: "docker.io/library/busybox:latest", familiar: "busybox:latest"},
		{in: "busybox:1.36", canonical: "docker.io/library/busybox:1.36", familiar: "busybox:1.36"},
		{in: "library/busybox", canonical: "docker.io/library/busybox:latest", familiar: "busybox:latest"},
		{in: "docker.io/busybox", canonical: "docker.io/library/busybox:latest", familiar: "busybox:latest"},
		{in: "index.docker.io/me/app", canonical: "docker.io/me/app:latest", familiar: "me/app:latest"},
		{in: "me/app:v1_2.3-x", canonical: "docker.io/me/app:v1_2.3-x", familiar: "me/app:v1_2.3-x"},
		{in: "localhost/a", canonical: "localhost/a:latest", familiar: "localhost/a:latest"},
		{in: "localhost:5000/a/b", canonical: "localhost:5000/a/b:latest", familiar: "localhost:5000/a/b:latest"},
		{in: "Local/a", canonical: "Local/a:latest", familiar: "Local/a:latest"},
		{in: "[::1]:5000/a", canonical: "[::1]:5000/a:latest", familiar: "[::1]:5000/a:latest"},
		{in: "[fe80::1]/a:t", canonical: "[fe80::1]/a:t", familiar: "[fe80::1]/a:t"},
		{in: "a.b/c", canonical: "a.b/c:latest", familiar: "a.b/c:latest"},
		{in: "busybox@" + sum, canonical: "docker.io/library/busybox@" + sum, familiar: "busybox@" + sum},
		{in: "busybox:1@" + sum, canonical: "docker.io/library/busybox:1@" + sum, familiar: "busybox:1@" + sum},
		{in: "a__b--c.d", canonical: "docker.io/library/a__b--c.d:latest", familiar: "a__b--c.d:latest"},
		{in: "sha256:abcd", canonical: "docker.io/library/sha256:abcd", familiar: "sha256:abcd"},
		{in: "", err: invalid},
		{in: " ", err: invalid},
		{in: "a b", err: invalid},
		{in: ":tag", err: invalid},
		{in: "a:", err: invalid},
		{in: "a@", err: invalid},
		{in: "a//b", err: invalid},
		{in: "/a", err: invalid},
		{in: "a/", err: invalid},
		{in: "-a", err: invalid},
		{in: "a_", err: invalid},
		{in: "a___b", err: invalid},
		{in: "a..b", err: invalid},
		{in: "a:.x", err: invalid},
		{in: "a:" + strings.Repeat("x", 129), err: invalid},
		{in: "a:b:c", err: invalid},
		{in: "a.b:port/c", err: invalid},
		{in: "-a.b/c", err: invalid},
		{in: "[]/c", err: invalid},
		{in: "https://a.b/c", err: invalid},
		{in: "a@sha256:abcd", err: invalid},
		{in: "a@md5:" + strings.Repeat("a", 32), err: "unsupported digest algorithm"},
		{in: "a@sha256:" + strings.Repeat("a", 40), err: "invalid checksum digest length"},
		{in: "Foo", err: "invalid reference format: repository name (library/Foo) must be lowercase"},
		{in: "me/Foo:x", err: "invalid reference format: repository name (me/Foo) must be lowercase"},
		{in: "a.b/Foo", err: "invalid reference format: repository name (Foo) must be lowercase"},
		{in: strings.Repeat("a", 64), err: "invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings"},
		{in: "a.b/" + strings.Repeat("x", 256), err: "repository name must not be longer than 255 characters"},
	}
	for _, c := range cases {
		r, err := Parse(c.in)
		if c.err != "" {
			if err == nil || err.Error() != c.err || fault.KindOf(err) != fault.Invalid {
				t.Errorf("Parse(%q) = %v, %v; want the error %q", c.in, r, err, c.err)
			}
			continue
		}
		if err != nil || r.String() != c.canonical || r.Familiar() != c.familiar {
			t.Errorf("Parse(%q) = %q, %q, %v; want %q, %q", c.in, r, r.Familiar(), err, c.canonical, c.familiar)
		}
	}
}

func TestIDPrefix(t *testing.T) {
	for in, want := range map[string]bool{"abcd": true, "sha256:abcd": true, "abc": false, "xyzw": false, "ABCD": false,
		strings.Repeat("a", 64): true, strings.Repeat("a", 65): false} {
		if _, _, ok := IDPrefix(in); ok != want {
			t.Errorf("IDPrefix(%q) = %v", in, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a", "a/b:c", "[::1]:5/a@" + sum, "A/b", "a@b:c", ":", "localhost/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v; its canonical form %q is %+v, %v", s, r, r, again, err)
		}
	})
}
