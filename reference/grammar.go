package reference

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// splitDomain cuts a name at its first slash if what stands before is a
// domain: it is localhost, has a dot, a colon or a capital letter. Otherwise
// the domain is Docker's, and a path of one component is an official one.
func splitDomain(name string) (domain, rest string) {
	first, after, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return defaultDomain, officialPath + name
	case first == legacyDomain:
		domain, rest = defaultDomain, after
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		domain, rest = first, after
	default:
		domain, rest = defaultDomain, name
	}
	if domain == defaultDomain && !strings.Contains(rest, "/") {
		rest = officialPath + rest
	}
	return domain, rest
}

// splitPath cuts path[:tag][@digest] and checks the form of each part.
func splitPath(s string) (path, tag, dgst string, ok bool) {
	s, dgst, hasDigest := strings.Cut(s, "@")
	path, tag, hasTag := strings.Cut(s, ":")
	if hasTag && !validTag(tag) || hasDigest && !digestShape(dgst) {
		return "", "", "", false
	}
	if !IsPath(path) {
		return "", "", "", false
	}
	return path, tag, dgst, true
}

func lowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
func letter(c byte) bool     { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool      { return c >= '0' && c <= '9' }

// validComponent accepts lowercase letters and digits, parted by one dot, one
// or two underscores, or any number of dashes.
func validComponent(s string) bool {
	if s == "" || !lowerAlnum(s[0]) || !lowerAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if lowerAlnum(s[i]) {
			i++
			continue
		}
		end := i
		for end < len(s) && !lowerAlnum(s[end]) {
			end++
		}
		sep := s[i:end]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = end
	}
	return true
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !letter(c) && !digit(c) && c != '_' && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return true
}

func validDomain(s string) bool {
	host, port := s, ""
	if v6, after, ok := strings.Cut(s, "]"); ok && strings.HasPrefix(v6, "[") {
		if v6 = v6[1:]; v6 == "" || strings.Trim(v6, "0123456789abcdefABCDEF:") != "" {
			return false
		}
		return after == "" || after[0] == ':' && allDigits(after[1:])
	}
	if h, p, ok := strings.Cut(s, ":"); ok {
		if host, port = h, p; !allDigits(port) {
			return false
		}
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !letter(c) && !digit(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// digestShape accepts algorithm:hex, the algorithm being words that begin with
// a letter, joined by one of + . - _, and at least 32 hexadecimal digits.
func digestShape(s string) bool {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok || len(hex) < 32 || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
		return false
	}
	start := true
	for i := range len(algorithm) {
		c := algorithm[i]
		switch {
		case letter(c), digit(c) && !start:
			start = false
		case strings.IndexByte("+.-_", c) >= 0 && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

// checkDigest accepts the registered algorithms with digits of their length.
func checkDigest(s string) error {
	algorithm, hex, ok := strings.Cut(s, ":")
	size := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	switch {
	case !ok:
		return fault.New(fault.Invalid, "invalid checksum digest format")
	case size == 0:
		return fault.New(fault.Invalid, "unsupported digest algorithm")
	case len(hex) != size:
		return fault.New(fault.Invalid, "invalid checksum digest length")
	case !isHex(hex):
		return fault.New(fault.Invalid, "invalid checksum digest format")
	}
	return nil
}
