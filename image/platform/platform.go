// Package platform is what machines programs are for: the names of platforms, which
// of them run what, and what the programs of a tree say.
package platform

import (
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// Host is the platform of this machine.
func Host() ocispec.Platform {
	return Normalize(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

var architectures = map[string]string{
	"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i486": "386", "i586": "386", "i686": "386",
	"armhf": "arm", "armel": "arm",
}

// Normalize gives a platform the names that Go uses, and the variant that an
// ARM architecture has when none is said.
func Normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.Architecture == "armel" && p.Variant == "" {
		p.Variant = "v6"
	}
	if a, ok := architectures[p.Architecture]; ok {
		p.Architecture = a
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "8" || p.Variant == "v8"):
		p.Variant = ""
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && p.Variant != "" && p.Variant[0] != 'v':
		p.Variant = "v" + p.Variant
	}
	return p
}

// wordsAlone are those that one word alone can name, as Go calls them.
var wordsAlone = []string{"386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips", "mipsle", "mips64", "mips64le",
	"mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm"}

// Parse reads os/arch[/variant], os, or arch.
func Parse(s string) (ocispec.Platform, error) {
	var p ocispec.Platform
	parts := strings.Split(s, "/")
	for _, part := range parts {
		if part == "" || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			return p, fault.New(fault.Invalid, "%q is an invalid component of %q: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument", part, s)
		}
	}
	h := Host()
	switch len(parts) {
	case 1:
		if parts[0] == "linux" || parts[0] == "windows" || parts[0] == "darwin" || parts[0] == "freebsd" {
			p = ocispec.Platform{OS: parts[0], Architecture: h.Architecture, Variant: h.Variant}
		} else if p = Normalize(ocispec.Platform{OS: h.OS, Architecture: parts[0]}); !slices.Contains(wordsAlone, p.Architecture) {
			return p, fault.New(fault.Invalid, "%q: unknown operating system or architecture: invalid argument", s)
		}
	case 2:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	case 3:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	default:
		return p, fault.New(fault.Invalid, "%q: cannot parse platform specifier: invalid argument", s)
	}
	return Normalize(p), nil
}

// Matches tells whether who wants one platform is served by what is made for another.
func Matches(want, have ocispec.Platform) bool {
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return false
	}
	if want.Variant == have.Variant {
		return true
	}
	// An ARM machine runs what was made for its elder siblings.
	return want.Architecture == "arm" && have.Variant <= want.Variant
}

// elder are the architectures whose programs the younger one's machines run.
var elder = map[string]string{"amd64": "386", "arm64": "arm"}

// Format writes os/arch[/variant].
func Format(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Closer tells whether a is nearer to the wanted platform than b: an exact
// variant before an elder one, a younger before an older.
func Closer(want, a, b ocispec.Platform) bool {
	if a.Variant == want.Variant || b.Variant == want.Variant {
		return a.Variant == want.Variant && b.Variant != want.Variant
	}
	return a.Variant > b.Variant
}

// Foreign tells whether this machine is not known to run what is made for a platform.
func Foreign(p ocispec.Platform) bool {
	h := Host()
	return !(Matches(h, p) || p.OS == h.OS && p.Architecture == elder[h.Architecture] || p.Architecture == "")
}
