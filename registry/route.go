package registry

import "strings"

// kind is what a path names.
type kind int

const (
	nothing kind = iota
	base
	catalog
	tags
	aManifest
	aBlob
	uploads // where uploads begin
	anUpload
	referrers
)

var nouns = [...]string{
	nothing: "other", base: "base", catalog: "catalog", tags: "tags", aManifest: "manifest", aBlob: "blob",
	uploads: "upload", anUpload: "upload", referrers: "referrers",
}

// Noun is what a path is about, in one word of few: other, base, catalog, tags,
// manifest, blob, upload or referrers.
func Noun(path string) string { return nouns[parsePath(path).kind] }

// route is a path, taken apart:
//
//	/v2/
//	/v2/_catalog
//	/v2/<repo>/tags/list
//	/v2/<repo>/manifests/<item: tag or digest>
//	/v2/<repo>/blobs/<item: digest>
//	/v2/<repo>/blobs/uploads/
//	/v2/<repo>/blobs/uploads/<item: id>
//	/v2/<repo>/referrers/<item: digest>
//
// A repository may be called like any of the fixed parts: the end decides. What
// a route has is not checked yet.
type route struct {
	kind       kind
	repo, item string
}

func parsePath(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || path == "/v2/":
		return route{kind: base}
	case !ok:
		return route{}
	case rest == "_catalog":
		return route{kind: catalog}
	}
	before, last := cutLast(rest)
	before, noun := cutLast(before)
	switch noun {
	case "manifests":
		return route{aManifest, before, last}
	case "referrers":
		return route{referrers, before, last}
	case "tags":
		if last == "list" {
			return route{tags, before, ""}
		}
	case "blobs":
		if last == "uploads" {
			return route{uploads, before, ""}
		}
		return route{aBlob, before, last}
	case "uploads":
		repo, noun := cutLast(before)
		switch {
		case noun != "blobs":
		case last == "":
			return route{uploads, repo, ""}
		default:
			return route{anUpload, repo, last}
		}
	}
	return route{}
}

// cutLast splits off what follows the last slash.
func cutLast(s string) (before, last string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// hidesSlash tells whether an escaped path has a slash or a dot that is no
// part of its form: what one program takes for one name, the next takes for two.
func hidesSlash(escaped string) bool {
	for i := 0; i+2 < len(escaped); i++ {
		if escaped[i] == '%' && escaped[i+1] == '2' && strings.IndexByte("fFeE", escaped[i+2]) >= 0 {
			return true
		}
	}
	return false
}
