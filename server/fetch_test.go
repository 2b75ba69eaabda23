package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestImportFromAnAddress(t *testing.T) {
	r := newRig(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/good.tar", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "archive") })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, "/good.tar", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, "/loop", http.StatusFound) })
	mux.HandleFunc("/closed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	create := func(from string) string { return "/images/create?repo=a&fromSrc=" + url.QueryEscape(from) }
	for _, from := range []string{web.URL + "/good.tar", strings.TrimPrefix(web.URL, "http://") + "/moved"} {
		status, _, text := r.do("POST", create(from), "")
		if status != 200 || r.images.call != "import archive" || r.images.imported.Message != "Imported from "+from || !strings.HasSuffix(text, `{"status":"sha256:1"}`) ||
			!strings.HasPrefix(text, `{"status":"Downloading from http://`) || !strings.Contains(text, `{"status":"Importing","progressDetail":{"current":7,"total":7}}`) {
			t.Errorf("%s: %d %s, %s %+v", from, status, text, r.images.call, r.images.imported)
		}
	}
	secret := strings.Replace(web.URL, "http://", "http://ann:secret@", 1) + "/good.tar"
	if _, _, text := r.do("POST", create(secret), ""); strings.Contains(text+r.images.imported.Message, "secret") {
		t.Errorf("the password is in the image's history: %s, %s", r.images.imported.Message, text)
	}
	r.images.call = ""
	r.want(404, "failed to GET "+web.URL+"/none with status 404 Not Found", "POST", create(web.URL+"/none"), "")
	r.want(403, "failed to GET "+web.URL+"/closed with status 403 Forbidden", "POST", create(web.URL+"/closed"), "")
	r.want(400, "*", "POST", create(web.URL+"/loop"), "")
	r.want(400, `cannot import from "file:///etc/passwd": want an address of http or https, or - for an archive in the request`, "POST", create("file:///etc/passwd"), "")
	r.want(503, "*", "POST", create("http://127.0.0.1:1/x"), "")
	if r.images.call != "" {
		t.Errorf("something was imported: %s", r.images.call)
	}
}

// From HTTPS no redirection leads to HTTP.
func TestFetchIsNotDowngraded(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "archive") }))
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	t.Cleanup(secure.Close)
	old := http.DefaultTransport
	http.DefaultTransport = secure.Client().Transport
	t.Cleanup(func() { http.DefaultTransport = old })
	u, err := url.Parse(secure.URL)
	if err != nil {
		t.Fatal(err)
	}
	if body, _, err := fetch(t.Context(), u); err == nil || !strings.Contains(err.Error(), "redirects from https to http") {
		if body != nil {
			body.Close()
		}
		t.Error(err)
	}
}
