package platform

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"linux/amd64": "linux/amd64", "LINUX/x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"linux/aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6", "linux/armel": "linux/arm/v6",
		"linux": Format(Host()), "s390x": "linux/s390x",
	} {
		if p, err := Parse(text); err != nil || Format(p) != want {
			t.Errorf("%s: %s instead of %s, %v", text, Format(p), want, err)
		}
	}
	for _, text := range []string{"", "linux/", "linux/amd64/v1/x", "linux/am d64", "linux/amd64\x00"} {
		if _, err := Parse(text); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMatches(t *testing.T) {
	is := func(text string) ocispec.Platform {
		p, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		want, have string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true}, {"linux/amd64", "linux/386", false}, {"linux/arm/v7", "linux/arm/v6", true},
		{"linux/arm/v6", "linux/arm/v7", false}, {"linux/amd64", "windows/amd64", false},
	} {
		if Matches(is(c.want), is(c.have)) != c.ok {
			t.Errorf("%s by %s: not %v", c.want, c.have, c.ok)
		}
	}
	v7, v6, v5 := is("linux/arm/v7"), is("linux/arm/v6"), is("linux/arm/v5")
	if !Closer(v7, v7, v6) || Closer(v7, v5, v6) || !Closer(v7, v6, v5) {
		t.Error("the nearest variant is not the closest")
	}
	if Foreign(Host()) || Foreign(ocispec.Platform{}) || !Foreign(is("linux/s390x")) && Host().Architecture != "s390x" {
		t.Error("what is foreign here")
	}
}

// What the programs of a tree are for; image.TestImportFindsThePlatform has the rest.
func TestOf(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if p, ok := Of(root, nil); ok {
		t.Errorf("an empty tree is of %s", Format(p))
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "server"), self[:64], 0o755); err != nil {
		t.Fatal(err)
	}
	if p, ok := Of(root, nil); !ok || p.Architecture != Host().Architecture {
		t.Errorf("%s, %v", Format(p), ok)
	}
}
