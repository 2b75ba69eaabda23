package remote

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/remote/hosts"
)

// endpoint is one address that serves a domain's repositories.
type endpoint struct {
	client    *Client
	host      string   // with its port, if it has one
	base      string   // the path that the API is below: "/v2"
	schemes   []string // in the order of trial; two where HTTP is allowed beside HTTPS
	origin    bool     // the registry itself: credentials go there
	namespace string   // the domain that a mirror is asked for in the query "ns"; "" for none
	can       hosts.Capability
	header    http.Header
	rewrites  hosts.Rewrites
	transport *http.Transport
	confined  bool          // redirects use the transport too, whatever their host
	files     hosts.Watched // what it was read from

	turn chan struct{} // held by who finds the facts out

	mu       sync.Mutex
	facts    facts
	down     time.Time // until then it is left out, if there is another
	sessions map[Credentials]*session
}

// facts is what an endpoint's answer to GET /v2/ has told. The zero value is
// that nothing is known.
type facts struct {
	scheme     string
	challenges []challenge
	at         time.Time
}

// newEndpoint makes an endpoint of an address. Its scheme is "" where none was
// said.
func (c *Client) newEndpoint(u *url.URL, s hosts.Settings, certs *hosts.Certificates) *endpoint {
	e := &endpoint{
		client: c, host: originHost(u.Host), base: strings.TrimRight(u.Path, "/"), can: s.Can, header: s.Header, rewrites: s.Rewrites,
		files: certs.Files, turn: make(chan struct{}, 1), sessions: map[Credentials]*session{},
	}
	if !s.Override && !strings.HasSuffix(e.base, "/v2") {
		e.base += "/v2"
	}
	dial := s.Dial
	if dial == 0 {
		dial = c.pace.dial
	}
	e.transport = c.newTransport(&tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: certs.Roots, Certificates: certs.Pairs, InsecureSkipVerify: s.SkipVerify,
	}, dial)
	e.schemes = []string{"https"}
	if u.Scheme == "http" {
		e.schemes = []string{"http"}
	}
	lax := c.policy.Load().insecure.Named(u.Host) || hosts.Loopback(u.Host) && certs.Roots == nil
	switch {
	case lax && u.Scheme == "":
		e.trustAnything()
	case lax:
		e.transport.TLSClientConfig.InsecureSkipVerify = true
	}
	return e
}

// trustAnything is dockerd's way with insecure registries: HTTPS with any
// certificate, then HTTP.
func (e *endpoint) trustAnything() {
	e.schemes = []string{"https", "http"}
	e.transport.TLSClientConfig.InsecureSkipVerify = true
}

// session is the endpoint as the credentials see it: as nobody, if it is not
// the registry itself.
func (e *endpoint) session(cred Credentials) *session {
	if !e.origin {
		cred = Credentials{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sessions[cred]
	if s == nil {
		if len(e.sessions) >= maxSessions {
			clear(e.sessions)
		}
		s = &session{endpoint: e, cred: cred, tokens: map[string]*token{}}
		e.sessions[cred] = s
	}
	return s
}

// maxSessions bounds how many users of one registry are remembered.
const maxSessions = 64

// repository is the path of a repository at this endpoint.
func (e *endpoint) repository(path string) string {
	return e.rewrites.Apply(path)
}

// url gives the address of what is below the API's root.
func (e *endpoint) url(scheme, below string, query url.Values) *url.URL {
	if e.namespace != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("ns", e.namespace)
	}
	return &url.URL{Scheme: scheme, Host: e.host, Path: e.base + "/" + below, RawQuery: query.Encode()}
}

// known gives the facts, by asking the endpoint if they are not known or old.
// At most one request asks at a time, the others wait for what it learns.
func (e *endpoint) known(ctx context.Context) (facts, error) {
	if f, ok := e.fresh(); ok {
		return f, nil
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return facts{}, ctx.Err()
	}
	if f, ok := e.fresh(); ok {
		return f, nil
	}
	f, err := e.ask(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		return facts{}, err
	}
	e.facts = f
	return f, nil
}

func (e *endpoint) fresh() (facts, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.facts, e.facts.scheme != "" && time.Since(e.facts.at) < e.client.pace.remember
}

// forget makes the next request ask anew, as after a connection that failed:
// the registry may have learned HTTPS, or lost it.
func (e *endpoint) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.facts = facts{}
}

// learn replaces the challenges.
func (e *endpoint) learn(challenges []challenge) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.facts.challenges = challenges
}

// ask finds out which scheme answers, and what it asks of clients.
func (e *endpoint) ask(ctx context.Context) (facts, error) {
	var failure error
	for _, scheme := range e.schemes {
		root := e.url(scheme, "", nil)
		resp, err := e.exchange(ctx, &call{method: http.MethodGet, url: root}, "")
		if err != nil {
			if ctx.Err() != nil {
				return facts{}, err
			}
			failure = err
			continue
		}
		if scheme == "http" && failure != nil && resp.StatusCode == http.StatusBadRequest {
			discard(resp) // it speaks HTTPS, and the failure was another
			return facts{}, failure
		}
		if refusal := refusalOf(resp); isTransient(refusal) {
			return facts{}, refusal
		}
		f := facts{scheme: scheme, at: time.Now()}
		if sameOrigin(root, resp.Request.URL) { // what another asks for is no affair of the credentials
			f.challenges = challengesOf(resp.Header)
		}
		return f, nil
	}
	return facts{}, failure
}

// setDown leaves the endpoint out for a while.
func (e *endpoint) setDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = time.Now().Add(e.client.pace.down)
}

func (e *endpoint) isDown() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().Before(e.down)
}
