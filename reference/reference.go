// Package reference reads image names as people write them and gives the one
// canonical form that everything else stores and compares.
//
//	busybox                  docker.io/library/busybox:latest
//	me/app:1                 docker.io/me/app:1
//	localhost:5000/a/b       localhost:5000/a/b:latest
//	busybox@sha256:…         docker.io/library/busybox@sha256:…
//
// The rules and the texts of the errors are those of the distribution
// project's reference grammar, which Docker's clients match; the parser is
// written by hand because compiling that grammar's regular expressions costs a
// program a millisecond at start.
package reference

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

const (
	defaultDomain = "docker.io"
	legacyDomain  = "index.docker.io"
	officialPath  = "library/"
	maxPath       = 255
)

// Ref is a parsed, normalised image name. Domain and Path are never empty;
// at least one of Tag and Digest is set in what Parse returns.
type Ref struct {
	Domain string // "docker.io", "localhost:5000"
	Path   string // "library/busybox"
	Tag    string // "latest", or "" for a name with only a digest
	Digest string // "sha256:…" or ""
}

// Parse reads a name and adds what people leave out: the domain docker.io,
// the path library/, and the tag latest when there is neither tag nor digest.
// Errors are fault.Invalid with Docker's sentence.
func Parse(s string) (Ref, error) {
	r, err := ParseBare(s)
	if err != nil {
		return Ref{}, err
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// ParseBare is Parse without the default tag.
func ParseBare(s string) (Ref, error) {
	if IsIdentifier(s) {
		return Ref{}, fault.New(fault.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	remote, _, _ := strings.Cut(rest, ":")
	if strings.ToLower(remote) != remote {
		return Ref{}, fault.New(fault.Invalid, "invalid reference format: repository name (%s) must be lowercase", remote)
	}
	r := Ref{Domain: domain}
	var ok bool
	if r.Path, r.Tag, r.Digest, ok = splitPath(rest); !ok || !validDomain(domain) {
		return Ref{}, fault.New(fault.Invalid, "invalid reference format")
	}
	if len(r.Path) > maxPath {
		return Ref{}, fault.New(fault.Invalid, "repository name must not be longer than %d characters", maxPath)
	}
	if r.Digest != "" {
		if err := checkDigest(r.Digest); err != nil {
			return Ref{}, err
		}
	}
	return r, nil
}

// String gives the canonical name, with all its parts.
func (r Ref) String() string { return r.Repository() + r.suffix() }

// Repository gives the canonical name without tag and digest.
func (r Ref) Repository() string { return r.Domain + "/" + r.Path }

// Familiar gives the name as a person would write it, with its tag and digest.
func (r Ref) Familiar() string { return r.FamiliarRepository() + r.suffix() }

// FamiliarRepository gives the familiar name without tag and digest.
func (r Ref) FamiliarRepository() string {
	if r.Domain != defaultDomain {
		return r.Repository()
	}
	if short, ok := strings.CutPrefix(r.Path, officialPath); ok && !strings.Contains(short, "/") {
		return short
	}
	return r.Path
}

func (r Ref) suffix() string {
	var s string
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Familiar shortens a canonical name; a text that is no name is returned as
// it is.
func Familiar(canonical string) string {
	r, err := ParseBare(canonical)
	if err != nil {
		return canonical
	}
	return r.Familiar()
}

// IsIdentifier tells whether s is a full identifier: 64 lowercase hexadecimal
// digits, which no name may be.
func IsIdentifier(s string) bool { return len(s) == 64 && isHex(s) }

// IDPrefix returns the hexadecimal digits when s can be the beginning of an
// image's identifier: 4 to 64 of them, with or without an algorithm and a colon
// before.
func IDPrefix(s string) (algorithm, hex string, ok bool) {
	for _, a := range []string{"sha256", "sha384", "sha512"} {
		if rest, found := strings.CutPrefix(s, a+":"); found {
			algorithm, s = a, rest
		}
	}
	return algorithm, s, len(s) >= 4 && len(s) <= 64 && isHex(s)
}

// IsPath tells whether s is the path of a repository, a name without a domain.
func IsPath(s string) bool {
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

// IsTag tells whether s has the form of a tag.
func IsTag(s string) bool { return validTag(s) }

// IsDigest tells whether s is a whole sha256, sha384 or sha512 digest.
func IsDigest(s string) bool { return checkDigest(s) == nil }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}
