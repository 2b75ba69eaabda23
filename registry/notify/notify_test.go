package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry"
)

// receiver is a webhook that keeps what it takes.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status func(tag string) int // of the answer
	got    []event
	header http.Header
	tries  int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: func(string) int { return 200 }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var e envelope
		if err := json.NewDecoder(q.Body).Decode(&e); err != nil || len(e.Events) != 1 {
			t.Errorf("%v, %d events", err, len(e.Events))
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.header = q.Header
		r.tries++
		status := r.status(e.Events[0].Target.Tag)
		if status < 300 {
			r.got = append(r.got, *e.Events[0])
		}
		w.Header().Set("Location", "http://"+q.Host+"/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status func(string) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) tags() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var tags []string
	for _, e := range r.got {
		tags = append(tags, e.Target.Tag)
	}
	return strings.Join(tags, " ")
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

// hastened makes a sender that tries again at once, and its log.
func hastened(t *testing.T, e ...Endpoint) (*Sender, *bytes.Buffer) {
	log := &bytes.Buffer{}
	for i := range e {
		e[i].Timeout = 10 * time.Second
		if e[i].Actions == nil {
			e[i].Actions = []registry.Action{registry.Push, registry.Pull, registry.Delete}
		}
	}
	s := New(Config{Log: slog.New(slog.NewTextHandler(log, nil)), URL: "https://reg.example"})
	s.config.Endpoints = e
	for _, one := range e {
		q := &Queue{Endpoint: one, wake: make(chan struct{}, 1), most: maxQueue, pause: time.Millisecond, host: "receiver"}
		s.queues = append(s.queues, q)
		s.done.Go(func() { s.run(q) })
	}
	return s, log
}

func finish(t *testing.T, s *Sender, within time.Duration) {
	t.Helper()
	ctx, release := context.WithTimeout(context.Background(), within)
	defer release()
	s.Close(ctx)
}

func pushed(tag string) registry.Event {
	return registry.Event{Time: time.Now(), Action: registry.Push, Repository: "team/app", Tag: tag,
		Digest: digest.FromString(tag), MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 7}
}

func TestEnvelope(t *testing.T) {
	r := newReceiver(t)
	s, _ := hastened(t, Endpoint{URL: r.URL, Headers: func() (http.Header, error) {
		return http.Header{"Authorization": {"Bearer x"}}, nil
	}})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := digest.FromString("x")
	s.Observe(registry.Event{Time: at, Action: registry.Push, Repository: "team/app", Digest: d, Tag: "v1",
		MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 7, User: "eva", Method: "PUT", Host: "reg:5000",
		RemoteAddr: "192.0.2.1:5", UserAgent: "agent", RequestID: "id7"})
	s.Observe(registry.Event{Time: at, Action: registry.Push, Repository: "b", Digest: d, MediaType: octets, Size: 7, From: "a"})
	finish(t, s, 20*time.Second)
	if len(r.got) != 2 || r.header.Get("Content-Type") != MediaType || r.header.Get("Authorization") != "Bearer x" {
		t.Fatalf("%+v %v", r.got, r.header)
	}
	first := r.got[0]
	if first.ID == "" || first.ID == r.got[1].ID {
		t.Errorf("the events' IDs are %q and %q", first.ID, r.got[1].ID)
	}
	first.ID = ""
	want := event{"", at, "push", target{"application/vnd.oci.image.manifest.v1+json", string(d), 7, 7, "team/app", "",
		"https://reg.example/v2/team/app/manifests/" + string(d), "v1"},
		request{"id7", "192.0.2.1:5", "reg:5000", "PUT", "agent"}, actor{"eva"}, source{}}
	if first != want {
		t.Errorf("got  %+v\nwant %+v", first, want)
	}
	if m := r.got[1]; m.Action != "mount" || m.Target.From != "a" || m.Target.URL != "https://reg.example/v2/b/blobs/"+string(d) {
		t.Errorf("%+v", m)
	}
}

// TestAddressOfClient has what was pushed be where the client sees it.
func TestAddressOfClient(t *testing.T) {
	r := newReceiver(t)
	s, _ := hastened(t, Endpoint{URL: r.URL})
	s.config.URL = ""
	s.Observe(registry.Event{Action: registry.Push, Repository: "a", Digest: digest.FromString("x"), Host: "reg:5000"})
	s.Observe(registry.Event{Action: registry.Push, Repository: "a", Digest: digest.FromString("x"), Host: "reg:5000", TLS: true})
	finish(t, s, 20*time.Second)
	if len(r.got) != 2 {
		t.Fatalf("%+v", r.got)
	}
	for i, want := range []string{"http://reg:5000/v2/a/", "https://reg:5000/v2/a/"} {
		if got := r.got[i].Target.URL; !strings.HasPrefix(got, want) {
			t.Errorf("%s does not begin with %s", got, want)
		}
	}
}

func TestFilters(t *testing.T) {
	all, some := newReceiver(t), newReceiver(t)
	s, _ := hastened(t, Endpoint{URL: all.URL},
		Endpoint{URL: some.URL, Actions: []registry.Action{registry.Push}, Match: func(repo string) bool { return repo == "mine" }})
	for _, e := range []registry.Event{
		{Action: registry.Push, Repository: "mine", Tag: "a"}, {Action: registry.Pull, Repository: "mine", Tag: "b"}, {Action: registry.Push, Repository: "other", Tag: "c"},
	} {
		s.Observe(e)
	}
	finish(t, s, 20*time.Second)
	if all.tags() != "a b c" || some.tags() != "a" {
		t.Errorf("%q, %q", all.tags(), some.tags())
	}
}

// Through an outage, the order stays; what is refused for good does not keep
// the others waiting.
func TestOutage(t *testing.T) {
	r := newReceiver(t)
	r.answer(func(string) int { return 503 })
	s, log := hastened(t, Endpoint{URL: r.URL})
	for _, tag := range []string{"a", "b", "bad", "c"} {
		s.Observe(pushed(tag))
	}
	testutil.Eventually(t, 20*time.Second, "some attempts", func() bool { return r.tried() > 3 })
	if r.tags() != "" || s.Queues()[0].Waiting() != 4 {
		t.Errorf("%q was taken, %d wait", r.tags(), s.Queues()[0].Waiting())
	}
	r.answer(func(tag string) int {
		if tag == "bad" {
			return 400
		}
		return 202
	})
	finish(t, s, 20*time.Second)
	if r.tags() != "a b c" {
		t.Errorf("delivered %q", r.tags())
	}
	if delivered, failed, dropped := s.Queues()[0].Counts(); delivered != 3 || failed < 4 || dropped != 1 {
		t.Errorf("%d delivered, %d failed, %d dropped", delivered, failed, dropped)
	}
	if n := strings.Count(log.String(), "cannot be delivered"); n != 1 {
		t.Errorf("one outage is told %d times:\n%s", n, log)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	r := newReceiver(t)
	r.answer(func(string) int { return 307 })
	s, log := hastened(t, Endpoint{URL: r.URL + "/hook?token=hunter2"})
	s.Observe(pushed("a"))
	testutil.Eventually(t, 20*time.Second, "an attempt", func() bool { return r.tried() > 0 })
	finish(t, s, time.Millisecond)
	if r.tags() != "" || s.Queues()[0].Waiting() != 1 {
		t.Errorf("%q, %d wait", r.tags(), s.Queues()[0].Waiting())
	}
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "events=1") {
		t.Errorf("the log:\n%s", text)
	}
}

// Nobody listens, and the error of the attempt has an address in it.
func TestSecretAddressIsNotLogged(t *testing.T) {
	r := newReceiver(t)
	r.Close()
	s, log := hastened(t, Endpoint{URL: r.URL + "/hunter2"})
	s.Observe(pushed("a"))
	testutil.Eventually(t, 20*time.Second, "failures", func() bool { _, failed, _ := s.Queues()[0].Counts(); return failed > 1 })
	finish(t, s, time.Millisecond)
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "refused") {
		t.Errorf("the log:\n%s", text)
	}
}

func TestFullQueue(t *testing.T) {
	q := &Queue{most: 4, wake: make(chan struct{}, 1)}
	for _, a := range []registry.Action{registry.Pull, registry.Pull, registry.Pull, registry.Push, registry.Push, registry.Delete} {
		q.put(&waiting{Event: registry.Event{Action: a}})
	}
	if _, _, dropped := q.Counts(); q.Waiting() != 4 || dropped != 2 {
		t.Errorf("%d wait, %d were dropped", q.Waiting(), dropped)
	}
	if last := q.events[3]; last.Action != registry.Push {
		t.Errorf("pulls took the place of a push: the last is a %s", last.Action)
	}
}

// Close does not wait for a receiver that never answers.
func TestCloseIsBounded(t *testing.T) {
	stuck, entered := make(chan struct{}), make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		entered <- struct{}{}
		<-stuck
	}))
	defer srv.Close()
	defer close(stuck)
	s, _ := hastened(t, Endpoint{URL: srv.URL})
	s.Observe(pushed("a"))
	<-entered
	ended := make(chan struct{})
	go func() { finish(t, s, time.Millisecond); close(ended) }()
	select {
	case <-ended:
	case <-time.After(8 * time.Second): // before the attempt's own time-out
		t.Fatal("Close waits for the receiver")
	}
}
