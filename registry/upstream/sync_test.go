package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	foreign "github.com/tarehq/tare/test/registry"
)

func patterns(list ...string) (out pattern.List) {
	for _, text := range list {
		out = append(out, pattern.MustParse(text))
	}
	return out
}

// run runs the sync once.
func (c *cache) run(t *testing.T, one Sync) error {
	t.Helper()
	s, err := c.Schedule([]Sync{one}, nil)
	ok(t, err)
	return s.sync(t.Context(), one, s.peers[0])
}

// far is an upstream of our own, which knows referrers.
func far(t *testing.T) (storage.Storage, *faulty.Proxy) {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	ok(t, err)
	server := httptest.NewServer(registry.New(registry.Config{Storage: s}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		ok(t, s.Close())
	})
	return s, faulty.Start(t, faulty.Options{Target: server.URL})
}

// TestSync copies chosen images of a foreign registry, and then what is new.
func TestSync(t *testing.T) {
	t.Parallel()
	r := foreign.Start(t, foreign.Options{})
	first, second := images.Make(t, images.Spec{Layers: 2}), images.Make(t, images.Spec{Seed: 9})
	for _, name := range []string{"team/app:v1", "team/app:v2", "team/app:latest", "team/tool:v1", "other/app:v1"} {
		images.Copy(t, first.Ref(), "docker://"+r.Host+"/"+name)
	}
	p := faulty.Start(t, faulty.Options{Registry: r})
	c := start(t, t.TempDir(), nil, Upstream{Name: "up", URL: p.URL})
	one := Sync{Upstream: "up", Prefix: "mirror/up", Repositories: patterns("team/*"), Tags: patterns("v*"), Interval: time.Hour}
	ok(t, c.run(t, one))
	repos, err := c.Repositories(t.Context(), "", -1)
	ok(t, err)
	tags, err := c.Tags(t.Context(), "mirror/up/team/app", "", -1)
	ok(t, err)
	if strings.Join(repos, " ") != "mirror/up/team/app mirror/up/team/tool" || strings.Join(tags, " ") != "v1 v2" {
		t.Errorf("%v, %v", repos, tags)
	}
	p.Forget()
	ok(t, c.run(t, one))
	if gets := p.Requests(func(r *faulty.Request) bool {
		return strings.Contains(r.Path, "/blobs/") || r.Method == http.MethodGet && strings.Contains(r.Path, "/manifests/")
	}); len(gets) != 0 {
		t.Errorf("nothing is new, and yet %v", gets)
	}
	images.Copy(t, second.Ref(), "docker://"+r.Host+"/team/app:v2")
	p.On(faulty.Always(func(r *faulty.Request) bool { return strings.HasSuffix(r.Path, "/team/app/manifests/v1") }, faulty.Fault{Status: http.StatusForbidden}))
	if err := c.run(t, one); err == nil {
		t.Error("a failure is none")
	}
	ok(t, r.Down())
	if d, _ := c.pull(t, "mirror/up/team/app", "v2"); d.Digest != second.Manifest.Digest {
		t.Errorf("%s instead of %s: one failure kept the rest", d.Digest, second.Manifest.Digest)
	}
	c.pull(t, "mirror/up/team/app", "v1")
	c.pull(t, "mirror/up/team/tool", "v1")
}

// TestSyncPlatforms copies of an index what is for one platform, what is
// attested of that, and what refers to it.
func TestSyncPlatforms(t *testing.T) {
	t.Parallel()
	s, p := far(t)
	describe := func(seed uint64, os, arch, variant string) ocispec.Descriptor {
		d := storagetest.PushImage(t, s, "team/app", seed).Descriptor
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch, Variant: variant}
		return d
	}
	amd, arm, old := describe(10, "linux", "amd64", ""), describe(20, "linux", "arm64", "v8"), describe(30, "linux", "arm", "v6")
	about := func(seed uint64, subject ocispec.Descriptor) ocispec.Descriptor {
		d := describe(seed, "unknown", "unknown", "")
		d.Annotations = map[string]string{attested: subject.Digest.String()}
		return d
	}
	ofAMD, ofOld := about(40, amd), about(50, old)
	index := storagetest.Index(amd, arm, old, ofAMD, ofOld)
	ok(t, s.PutManifest(t.Context(), "team/app", index, storage.NewTag{Name: "v1"}))
	config := storagetest.Push(t, s, "team/app", []byte("{}"))
	signature := storagetest.Artifact(index.Descriptor, "application/x-signature", config)
	ok(t, s.PutManifest(t.Context(), "team/app", signature))

	u := up("hub", p.URL)
	c := start(t, t.TempDir(), nil, u)
	one := Sync{Upstream: "hub", Prefix: "mirror", Repositories: patterns("team/app"), Tags: patterns("v1"), Platforms: []string{"linux/amd64", "linux/arm64"}, Interval: time.Hour}
	has := func(want ...ocispec.Descriptor) {
		t.Helper()
		for _, d := range []ocispec.Descriptor{index.Descriptor, amd, arm, old, ofAMD, ofOld, signature.Descriptor} {
			_, err := c.Storage.Storage.Manifest(t.Context(), "mirror/team/app", d.Digest)
			if wanted := slices.ContainsFunc(want, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }); wanted != (err == nil) {
				t.Errorf("%s: %v", d.Digest, err)
			}
		}
	}
	ok(t, c.run(t, one))
	has(index.Descriptor, amd, arm, ofAMD)
	one.Platforms, one.Referrers = []string{"linux/arm/v6"}, true // what is wanted besides, of an index that is here
	ok(t, c.run(t, one))
	has(index.Descriptor, amd, arm, old, ofAMD, ofOld, signature.Descriptor)
	for _, d := range []ocispec.Descriptor{amd, arm, old, signature.Descriptor} {
		storagetest.Whole(t, c.Storage.Storage, "mirror/team/app", d.Digest)
	}

	// What a cached copy has already is not fetched again.
	c.pull(t, "hub/team/app", amd.Digest.String())
	other := one
	other.Prefix, other.Platforms, other.Referrers = "second", []string{"linux/amd64"}, false
	p.Forget()
	await(t, "the blobs", func() bool {
		m, err := c.Storage.Storage.Manifest(t.Context(), "hub/team/app", amd.Digest)
		ok(t, err)
		return len(m.Blobs) == 3
	})
	ok(t, c.run(t, other))
	m, err := c.Storage.Storage.Manifest(t.Context(), "second/team/app", amd.Digest)
	ok(t, err)
	for _, b := range m.Blobs {
		if n := p.Count(faulty.Blobs(b.Digest.String())); n != 0 {
			t.Errorf("%s was fetched although it is here", b.Digest)
		}
	}
}

// TestSyncWrongBytes stores nothing of an image whose upstream lies.
func TestSyncWrongBytes(t *testing.T) {
	t.Parallel()
	s, p := far(t)
	storagetest.PushImage(t, s, "team/app", 1, "v1")
	p.On(faulty.Always(faulty.Blobs(), faulty.Fault{Corrupt: true}))
	c := start(t, t.TempDir(), nil, Upstream{Name: "up", URL: p.URL})
	one := Sync{Upstream: "up", Prefix: "mirror", Repositories: patterns("team/app"), Interval: time.Hour}
	if err := c.run(t, one); err == nil {
		t.Error("wrong bytes are right")
	}
	if repos, err := c.Repositories(t.Context(), "", -1); err != nil || len(repos) != 0 {
		t.Errorf("%v, %v", repos, err)
	}
	p.On(nil)
	ok(t, c.run(t, one))
	c.pull(t, "mirror/team/app", "v1")
}

// TestSchedule runs what is due at the start, and records it.
func TestSchedule(t *testing.T) {
	t.Parallel()
	s, p := far(t)
	storagetest.PushImage(t, s, "team/app", 1, "v1")
	c := start(t, t.TempDir(), nil, Upstream{Name: "up", URL: p.URL})
	file := filepath.Join(t.TempDir(), "syncs.json")
	one := Sync{Upstream: "up", Prefix: "mirror", Repositories: patterns("team/app"), Interval: time.Hour}
	recorded := func() (r runs) {
		data, err := File(file).Read(t.Context())
		ok(t, err)
		r, err = parseRuns(data)
		ok(t, err)
		return r
	}
	// A process that was killed in the middle of a run keeps nobody away.
	killed, err := json.Marshal(runs{Begun: map[string]time.Time{one.key(): time.Now()}})
	ok(t, err)
	ok(t, os.WriteFile(file, killed, 0o600))
	schedule, err := c.Schedule([]Sync{one}, File(file))
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); schedule.Run(ctx) }()
	await(t, "the first run", func() bool { return !recorded().Ran[one.key()].IsZero() })
	cancel()
	<-done
	c.pull(t, "mirror/team/app", "v1")
	if due := one.due(recorded(), time.Now()); due.Before(time.Now().Add(50 * time.Minute)) {
		t.Errorf("the next run is at %s", due)
	}
}

// TestDue has clocks that were set, and others that run the same sync.
func TestDue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.Local)
	hourly := Sync{Upstream: "up", Prefix: "a", Interval: time.Hour}
	daily := Sync{Upstream: "up", Prefix: "a", Interval: 24 * time.Hour, At: "03:00"}
	for name, c := range map[string]struct {
		sync       Sync
		ran, begun time.Time
		want       time.Time
	}{
		"never":              {sync: hourly},
		"before":             {hourly, now.Add(-20 * time.Minute), time.Time{}, now.Add(40 * time.Minute)},
		"by a faster clock":  {hourly, now.Add(time.Minute), time.Time{}, now.Add(61 * time.Minute)},
		"in ten years":       {sync: hourly, ran: now.AddDate(10, 0, 0)},
		"daily in ten years": {sync: daily, ran: now.AddDate(10, 0, 0)},
		"recorded in UTC":    {daily, now.UTC(), time.Time{}, time.Date(2026, 1, 11, 3, 0, 0, 0, time.Local)},
		"runs":               {hourly, now.Add(-2 * time.Hour), now.Add(-time.Minute), now.Add(14 * time.Minute)},
		"runs for too long":  {hourly, now.Add(-2 * time.Hour), now.Add(-59 * time.Minute), now.Add(-44 * time.Minute)},
		"runs in ten years":  {hourly, now.Add(-2 * time.Hour), now.AddDate(10, 0, 0), now.Add(-time.Hour)},
	} {
		r := runs{map[string]time.Time{c.sync.key(): c.ran}, map[string]time.Time{c.sync.key(): c.begun}}
		if got := c.sync.due(r, now); !got.Equal(c.want) {
			t.Errorf("%s: due at %s, want %s", name, got, c.want)
		}
	}
}

// shared is a record of several schedules.
type shared struct {
	mu   sync.Mutex
	data []byte
}

func (s *shared) Read(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, nil
}

func (s *shared) Change(_ context.Context, f func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := f(s.data)
	if err == nil {
		s.data = data
	}
	return err
}

// TestSharedSchedule has a run that somebody else has begun not be begun again,
// and one that failed be free for others.
func TestSharedSchedule(t *testing.T) {
	t.Parallel()
	s, p := far(t)
	storagetest.PushImage(t, s, "team/app", 1, "v1")
	c := start(t, t.TempDir(), nil, Upstream{Name: "up", URL: p.URL})
	one := Sync{Upstream: "up", Prefix: "mirror", Repositories: patterns("team/app"), Interval: time.Hour}
	record := &shared{}
	schedule, err := c.Schedule([]Sync{one}, record)
	ok(t, err)
	known, _ := parseRuns(nil)
	begin := func(at time.Time) {
		record.data, err = json.Marshal(runs{Begun: map[string]time.Time{one.key(): at}})
		ok(t, err)
	}
	begin(time.Now())
	schedule.perform(t.Context(), 0, &known)
	if _, err := c.Storage.Storage.Tag(t.Context(), "mirror/team/app", "v1"); !errors.Is(err, fault.NotFound) {
		t.Fatalf("what another registry copies is copied here too: %v", err)
	}
	p.On(func(*faulty.Request) *faulty.Fault { return &faulty.Fault{Status: http.StatusNotFound} })
	begin(time.Now().Add(-time.Hour))
	if earliest := schedule.perform(t.Context(), 0, &known); earliest.Before(time.Now().Add(10 * time.Minute)) {
		t.Errorf("what failed is tried again at %s", earliest)
	}
	schedule.load(t.Context(), &known, true)
	if due := one.due(known, time.Now()); !due.IsZero() {
		t.Errorf("what failed here is due at %s elsewhere", due)
	}
	p.On(nil)
	schedule.perform(t.Context(), 0, &known)
	c.pull(t, "mirror/team/app", "v1")
	known, _ = parseRuns(nil)
	schedule.load(t.Context(), &known, true)
	if due := one.due(known, time.Now()); due.Before(time.Now().Add(50 * time.Minute)) {
		t.Errorf("what was done elsewhere is due at %s", due)
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", s)
		ok(t, err)
		return v
	}
	for _, c := range []struct {
		interval time.Duration
		at       string
		last     string
		want     string
	}{
		{time.Hour, "", "2026-01-01 10:00", "2026-01-01 11:00"},
		{24 * time.Hour, "03:00", "2026-01-01 10:00", "2026-01-02 03:00"},
		{24 * time.Hour, "03:00", "2026-01-02 03:00", "2026-01-03 03:00"},
		{24 * time.Hour, "03:00", "2026-01-02 02:59", "2026-01-02 03:00"},
		{72 * time.Hour, "03:00", "2026-01-30 03:00", "2026-02-02 03:00"},
		{time.Hour, "03:00", "2026-01-30 03:00", "2026-01-31 03:00"},
	} {
		if got := (Sync{Interval: c.interval, At: c.at}).next(at(c.last)); !got.Equal(at(c.want)) {
			t.Errorf("%v at %q after %s: %s", c.interval, c.at, c.last, got)
		}
	}
	if !(Sync{Interval: time.Hour}).next(time.Time{}).IsZero() {
		t.Error("what has never run is not due")
	}
}

// TestRefused has configurations that contradict themselves.
func TestRefused(t *testing.T) {
	t.Parallel()
	c := start(t, t.TempDir(), nil, up("hub", "https://registry.example"))
	good := Sync{Upstream: "hub", Prefix: "mirror", Interval: time.Hour}
	for name, change := range map[string]func(*Sync){
		"upstream": func(s *Sync) { s.Upstream = "none" }, "cached": func(s *Sync) { s.Prefix = "hub" }, "below": func(s *Sync) { s.Prefix = "hub/x" },
		"name": func(s *Sync) { s.Prefix = "Mirror" }, "time": func(s *Sync) { s.At = "25:00" }, "platform": func(s *Sync) { s.Platforms = []string{"amd64"} },
		"interval": func(s *Sync) { s.Interval = 0 },
	} {
		bad := good
		change(&bad)
		_, err := c.Schedule([]Sync{bad}, nil)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		is(t, err, fault.Invalid)
	}
	_, err := c.Schedule([]Sync{good}, nil)
	ok(t, err)
	for _, u := range []Upstream{up("hub", "registry.example"), up("hub", "https://me@registry.example"), up("hub", "https://registry.example/path"),
		up("Hub", "https://registry.example"), up("a/../b", "https://registry.example")} {
		_, err := New(Config{Storage: c.Storage.Storage, Upstreams: []Upstream{u}})
		is(t, err, fault.Invalid)
	}
	twice := []Upstream{up("hub", "https://a.example"), up("hub", "https://b.example")}
	_, err = New(Config{Storage: c.Storage.Storage, Upstreams: twice})
	is(t, err, fault.Invalid)
	hub, err := newPeer(up("hub", "https://docker.io"))
	ok(t, err)
	if hub.path("debian") != "library/debian" || hub.path("team/app") != "team/app" {
		t.Error(hub.path("debian"), hub.path("team/app"))
	}
}
