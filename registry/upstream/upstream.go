// Package upstream makes repositories of a registry copies of those of other
// registries. Storage wraps a storage: what is asked for below a prefix and is
// not here is fetched from the upstream that has the prefix, stored in the
// wrapped storage under the same name, and sent to whoever asked while it
// comes. Sync copies chosen images on a schedule, as ordinary ones that are
// pushed.
//
//	tag        asked of upstream again when its time is over; what is here
//	           serves while upstream does not answer
//	manifest   fetched once; by its digest nothing can change
//	blob       fetched once, by one download for all who want it (download)
//	list       of tags, of referrers: upstream's, or what is here of it
//
// A manifest is stored before its blobs are here: it is put with those that
// are, and again when another one has come, so that a collection never takes a
// blob that a cached manifest names. Which manifests still lack which blobs is
// kept in memory, and found again when they are read (named).
//
// Upstreams are hostile: what they send is read as strictly as what clients
// push, their names come from the client and stay below the prefix, sizes are
// checked, and how much is fetched at the same time is bounded.
package upstream

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/remote"
)

// Config is what a Storage is made of.
type Config struct {
	// Storage is where everything is kept. The Storage made of it closes it.
	Storage   storage.Storage
	Upstreams []Upstream
	// Own are values of ns= that mean this registry itself.
	Own []string
	// Spool is a directory for the bytes of downloads; "" is the system's.
	Spool string
	// Downloads is how many blobs are fetched at the same time; 0 is 16.
	Downloads int
	// MaxBlob is how many bytes a blob may have; 0 is no limit.
	MaxBlob int64
	Log     *slog.Logger
}

// Upstream is a registry that is asked for what is not here.
type Upstream struct {
	Name string
	URL  string // scheme and host
	// Prefix begins the names of its repositories here: with "hub", hub/a/b is its
	// a/b. "/" has all names that no other prefix begins, so that the registry can
	// be the mirror of clients that know no prefix. "" is for syncs alone.
	Prefix string
	// Namespaces are the values of ns= that mean it (containerd sends them to mirrors).
	Namespaces []string
	// Repositories are those that may be asked for, by their names at upstream;
	// nil is all.
	Repositories pattern.List
	// Credentials are asked for at each use, so that they may change; nil is nobody.
	Credentials func() (remote.Credentials, error)
	CA          string // a file in PEM, beside the system's
	HostsDir    string // containerd's hosts.toml: mirrors, certificates
	Insecure    bool   // HTTP, and certificates that nobody vouches for
	// TagTTL is how long a tag counts as known; 0 asks each time.
	TagTTL time.Duration
	// Unused is how long a manifest stays that nobody asks for; 0 is for ever.
	Unused time.Duration
}

// pace is how patient the cache is. Tests have less time.
type pace struct {
	revalidate time.Duration // for an upstream to answer while what is here could serve
	job        time.Duration // for all that is no blob
	down       time.Duration // an upstream that failed is not asked again while what is here serves
	lists      time.Duration // the pages of one list are of the same age
	linger     time.Duration // a download that nobody waits for any longer
	finish     time.Duration // one that nobody waits for and that is nearly done
	touch      time.Duration // how exactly is known when a manifest was last used
}

var patient = pace{
	revalidate: 5 * time.Second, job: 2 * time.Minute, down: 10 * time.Second, lists: time.Minute,
	linger: 15 * time.Second, finish: 10 * time.Minute, touch: 12 * time.Hour,
}

const (
	defaultDownloads = 16
	maxRequests      = 32 // to all upstreams at the same time, blobs apart
)

// Storage is a storage.Storage some of whose repositories are copies.
type Storage struct {
	storage.Storage // what is here
	config          Config
	log             *slog.Logger
	pace            pace
	peers           []*peer // the longest prefix first

	flights   singleflight.Group // requests that several clients wait for
	requests  chan struct{}      // a place for each
	downloads downloads
	putting   keylock.Locks[string] // repo@manifest

	checked *recent[time.Time]      // repo:tag, when upstream confirmed it
	noted   *recent[time.Time]      // repo@manifest, when named knew of it
	named   *recent[named]          // repo@blob
	lists   *recent[list[string]]   // repo, its tags at upstream
	refers  *recent[list[referrer]] // repo@subject

	mu     sync.Mutex
	closed bool
	life   context.Context // of what goes on without a client, until Close
	end    context.CancelFunc
	work   sync.WaitGroup
}

var _ storage.Storage = (*Storage)(nil)

// New checks the configuration. It reaches no upstream.
func New(c Config) (*Storage, error) {
	s := &Storage{
		Storage: c.Storage, config: c, log: c.Log, pace: patient, requests: make(chan struct{}, maxRequests),
		checked: newRecent[time.Time](8192), noted: newRecent[time.Time](4096), named: newRecent[named](4096),
		lists: newRecent[list[string]](16), refers: newRecent[list[referrer]](256),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.config.Spool == "" {
		s.config.Spool = os.TempDir()
	}
	s.downloads.init(cmp.Or(c.Downloads, defaultDownloads))
	for _, u := range c.Upstreams {
		p, err := newPeer(u)
		if err != nil {
			return nil, err
		}
		for _, other := range s.peers {
			if other.Prefix == p.Prefix && p.Prefix != "" {
				return nil, fault.New(fault.Invalid, "the upstreams %s and %s have the same prefix %q: give each its own", other.Name, p.Name, p.Prefix)
			}
		}
		s.peers = append(s.peers, p)
	}
	slices.SortStableFunc(s.peers, func(a, b *peer) int { return len(b.begins()) - len(a.begins()) })
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Close ends what runs for clients that went away, and closes what is wrapped.
func (s *Storage) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.work.Wait()
	for _, p := range s.peers {
		_ = p.client.Close()
	}
	return s.Storage.Close()
}

// enter begins something that Close waits for.
func (s *Storage) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "the registry is ending")
	}
	s.work.Add(1)
	return s.work.Done, nil
}

// once is share for what has no result.
func (s *Storage) once(ctx context.Context, key string, limit time.Duration, f func(ctx context.Context) error) error {
	_, err := share(ctx, s, key, limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}

// share does something that several may wait for, and does it to its end. Who
// waits does so until ctx ends, or no longer than the limit where there is one.
func share[T any](ctx context.Context, s *Storage, key string, limit time.Duration, f func(ctx context.Context) (T, error)) (v T, err error) {
	result := s.flights.DoChan(key, func() (any, error) {
		leave, err := s.enter()
		if err != nil {
			return nil, err
		}
		defer leave()
		job, cancel := context.WithTimeout(s.life, s.pace.job)
		defer cancel()
		select {
		case s.requests <- struct{}{}:
			defer func() { <-s.requests }()
		case <-job.Done():
			return nil, context.Cause(job)
		}
		return f(job)
	})
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case r := <-result:
		v, _ = r.Val.(T)
		return v, r.Err
	case <-late:
		return v, errLate
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

var errLate = fault.New(fault.Unavailable, "no answer so far")

// background does something small that nobody waits for.
func (s *Storage) background(key string, f func(ctx context.Context) error) {
	leave, err := s.enter()
	if err != nil {
		return
	}
	go func() {
		defer leave()
		if err := s.once(s.life, key, 0, f); err != nil && s.life.Err() == nil {
			s.log.Warn("cannot note the use of a cached image", "what", key, "error", err)
		}
	}()
}

// route finds the upstream that a repository is a copy from, and what it is
// called there.
func (s *Storage) route(repo string) (p *peer, path string, ok bool) {
	for _, p := range s.peers {
		if rest, below := p.cut(repo); below {
			path = p.path(rest)
			return p, path, p.Repositories == nil || p.Repositories.Match(path)
		}
	}
	return nil, "", false
}

// Names gives the repository that the name means for a client that says for
// which registry it takes this one: containerd's ns=. It is false for one that
// this registry is no copy of.
func (s *Storage) Names(repo, ns string) (string, bool) {
	for _, p := range s.peers {
		switch {
		case !slices.Contains(p.Namespaces, ns) || p.Prefix == "":
		case p.Prefix == "/":
			return repo, true
		default:
			return p.Prefix + "/" + repo, true
		}
	}
	return repo, slices.Contains(s.config.Own, ns)
}

// refuse is the answer to a push of what is a copy.
func (s *Storage) refuse(repo string) error {
	p, path, cached := s.route(repo)
	if p == nil || p.Prefix == "/" && !cached {
		return nil
	}
	return fault.New(fault.Forbidden, "%s is a copy of %s at %s: push there, or under a name that does not begin with %q", repo, path, p.URL, p.Prefix)
}

// CreateUpload refuses copies.
func (s *Storage) CreateUpload(ctx context.Context, repo string, a digest.Algorithm) (storage.Upload, error) {
	if err := s.refuse(repo); err != nil {
		return nil, err
	}
	return s.Storage.CreateUpload(ctx, repo, a)
}

// Mount refuses copies.
func (s *Storage) Mount(ctx context.Context, repo, from string, d digest.Digest) (int64, error) {
	if err := s.refuse(repo); err != nil {
		return 0, err
	}
	return s.Storage.Mount(ctx, repo, from, d)
}

// PutManifest refuses copies.
func (s *Storage) PutManifest(ctx context.Context, repo string, m storage.Manifest, tags ...storage.NewTag) error {
	if err := s.refuse(repo); err != nil {
		return err
	}
	return s.Storage.PutManifest(ctx, repo, m, tags...)
}

// cut takes the prefix from the name of a repository.
func (p *peer) cut(repo string) (rest string, ok bool) {
	switch p.Prefix {
	case "":
		return "", false
	case "/":
		return repo, true
	}
	return strings.CutPrefix(repo, p.begins())
}

// begins is what names have before what they are called at upstream.
func (p *peer) begins() string {
	if p.Prefix == "" || p.Prefix == "/" {
		return ""
	}
	return p.Prefix + "/"
}
