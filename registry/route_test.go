package registry

import (
	"strings"
	"testing"

	"github.com/tarehq/tare/registry/storage"
)

func TestParsePath(t *testing.T) {
	for path, want := range map[string]route{
		"/v2":                            {base, "", ""},
		"/v2/":                           {base, "", ""},
		"/v2/_catalog":                   {catalog, "", ""},
		"/v2/a/tags/list":                {tags, "a", ""},
		"/v2/a/b/manifests/latest":       {aManifest, "a/b", "latest"},
		"/v2/a/blobs/sha256:00":          {aBlob, "a", "sha256:00"},
		"/v2/a/blobs/uploads/":           {uploads, "a", ""},
		"/v2/a/blobs/uploads":            {uploads, "a", ""},
		"/v2/a/blobs/uploads/1":          {anUpload, "a", "1"},
		"/v2/a/referrers/sha256:00":      {referrers, "a", "sha256:00"},
		"/v2/blobs/uploads/manifests/x":  {aManifest, "blobs/uploads", "x"},
		"/v2/manifests/blobs/uploads/":   {uploads, "manifests", ""},
		"/v2/tags/list/tags/list":        {tags, "tags/list", ""},
		"/v2/blobs/blobs/uploads/blobs":  {anUpload, "blobs", "blobs"},
		"/v2/referrers/manifests/list":   {aManifest, "referrers", "list"},
		"/v2/a/manifests/":               {aManifest, "a", ""},
		"/v2//manifests/x":               {aManifest, "", "x"},
		"/v2/manifests/x":                {aManifest, "", "x"},
		"/v2/a/tags":                     {},
		"/v2/a/uploads/1":                {},
		"/v2/a":                          {},
		"/v1/a/tags/list":                {},
		"/":                              {},
		"//v2/a/tags/list":               {},
		"/v2/../v2/a/tags/list":          {tags, "../v2/a", ""},
		"/v2/a/blobs/uploads/1/":         {},
		"/v2/_catalog/tags/list":         {tags, "_catalog", ""},
		"/v2/a/manifests/sha256:0/blobs": {},
	} {
		if got := parsePath(path); got != want {
			t.Errorf("%s is %+v, want %+v", path, got, want)
		}
	}
}

// path writes a route as its client does.
func (r route) path() string {
	return map[kind]string{
		base: "/v2/", catalog: "/v2/_catalog", tags: "/v2/" + r.repo + "/tags/list", aManifest: "/v2/" + r.repo + "/manifests/" + r.item,
		aBlob: "/v2/" + r.repo + "/blobs/" + r.item, uploads: "/v2/" + r.repo + "/blobs/uploads/",
		anUpload: "/v2/" + r.repo + "/blobs/uploads/" + r.item, referrers: "/v2/" + r.repo + "/referrers/" + r.item,
	}[r.kind]
}

// FuzzPath: what a path is taken for is written as that path again, so nothing
// of it was lost, and a name that passes leads nowhere else.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/v2/a/b/manifests/latest", "/v2/a/blobs/uploads/", "/v2/a/../b/tags/list", "/v2/a//b/blobs/sha256:0", "/v2/_catalog", "/v2/a/blobs/uploads/x%2fy", "/v2/blobs/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := parsePath(path)
		if r.kind == nothing {
			return
		}
		if strings.Contains(r.item, "/") {
			t.Fatalf("%q has the item %q", path, r.item)
		}
		if !storage.ValidRepository(r.repo) {
			return
		}
		if again := r.path(); again != path && again != path+"/" {
			t.Fatalf("%q is read as %+v, which is %q", path, r, again)
		}
		for part := range strings.SplitSeq(r.repo, "/") {
			if part == "" || part[0] == '.' || strings.ContainsAny(part, "\\%:@\x00 ") {
				t.Fatalf("%q names the repository %q", path, r.repo)
			}
		}
	})
}

// FuzzChunk: a Content-Range that is taken is what it was written from.
func FuzzChunk(f *testing.F) {
	for _, seed := range []string{"0-0", "0-9", "9-0", "-1", "+1-2", "0x1-2", "1-", "bytes 0-1/2", "9223372036854775807-9223372036854775807", "00-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, end, ok := parseChunk(s)
		if !ok {
			return
		}
		first, last, _ := strings.Cut(s, "-")
		if strings.Trim(s, "0123456789-") != "" || start < 0 || end < start || end-start+1 <= 0 ||
			strings.TrimLeft(first, "0") != strings.TrimPrefix(itoa(start), "0") || strings.TrimLeft(last, "0") != strings.TrimPrefix(itoa(end), "0") {
			t.Fatalf("%q is %d to %d", s, start, end)
		}
	})
}
