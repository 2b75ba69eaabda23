package limit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	var reasons []string
	l := New(Config{Rate: 1, Burst: 3}, func(reason string) { reasons = append(reasons, reason) })
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	get := func(remote string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil)
		r.RemoteAddr = remote
		h.ServeHTTP(w, r)
		return w
	}
	for i := range 3 {
		if w := get(fmt.Sprintf("192.0.2.1:%d", i)); w.Code != 204 {
			t.Fatalf("request %d: %d", i, w.Code)
		}
	}
	w := get("192.0.2.1:9")
	wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if w.Code != 429 || err != nil || wait != 1 || !strings.Contains(w.Body.String(), `{"errors":[{"code":"TOOMANYREQUESTS"`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if len(reasons) != 1 || reasons[0] != "rate" {
		t.Errorf("%q", reasons)
	}
	if w := get("192.0.2.2:9"); w.Code != 204 {
		t.Errorf("another client: %d", w.Code)
	}
	for i := range 3 {
		get(fmt.Sprintf("[2001:db8::%d]:1", i))
	}
	if w := get("[2001:db8::99]:1"); w.Code != 429 {
		t.Errorf("another address of the same /64: %d", w.Code)
	}
	if w := get("[2001:db8:0:1::]:1"); w.Code != 204 {
		t.Errorf("another /64: %d", w.Code)
	}
}

// A client that used up its burst has one request more after each interval.
func TestRefill(t *testing.T) {
	c := &New(Config{Rate: 10, Burst: 2}, nil).clients
	c.start = time.Now().Add(-time.Hour)
	for range 2 {
		if c.take("192.0.2.1:1") != 0 {
			t.Fatal("the burst is not granted")
		}
	}
	if wait := c.take("192.0.2.1:1"); wait <= 0 || wait > 100*time.Millisecond {
		t.Fatalf("the next has to wait %v", wait)
	}
	c.start = c.start.Add(-100 * time.Millisecond)
	if c.take("192.0.2.1:1") != 0 {
		t.Error("after its interval, it has to wait")
	}
	c.start = c.start.Add(-time.Hour)
	for range 2 {
		if c.take("192.0.2.1:1") != 0 {
			t.Error("after an hour, the burst is not there")
		}
	}
	if c.take("192.0.2.1:1") == 0 {
		t.Error("an hour makes more than a burst")
	}
}

func TestClientsAreBounded(t *testing.T) {
	l := New(Config{Rate: 1}, nil)
	c := &l.clients
	for i := range maxClients + 1000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		c.take(netip.AddrPortFrom(a, 1).String())
	}
	if len(c.next) != maxClients {
		t.Errorf("%d clients are kept", len(c.next))
	}
	c.start = c.start.Add(-time.Minute)
	c.take("192.0.2.1:1")
	if len(c.next) != 1 {
		t.Errorf("%d clients are kept after a minute of silence", len(c.next))
	}
}

func TestUploads(t *testing.T) {
	l := New(Config{Uploads: 1}, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Wait") != "" {
			entered <- struct{}{}
			<-leave
		}
		w.WriteHeader(202)
	}))
	do := func(method, path, wait string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, strings.NewReader("x"))
		r.Header.Set("Wait", wait)
		h.ServeHTTP(w, r)
		return w
	}
	ended := make(chan struct{})
	go func() { do("PATCH", "/v2/a/blobs/uploads/1", "yes"); close(ended) }()
	<-entered
	if l.Uploads() != 1 {
		t.Errorf("%d uploads are under way", l.Uploads())
	}
	w := do("PUT", "/v2/a/blobs/uploads/2", "")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := do("PUT", "/v2/a/manifests/v1", ""); w.Code != 202 {
		t.Errorf("a manifest: %d", w.Code)
	}
	close(leave)
	<-ended
	if w := do("PUT", "/v2/a/blobs/uploads/2", ""); w.Code != 202 || l.Uploads() != 0 {
		t.Errorf("%d after the end, %d are under way", w.Code, l.Uploads())
	}
}
