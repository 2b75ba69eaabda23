// Package remote is the client of OCI registries: it resolves names, fetches
// manifests and blobs, and pushes them, over the protocol of the OCI
// distribution specification 1.1, with the older habits of Docker's registries
// where those are still met.
//
// The parts, from the name down to the wire:
//
//	Repository   one name: Resolve, Manifest, Blob, Tags, Referrers, PushBlob, …
//	  Source     one address that may have a blob of it
//	  endpoint   one address that serves it: a mirror or the registry itself, as
//	             hosts.toml and the options say (domain.go, package hosts)
//	    session  one endpoint with one set of credentials: challenges and tokens
//	             (session.go, challenge.go, token.go)
//	      hop    one request and its answer: which schemes are allowed, redirects,
//	             time-outs, retries (exchange.go, transport.go)
//
// Every answer is hostile input. Bodies are bounded; lengths, ranges and
// digests are checked; texts are cleaned before they become part of an error;
// and nothing that a registry says makes the client leave HTTPS: redirects,
// token realms and upload addresses that do are refused.
package remote

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote/hosts"
)

// Config is how registries are reached. The zero value reaches all of them by
// HTTPS with the system's CAs, and those on loopback by HTTP too.
type Config struct {
	// HostsDir is a directory in containerd's layout: <dir>/<host[:port]>/hosts.toml,
	// or <dir>/_default/hosts.toml for hosts without a directory. Beside it, or
	// alone, lie Docker's files: *.crt (CAs), *.cert and *.key (a client's
	// certificate and its key). What changed is read anew by the next request.
	HostsDir string
	// CA is a file of CAs in PEM that certificates are checked by, beside the
	// system's and those of HostsDir; "" for none.
	CA string
	// Mirrors are the URLs that are tried before docker.io, in this order.
	Mirrors []string
	// Insecure lists hosts, host:port pairs and CIDRs whose certificates are not
	// verified and which may speak plain HTTP. localhost, 127.0.0.0/8 and ::1
	// always may, unless HostsDir gives CAs for them.
	Insecure []string
	// AllowHTTP says how a user adds HOST to Insecure, for errors; "" says it of
	// the daemon's configuration.
	AllowHTTP string
	// UserAgent is sent with each request.
	UserAgent string
	// Chunk is the size in bytes from which on blobs are pushed in pieces of
	// that size; 0 is 64 MiB. What a broken connection costs is at most a piece.
	Chunk int64
	// Attempts is how often in a row what fails is tried; 0 is 5.
	Attempts int
	// Patience is how long the body of an answer may stand still; 0 is a minute.
	Patience time.Duration
	// LeastRate is how many bytes a second of a body must come, on average over
	// the Patience; 0 is 128. A body that comes more slowly counts as one whose
	// connection broke. Ten that share a line of 5 KB/s come faster.
	LeastRate int64
}

// Credentials is what is known about a user of a registry. The zero value is
// nobody. IdentityToken is an OAuth2 refresh token; RegistryToken is sent as a
// bearer token as it is.
type Credentials struct{ Username, Password, IdentityToken, RegistryToken string }

// A Client talks to any number of registries. It keeps their connections, what
// they ask of clients, and the tokens they gave, and shares them among all that
// use it at the same time.
type Client struct {
	config Config
	pace   pace
	policy atomic.Pointer[policy]

	mu         sync.Mutex
	hosts      map[string]*hostEntry      // by domain
	transports map[string]*http.Transport // of hosts that no endpoint describes
	public     *http.Transport
	indexes    keylock.Locks[string] // referrers tags that are being changed
}

// policy is what can change about a client while it works.
type policy struct {
	mirrors  []*url.URL
	insecure hosts.Insecure
}

// pace is how patient a client is. Tests have less time.
type pace struct {
	dial, handshake time.Duration
	answer          time.Duration // for the head of an answer
	commit          time.Duration // for the answer to an upload, whose bytes the registry has yet to check
	stall           time.Duration // for the next byte of a body
	least           int64         // bytes a second of an answer's body, over the time of stall
	backOff         time.Duration // before the second attempt; it doubles from there
	maxBackOff      time.Duration
	maxRetryAfter   time.Duration // a registry that wants more is given up
	attempts        int           // in a row that bring nothing
	told            *atomic.Int64 // the same, changed since; nil or 0 if it was not
	remember        time.Duration // how long a scheme and a challenge count as known
	down            time.Duration // how long a mirror that cannot be reached is left out
}

var patient = pace{
	dial: 30 * time.Second, handshake: 15 * time.Second, answer: time.Minute, commit: 15 * time.Minute, stall: time.Minute, least: 128,
	backOff: 250 * time.Millisecond, maxBackOff: 15 * time.Second, maxRetryAfter: 2 * time.Minute, attempts: 5,
	remember: 10 * time.Minute, down: 30 * time.Second,
}

const defaultChunk = 64 << 20

// New checks the configuration. It reaches no registry.
func New(config Config) (*Client, error) {
	c := &Client{
		config: config, pace: patient,
		hosts: map[string]*hostEntry{}, transports: map[string]*http.Transport{},
	}
	if c.config.AllowHTTP == "" {
		c.config.AllowHTTP = "list HOST in insecure-registries to allow HTTP"
	}
	if c.config.Chunk == 0 {
		c.config.Chunk = defaultChunk
	}
	if c.config.Chunk < 0 {
		return nil, fault.New(fault.Invalid, "invalid size of the pieces of an upload: %d bytes", config.Chunk)
	}
	c.pace.told = &atomic.Int64{}
	if config.Patience > 0 {
		c.pace.stall = config.Patience
	}
	if config.LeastRate > 0 {
		c.pace.least = config.LeastRate
	}
	return c, c.Reload(config)
}

// Reload takes the mirrors, the insecure registries and the attempts of another
// configuration. After an error nothing has changed. Requests that are under way
// go on as they have begun.
func (c *Client) Reload(config Config) error {
	next := &policy{}
	for _, m := range config.Mirrors {
		u, err := hosts.ParseMirror(m)
		if err != nil {
			return err
		}
		next.mirrors = append(next.mirrors, u)
	}
	var err error
	if next.insecure, err = hosts.ReadInsecure(config.Insecure); err != nil {
		return err
	}
	if c.pace.told != nil {
		c.pace.told.Store(int64(config.Attempts))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy.Store(next)
	for host, t := range c.transports {
		t.CloseIdleConnections()
		delete(c.transports, host)
	}
	return nil
}

// Close ends the connections that wait for the next request.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	for _, h := range c.hosts {
		h.close()
	}
	if c.public != nil {
		c.public.CloseIdleConnections()
	}
	return nil
}

// Repository is the repository of a name at its registry, as the credentials
// see it. The name's tag and digest do not matter. No request is made.
func (c *Client) Repository(name reference.Ref, cred Credentials) *Repository {
	return &Repository{client: c, domain: name.Domain, path: name.Path, cred: cred}
}

// A Repository is a named set of manifests and blobs. Its methods may be used
// by several goroutines. What is read is asked of the mirrors in their order
// and then of the registry; what is pushed goes to one of them, which the first
// push chooses.
type Repository struct {
	client       *Client
	domain, path string
	cred         Credentials

	mu      sync.Mutex
	pushing *session                   // nil until the first push
	kept    map[digest.Digest]*url.URL // uploads that mounts have opened
}

// Registry is the host that names the registry, whatever mirrors it has.
func (r *Repository) Registry() string { return r.domain }

// Same tells whether another Repository is this one, as the same user sees it.
func (r *Repository) Same(o *Repository) bool {
	return r.client == o.client && r.domain == o.domain && r.path == o.path && r.cred == o.cred
}

// transportOf gives the transport to a host that is no endpoint: one that a
// redirect, a token realm or an upload's address names. Its certificates are
// those of its own directory.
func (c *Client) transportOf(host string) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[host]; t != nil {
		return t, nil
	}
	certs, err := c.certificates(host)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: certs.Roots, Certificates: certs.Pairs}
	config.InsecureSkipVerify = c.policy.Load().insecure.Named(host) || hosts.Loopback(host) && certs.Roots == nil
	if len(c.transports) >= maxForeignHosts {
		for name, t := range c.transports {
			t.CloseIdleConnections()
			delete(c.transports, name)
		}
	}
	t := c.newTransport(config, c.pace.dial)
	c.transports[host] = t
	return t, nil
}

// maxForeignHosts bounds what redirects can make the client remember.
const maxForeignHosts = 64
