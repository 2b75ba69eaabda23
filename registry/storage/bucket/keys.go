package bucket

import (
	"crypto/rand"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

// This file alone knows the names of objects; the package comment draws them.

func (s *Storage) key(parts ...string) string { return path.Join(s.config.Prefix, path.Join(parts...)) }

// below is the prefix of the keys under it.
func (s *Storage) below(parts ...string) string { return s.key(parts...) + "/" }

func (s *Storage) stateKey(copy string) string              { return s.key("data", copy, "state") }
func (s *Storage) dataKey(copy, object string) string       { return s.key("data", copy, object) }
func (s *Storage) hintKey(d digest.Digest, c string) string { return s.key("digests", dashed(d), c) }
func (s *Storage) tagKey(repo, tag string) string           { return s.key("repos", repo+"!", "tags", tag) }
func (s *Storage) blobKey(repo string, d digest.Digest) string {
	return s.key("repos", repo+"!", "blobs", dashed(d))
}
func (s *Storage) manifestKey(repo string, d digest.Digest) string {
	return s.key("repos", repo+"!", "manifests", dashed(d))
}

func (s *Storage) referrerKey(repo string, subject, d digest.Digest, attempt string) string {
	return s.key("repos", repo+"!", "referrers", dashed(subject), dashed(d)+"-"+attempt)
}

// bytesObject is the object of the data that multipart uploads make.
const bytesObject = "bytes"

// newTail names an object of the data for bytes that are no part yet.
func newTail() string { return "t" + rand.Text()[:10] }

// dashed is a digest as a part of a key. It keeps the order.
func dashed(d digest.Digest) string { return strings.Replace(string(d), ":", "-", 1) }

func undashed(s string) digest.Digest { return digest.Digest(strings.Replace(s, "-", ":", 1)) }

// isCopy tells whether the text, which a client may have sent, names a copy.
func isCopy(s string) bool {
	return len(s) == 26 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// place is where the bytes of a blob lie.
type place struct {
	copy, object string
	size         int64
	until        time.Time // it is looked up again
}

// ref is a reference of a repository to a blob: of a manifest that names it, or
// else a loose one, which lasts for the grace.
//
//	m-COPY-OBJECT-SIZE-ALGORITHM-HEX-RANDOM
//	p-COPY-OBJECT-SIZE-RANDOM
type ref struct {
	place
	key      string
	manifest digest.Digest // "" of a loose one
	updated  time.Time
}

func (s *Storage) refKey(repo string, d digest.Digest, p place, manifest digest.Digest, random string) string {
	name := strings.Join([]string{p.copy, p.object, strconv.FormatInt(p.size, 10)}, "-")
	if manifest == "" {
		return s.blobKey(repo, d) + "/p-" + name + "-" + random
	}
	return s.blobKey(repo, d) + "/m-" + name + "-" + dashed(manifest) + "-" + random
}

// relative is the key without the prefix.
func (s *Storage) relative(key string) string {
	if s.config.Prefix == "" {
		return key
	}
	return strings.TrimPrefix(key, s.config.Prefix+"/")
}

func parseRef(o minio.ObjectInfo) (ref, bool) {
	f := strings.Split(path.Base(o.Key), "-")
	r := ref{key: o.Key, updated: o.LastModified}
	switch {
	case len(f) == 5 && f[0] == "p":
	case len(f) == 7 && f[0] == "m":
		r.manifest = digest.Digest(f[4] + ":" + f[5])
	default:
		return ref{}, false
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	r.place = place{copy: f[1], object: f[2], size: size}
	return r, err == nil && isCopy(r.copy)
}

// entry is an object of a repository.
type entry struct {
	repo, section, name string // the name may have one slash
}

func (s *Storage) parseEntry(key string) (e entry, ok bool) {
	rest, ok := strings.CutPrefix(s.relative(key), "repos/")
	if !ok {
		return e, false
	}
	if e.repo, rest, ok = strings.Cut(rest, "!/"); !ok {
		return e, false
	}
	e.section, e.name, ok = strings.Cut(rest, "/")
	return e, ok
}
