package upstream

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/remote"
)

// peer is an upstream and the client that reaches it.
type peer struct {
	Upstream
	client *remote.Client
	domain string
	counts counts

	mu   sync.Mutex
	down time.Time // until then what is here serves
}

// hub are the hosts that mean Docker Hub.
const hub = "docker.io"

var hubHosts = []string{hub, "registry-1.docker.io", "index.docker.io"}

func newPeer(u Upstream) (*peer, error) {
	at, err := url.Parse(u.URL)
	switch {
	case err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" || at.User != nil || strings.Trim(at.Path, "/") != "" || at.RawQuery != "":
		return nil, fault.New(fault.Invalid, "upstream %s: want a URL such as https://registry.example, with neither user nor path", u.Name)
	case u.Prefix != "" && u.Prefix != "/" && !storage.ValidRepository(u.Prefix):
		return nil, fault.New(fault.Invalid, "upstream %s: %q cannot begin the names of repositories: want one such as %q, or \"/\" for all", u.Name, u.Prefix, "hub")
	}
	p := &peer{Upstream: u, domain: at.Host}
	if slices.Contains(hubHosts, at.Host) {
		p.domain = hub
	}
	c := remote.Config{HostsDir: u.HostsDir, CA: u.CA, UserAgent: "tare-registry", Attempts: 3,
		AllowHTTP: "set insecure = true in the upstream " + u.Name + " to allow HTTP"}
	if u.Insecure || at.Scheme == "http" {
		c.Insecure = []string{at.Host}
	}
	if p.client, err = remote.New(c); err != nil {
		return nil, fault.New(fault.Invalid, "upstream %s: %w", u.Name, err)
	}
	return p, nil
}

// path is what a repository is called at upstream: Docker Hub's own images have
// a first component that is left out by habit.
func (p *peer) path(rest string) string {
	if p.domain == hub && !strings.Contains(rest, "/") {
		return "library/" + rest
	}
	return rest
}

func (p *peer) credentials() (remote.Credentials, error) {
	if p.Credentials == nil {
		return remote.Credentials{}, nil
	}
	cred, err := p.Credentials()
	if err != nil {
		err = fault.New(fault.Internal, "upstream %s: %w", p.Name, err)
	}
	return cred, err
}

func (p *peer) repository(path string) (*remote.Repository, error) {
	cred, err := p.credentials()
	if err != nil {
		return nil, err
	}
	return p.client.Repository(reference.Ref{Domain: p.domain, Path: path}, cred), nil
}

// failed turns an error of the upstream into what a client of this registry is
// told.
func (p *peer) failed(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, fault.NotFound):
		return err
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return context.Cause(ctx)
	case errors.Is(err, fault.Unauthorized), errors.Is(err, fault.Forbidden):
		// The client's own credentials are not what is wrong.
		return fault.New(fault.Forbidden, "the upstream %s refuses this registry: %w", p.Name, opaque{err})
	}
	return &storage.UpstreamError{Name: p.Name, Err: err}
}

// opaque has the text of an error and not its kind.
type opaque struct{ err error }

func (o opaque) Error() string { return o.err.Error() }

func (p *peer) setDown(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = until
}

func (p *peer) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.down)
}

// fetch reads a manifest, as strictly as one that is pushed.
func (p *peer) fetch(ctx context.Context, path string, d digest.Digest) (storage.Manifest, error) {
	none := storage.Manifest{}
	r, err := p.repository(path)
	if err != nil {
		return none, err
	}
	got, data, err := r.Manifest(ctx, string(d))
	if err != nil {
		return none, p.failed(ctx, err)
	}
	m, err := manifest.Read(got.MediaType, d.Algorithm(), data)
	if err == nil && m.Descriptor.Digest != d {
		err = fault.New(fault.Invalid, "the manifest that was sent has the digest %s instead of %s", m.Descriptor.Digest, d)
	}
	return m, p.failed(ctx, err)
}
