package registry

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// names follows the pages of a list from path on.
func (r *registry) names(path string, headers ...string) (pages [][]string) {
	r.t.Helper()
	for path != "" {
		a := r.want(r.do("GET", path, nil, headers...), 200, "")
		var list struct {
			Name               string
			Tags, Repositories []string
		}
		if err := json.Unmarshal(a.body, &list); err != nil {
			r.t.Fatal(err)
		}
		if list.Tags == nil && list.Repositories == nil {
			r.t.Fatalf("no list, not even an empty one: %s", a.body)
		}
		pages = append(pages, append(list.Tags, list.Repositories...))
		link := a.header.Get("Link")
		if link != "" && !strings.HasSuffix(link, `>; rel="next"`) {
			r.t.Fatalf("the link is %s", link)
		}
		path = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	}
	return pages
}

func (r *registry) wantPages(got [][]string, want ...string) {
	r.t.Helper()
	var pages []string
	for _, page := range got {
		pages = append(pages, strings.Join(page, " "))
	}
	if !slices.Equal(pages, want) {
		r.t.Errorf("the pages are %q, want %q", pages, want)
	}
}

func TestTags(t *testing.T) {
	r := start(t, Config{})
	for _, tag := range []string{"b", "a", "d", "c", "e"} {
		r.pushImage("x", tag, nil)
	}
	r.wantPages(r.names("/v2/x/tags/list"), "a b c d e")
	r.wantPages(r.names("/v2/x/tags/list?n=2"), "a b", "c d", "e")
	r.wantPages(r.names("/v2/x/tags/list?n=5"), "a b c d e")
	r.wantPages(r.names("/v2/x/tags/list?last=c"), "d e")
	r.wantPages(r.names("/v2/x/tags/list?last=bb&n=2"), "c d", "e")
	r.wantPages(r.names("/v2/x/tags/list?last=e"), "")
	r.wantPages(r.names("/v2/x/tags/list?n=0"), "")
	r.wantPages(r.names("/v2/x/tags/list?n=99999999999"), "a b c d e")
	for _, query := range []string{"n=-1", "n=x", "n=1e3", "n=99999999999999999999", "last=-x"} {
		r.want(r.do("GET", "/v2/x/tags/list?"+query, nil), 400, unsupported)
	}
	r.want(r.do("GET", "/v2/nowhere/tags/list", nil), 404, nameUnknown)
	r.pushBlob("blobs", []byte("x"))
	r.wantPages(r.names("/v2/blobs/tags/list"), "")
}

func TestCatalog(t *testing.T) {
	r := start(t, Config{Authorizer: allowing(func(q *http.Request, want ...Access) (string, error) {
		for _, w := range want {
			if q.Header.Get("Everything") == "" && strings.HasPrefix(w.Repository, "private/") {
				return "", forbidden()
			}
		}
		return "", nil
	})})
	r.wantPages(r.names("/v2/_catalog"), "")
	for _, repo := range []string{"a", "private/x", "private/y", "z", "b"} {
		r.want(r.do("POST", "/v2/"+repo+"/blobs/uploads/?digest=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", []byte("{}"), "Everything", "1"), 201, "")
	}
	r.wantPages(r.names("/v2/_catalog"), "a b z")
	r.wantPages(r.names("/v2/_catalog?n=2"), "a b", "z")
	r.wantPages(r.names("/v2/_catalog?n=1&last=b"), "z")
	r.wantPages(r.names("/v2/_catalog?n=0"), "")
	if a := r.do("GET", "/v2/_catalog", nil, "Everything", "1"); !strings.Contains(string(a.body), "private/x") {
		t.Errorf("who may see all sees %s", a.body)
	}
	r.want(r.do("GET", "/v2/_catalog?n=x", nil), 400, unsupported)
	r.want(r.do("GET", "/v2/_catalog?last=..", nil), 400, unsupported)
}
