package registry

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/internal/testutil"
)

func TestUploadWays(t *testing.T) {
	data := []byte("0123456789")
	d := digest.FromBytes(data)
	done := func(r *registry, a *answer) {
		r.t.Helper()
		r.want(a, 201, "")
		if a.header.Get("Location") != "/v2/a/blobs/"+string(d) || a.header.Get("Docker-Content-Digest") != string(d) {
			r.t.Errorf("%v", a.header)
		}
		if got := r.want(r.do("GET", a.header.Get("Location"), nil), 200, ""); !bytes.Equal(got.body, data) {
			r.t.Errorf("the blob is %q", got.body)
		}
	}
	for name, push := range map[string]func(r *registry){
		"one request":  func(r *registry) { done(r, r.do("POST", "/v2/a/blobs/uploads/?digest="+string(d), data)) },
		"POST and PUT": func(r *registry) { done(r, r.do("PUT", r.begin("a")+"?digest="+string(d), data)) },
		"a stream": func(r *registry) {
			at := r.begin("a")
			a := r.want(r.do("PATCH", at, data), 202, "")
			if a.header.Get("Range") != "0-9" || a.header.Get("Location") != at || !strings.HasSuffix(at, a.header.Get("Docker-Upload-Uuid")) {
				r.t.Errorf("%v", a.header)
			}
			done(r, r.do("PUT", at+"?digest="+string(d), nil))
		},
		"chunks": func(r *registry) {
			at := r.begin("a")
			r.want(r.do("PATCH", at, data[:4], "Content-Range", "0-3"), 202, "")
			r.want(r.do("PATCH", at, data[4:8], "Content-Range", "4-7"), 202, "")
			done(r, r.do("PUT", at+"?digest="+string(d), data[8:], "Content-Range", "8-9"))
		},
		"chunks without ranges": func(r *registry) {
			at := r.begin("a")
			r.want(r.do("PATCH", at, data[:4]), 202, "")
			r.want(r.do("PATCH", at, data[4:]), 202, "")
			done(r, r.do("PUT", at+"?digest="+string(d), nil))
		},
	} {
		t.Run(name, func(t *testing.T) { push(start(t, Config{})) })
	}
}

func TestUploadStatus(t *testing.T) {
	r := start(t, Config{})
	a := r.want(r.do("POST", "/v2/a/blobs/uploads/", nil), 202, "")
	at := a.header.Get("Location")
	if a.header.Get("Range") != "0-0" || a.header.Get("Docker-Upload-Uuid") == "" || a.header.Get("Content-Length") != "0" {
		t.Errorf("%v", a.header)
	}
	r.want(r.do("PATCH", at, []byte("abc")), 202, "")
	for _, method := range []string{"GET", "HEAD"} {
		a = r.want(r.do(method, at, nil), 204, "")
		if a.header.Get("Range") != "0-2" || a.header.Get("Location") != at {
			t.Errorf("%s %v", method, a.header)
		}
	}
	r.want(r.do("GET", strings.Replace(at, "/v2/a/", "/v2/b/", 1), nil), 404, blobUploadUnknown)
	r.want(r.do("DELETE", at, nil), 204, "")
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		r.want(r.do(method, at+"?digest="+string(digest.FromString("")), nil), 404, blobUploadUnknown)
	}
	r.want(r.do("GET", "/v2/a/blobs/uploads/..", nil), 404, blobUploadUnknown)
	r.want(r.do("GET", "/v2/a/blobs/uploads/"+strings.Repeat("x", 256), nil), 404, blobUploadUnknown)
}

func TestUploadRefusals(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	r.want(r.do("PATCH", at, []byte("abc"), "Content-Range", "0-2"), 202, "")
	for _, chunk := range []string{"4-6", "0-2", "2-4"} {
		a := r.want(r.do("PATCH", at, []byte("def"), "Content-Range", chunk), 416, blobUploadInvalid)
		if a.header.Get("Range") != "0-2" || a.header.Get("Location") != at {
			t.Errorf("%s: %v", chunk, a.header)
		}
	}
	r.want(r.do("PUT", at+"?digest="+string(digest.FromString("def")), []byte("def"), "Content-Range", "0-2"), 416, blobUploadInvalid)
	for _, chunk := range []string{"5-3", "x", "-1", "bytes 3-5/6", "3-"} {
		r.want(r.do("PATCH", at, []byte("def"), "Content-Range", chunk), 400, blobUploadInvalid)
	}
	r.want(r.do("PATCH", at, []byte("def"), "Content-Range", "3-9"), 400, sizeInvalid)
	r.want(r.do("PUT", at, nil), 400, digestInvalid)
	r.want(r.do("PUT", at+"?digest=sha256:0", nil), 400, digestInvalid)
	if a := r.want(r.do("GET", at, nil), 204, ""); a.header.Get("Range") != "0-2" {
		t.Errorf("a refused chunk left %v", a.header)
	}
	r.want(r.do("PUT", at+"?digest="+string(digest.FromString("other")), nil), 400, digestInvalid)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromString("other")), []byte("abc")), 400, digestInvalid)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest=x", []byte("abc")), 400, digestInvalid)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", nil), 400, digestInvalid)
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", nil), 202, "")
	r.want(r.do("POST", "/v2/a/blobs/uploads/?mount=x&from=b", nil), 400, digestInvalid)
	if n := len(r.store.uploads); n != 1 {
		t.Errorf("%d uploads are left, want that of sha512 alone", n)
	}
}

// TestStreamedChunk sends chunks whose length only Content-Range says.
func TestStreamedChunk(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	r.want(r.stream("PATCH", at, []byte("abc"), "Content-Range", "0-2"), 202, "")
	r.want(r.stream("PATCH", at, []byte("defghi"), "Content-Range", "3-5"), 400, sizeInvalid)
	r.want(r.stream("PATCH", at, []byte("g"), "Content-Range", "6-8"), 400, sizeInvalid)
	if got := r.do("GET", at, nil).header.Get("Range"); got != "0-6" {
		t.Errorf("%s is here", got)
	}
	r.want(r.stream("PUT", at+"?digest="+string(digest.FromString("abcdefghi")), []byte("hi")), 201, "")
}

func TestMount(t *testing.T) {
	secret := "secret"
	r := start(t, Config{Authorizer: allowing(func(_ *http.Request, want ...Access) (string, error) {
		for _, w := range want {
			if w.Repository == secret && w.Action == Pull && len(want) == 1 {
				return "", forbidden()
			}
		}
		return "", nil
	})})
	d := r.pushBlob("open", []byte("blob"))
	r.pushBlob(secret, []byte("hidden"))
	hidden := digest.FromString("hidden")
	a := r.want(r.do("POST", "/v2/b/blobs/uploads/?mount="+string(d)+"&from=open", nil), 201, "")
	if a.header.Get("Location") != "/v2/b/blobs/"+string(d) || a.header.Get("Docker-Content-Digest") != string(d) {
		t.Errorf("%v", a.header)
	}
	r.want(r.do("GET", "/v2/b/blobs/"+string(d), nil), 200, "")
	for name, from := range map[string]string{"not there": "&from=b", "not allowed": "&from=" + secret, "no name": "&from=../secret", "nowhere": ""} {
		a := r.want(r.do("POST", "/v2/c/blobs/uploads/?mount="+string(hidden)+from, nil), 202, "")
		if !strings.HasPrefix(a.header.Get("Location"), "/v2/c/blobs/uploads/") {
			t.Errorf("%s: %v", name, a.header)
		}
		r.want(r.do("GET", "/v2/c/blobs/"+string(hidden), nil), 404, blobUnknown)
	}
}

// connect is a connection of the test's own.
func (r *registry) connect() net.Conn {
	r.t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// dial sends the beginning of a request whose body never ends.
func (r *registry) dial(at string) net.Conn {
	r.t.Helper()
	c := r.connect()
	if _, err := fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfirst", at); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// TestEarlyEnd breaks the connection in the middle of a chunk: what came is there.
func TestEarlyEnd(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	r.dial(at).Close()
	testutil.Eventually(t, 10*time.Second, "what came is kept", func() bool {
		return r.do("GET", at, nil).header.Get("Range") == "0-4"
	})
	r.want(r.do("PATCH", at, []byte(" second"), "Content-Range", "5-11"), 202, "")
	r.want(r.do("PUT", at+"?digest="+string(digest.FromString("first second")), nil), 201, "")
}

// TestSilentConnection comes back to an upload whose old connection is silent
// but open, as after a change of network: the new request ends the old one.
func TestSilentConnection(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	c := r.dial(at)
	testutil.Eventually(t, 10*time.Second, "the old request has begun", func() bool {
		r.api.writers.mu.Lock()
		defer r.api.writers.mu.Unlock()
		return len(r.api.writers.open) == 1
	})
	testutil.Eventually(t, 10*time.Second, "its first bytes have come", func() bool {
		return r.do("GET", at, nil).header.Get("Range") == "0-4"
	})
	r.want(r.do("PATCH", at, nil), 202, "")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("the old request got %v, %v", resp, err)
	}
	r.want(r.do("PUT", at+"?digest="+string(digest.FromString("first")), nil), 201, "")
}

// TestBusyUpload meets an upload that another registry of the same storage has open.
func TestBusyUpload(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	up, err := r.store.OpenUpload(context.Background(), "a", at[strings.LastIndexByte(at, '/')+1:])
	if err != nil {
		t.Fatal(err)
	}
	r.want(r.do("PATCH", at, []byte("x")), 409, blobUploadInvalid)
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(r.do("PATCH", at, []byte("x")), 202, "")
}

// TestStatusWhileWriting asks how far an upload is while bytes come: that ends
// nothing.
func TestStatusWhileWriting(t *testing.T) {
	r := start(t, Config{})
	at := r.begin("a")
	c := r.dial(at)
	testutil.Eventually(t, 10*time.Second, "the first bytes are told of", func() bool {
		return r.want(r.do("GET", at, nil), 204, "").header.Get("Range") == "0-4"
	})
	if _, err := c.Write(bytes.Repeat([]byte("x"), 995)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 202 || resp.Header.Get("Range") != "0-999" {
		t.Errorf("the request that was asked about got %v, %v", resp, err)
	}
}

// late is a reader that moves its deadline along with each read, as that of the
// program does: what sets the deadline from outside may come too early.
type late struct {
	io.ReadCloser
	control *http.ResponseController
}

func (l late) Read(p []byte) (int, error) {
	if err := l.control.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	return l.ReadCloser.Read(p)
}

// TestTakeOverOfAStream comes back to an upload while its old request moves.
func TestTakeOverOfAStream(t *testing.T) {
	h := New(Config{Storage: newMemory()})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Body = late{req.Body, http.NewResponseController(w)}
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	r := &registry{t: t, url: s.URL, api: h.(*api)}
	at := r.begin("a")
	c := r.connect()
	if _, err := fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", at); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for err := error(nil); err == nil; {
			_, err = c.Write(make([]byte, 512))
		}
	}()
	testutil.Eventually(t, 10*time.Second, "bytes come", func() bool {
		return r.do("GET", at, nil).header.Get("Range") > "0-1"
	})
	r.want(r.do("PATCH", at, []byte("x")), 202, "")
	c.Close()
	<-gone
}

// TestRefusedAtTheEnd leaves nothing of a blob that came in one request and
// that the quota does not allow.
func TestRefusedAtTheEnd(t *testing.T) {
	r := start(t, Config{Rules: rules{quota: 8}})
	r.pushBlob("a", []byte("12345"))
	data := []byte("6789")
	r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+string(digest.FromBytes(data)), data), 403, denied)
	if n := len(r.store.uploads); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}
