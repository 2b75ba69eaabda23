package remote

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tarehq/tare/remote/hosts"
)

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://a/t",service="s",scope="x"`, `Basic realm=x, Bearer a="\"`, `=,,"`, `Negotiate YQ==`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list := parseChallenges(s)
		if len(list) > maxChallenges {
			t.Fatalf("%d challenges", len(list))
		}
		for _, c := range list {
			if c.scheme == "" || strings.Trim(c.scheme, hosts.TokenChars) != "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("scheme %q", c.scheme)
			}
		}
		chosen(list)
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/a?n=1>; rel="next"`, `<a>; rel=prev, <b>; rel=next`, `<a`, `<a>; rel="`, `<>;;rel=next`, `<a>; x; rel=next`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if next := nextLink([]string{s}); next != "" && !strings.Contains(s, "<"+next+">") {
			t.Errorf("%q gives %q", s, next)
		}
	})
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{"bytes 0-99/100", "bytes 5-9/*", "bytes */100", "bytes 9-5/100", "0-0", "bytes=0-99", "0-9223372036854775807", "bytes 0-9223372036854775807/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if ok && (first < 0 || last < first || total >= 0 && last >= total || last-first+1 < 0 && last-first != 1<<63-1) {
			t.Errorf("%q gives %d-%d/%d", s, first, last, total)
		}
		if n, ok := uploadRange(s); ok && n < 0 {
			t.Errorf("%q gives %d", s, n)
		}
		if d := retryAfter(s, time.Unix(0, 0)); d < 0 {
			t.Errorf("%q gives %v", s, d)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		`{"errors":[{"code":"X","message":"y"}]}`, `{"details":"z"}`, `{"schemaVersion":2,"layers":[]}`, `{"manifests":[{"digest":"x"}]}`, `{"mediaType":"a/b","manifests":null}`,
	} {
		f.Add([]byte(s), "application/vnd.oci.image.manifest.v1+json", "sha256:x", 404)
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, digest string, status int) {
		_, text := errorText(body, status)
		if len(text) > maxErrorText+len("…") || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q", text)
		}
		d, err := describe("v1", http.Header{"Content-Type": {contentType}, "Docker-Content-Digest": {digest}}, body)
		if err == nil && (d.MediaType == "" || d.Digest.Algorithm().FromBytes(body) != d.Digest) {
			t.Errorf("%+v", d)
		}
		if u, err := url.Parse(contentType); err == nil && u.RawQuery != "" && strings.Contains(redact(u), "?"+u.RawQuery) {
			t.Errorf("%s shows its query", redact(u))
		}
		parseIndex(body)
	})
}
