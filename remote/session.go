package remote

import (
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
)

// session is an endpoint with the credentials of a user: it answers the
// endpoint's challenges and keeps the tokens that it got.
type session struct {
	endpoint *endpoint
	cred     Credentials

	mu      sync.Mutex
	tokens  map[string]*token
	refresh string // a newer refresh token than that of cred
}

// do sends a call until it succeeds, is refused for good, or has failed too
// often. The answer's status is 2xx or one that the call wants; the caller
// closes its body.
func (s *session) do(ctx context.Context, c *call) (*http.Response, error) {
	if c.once {
		return s.once(ctx, c)
	}
	var resp *http.Response
	err := s.endpoint.client.pace.repeat(ctx, func() (err error) {
		resp, err = s.once(ctx, c)
		return err
	})
	return resp, err
}

// once sends a call, and again when the registry has changed its scheme since it
// was asked.
func (s *session) once(ctx context.Context, c *call) (*http.Response, error) {
	e := s.endpoint
	f, err := e.known(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.attempt(ctx, c, f)
	// No answer, or what a server of HTTPS says to HTTP.
	doubt := err != nil && (statusIn(err) == 0 || f.scheme == "http" && statusIn(err) == http.StatusBadRequest)
	if !doubt || len(e.schemes) == 1 || ctx.Err() != nil {
		return resp, err
	}
	e.forget()
	if now, failure := e.known(ctx); failure == nil && now.scheme != f.scheme {
		return s.attempt(ctx, c, now)
	}
	return resp, err
}

// attempt sends a call, and again when the answer asks for other credentials
// than it came with.
func (s *session) attempt(ctx context.Context, c *call, f facts) (*http.Response, error) {
	e := s.endpoint
	placed := *c
	placed.home = e.url(f.scheme, "", nil)
	if c.url == nil {
		placed.url = e.url(f.scheme, c.below, maps.Clone(c.query))
	}
	auth, err := s.authorization(ctx, placed.home, f.challenges, c.scope, "")
	if err != nil {
		e.learn(nil) // it may have others by the next call
		return nil, err
	}
	resp, err := e.exchange(ctx, &placed, auth)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && sameOrigin(placed.home, resp.Request.URL) {
		resp, err = s.challenged(ctx, &placed, resp, auth)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 || slices.Contains(c.want, resp.StatusCode) {
		return resp, nil
	}
	return nil, refusalOf(resp)
}

// challenged answers a 401: the challenge is new, the token is not accepted any
// more, or it lacks a scope that the challenge names.
func (s *session) challenged(ctx context.Context, c *call, resp *http.Response, rejected string) (*http.Response, error) {
	challenges := challengesOf(resp.Header)
	if len(challenges) == 0 {
		return resp, nil
	}
	auth, err := s.authorization(ctx, c.home, challenges, c.scope, rejected)
	if err != nil {
		discard(resp)
		return nil, err
	}
	s.endpoint.learn(challenges)
	if auth == "" || auth == rejected {
		if chosen(challenges).scheme == "basic" && s.cred.Username == "" {
			discard(resp)
			r := &refusal{status: resp.StatusCode, codes: []string{"UNAUTHORIZED"}}
			r.text = operation(c.method) + " \"" + redact(c.url) + "\": no basic auth credentials"
			return nil, fault.New(fault.Unauthorized, "%w", r)
		}
		return resp, nil
	}
	discard(resp)
	return s.endpoint.exchange(ctx, c, auth)
}

// authorization gives the header for the challenges, "" where none is needed
// or none can be had. rejected is one that did not do.
func (s *session) authorization(ctx context.Context, home *url.URL, challenges []challenge, scope []string, rejected string) (string, error) {
	if s.cred.RegistryToken != "" {
		return "Bearer " + s.cred.RegistryToken, nil
	}
	switch ch := chosen(challenges); {
	case ch.scheme == "bearer":
		value, err := s.token(ctx, home, ch, scope, strings.TrimPrefix(rejected, "Bearer "))
		if err != nil || value == "" {
			return "", err
		}
		return "Bearer " + value, nil
	case ch.scheme == "basic" && s.cred.Username != "":
		return basic(s.cred.Username, s.cred.Password), nil
	}
	return "", nil
}

// chosen is the challenge to answer: a token is better than a password.
func chosen(challenges []challenge) challenge {
	var out challenge
	for _, c := range challenges {
		if c.scheme == "bearer" && c.params["realm"] != "" {
			return c
		}
		if c.scheme == "basic" && out.scheme == "" {
			out = c
		}
	}
	return out
}

// basic is RFC 7617.
func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
