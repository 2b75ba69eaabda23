package remote

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
)

// token is a bearer token for a set of scopes, or the place for one.
type token struct {
	turn  chan struct{} // held by who fetches it
	value string        // these two under the session's lock
	until time.Time
}

const (
	clientID         = "tare"
	maxTokens        = 512 // per session
	maxTokenAnswer   = 1 << 20
	maxTokenLength   = 64 << 10
	maxScopes        = 16
	leastTokenLife   = time.Minute // what a token lives if its server does not say, distribution's token specification
	longestTokenLife = time.Hour
)

// token gives a bearer token for the scopes: one that is known, or a new one.
// Those who want the same wait for one request. rejected is the value of one
// that does not do any more.
func (s *session) token(ctx context.Context, home *url.URL, ch challenge, scope []string, rejected string) (string, error) {
	if rejected != "" {
		// Only then does the challenge belong to this very request.
		scope = mergeScopes(scope, strings.Fields(ch.params["scope"]))
	}
	t := s.place(strings.Join(append([]string{ch.params["realm"], ch.params["service"]}, scope...), " "))
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	s.mu.Lock()
	value, fresh := t.value, time.Now().Before(t.until)
	s.mu.Unlock()
	if fresh && value != rejected {
		return value, nil
	}
	began := time.Now()
	answer, err := s.fetchToken(ctx, home, ch, scope, false)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.value, t.until = answer.value(), began.Add(answer.life())
	return t.value, nil
}

// place finds the token of a key, which may be empty yet.
func (s *session) place(key string) *token {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[key]
	if t == nil {
		if len(s.tokens) >= maxTokens {
			clear(s.tokens)
		}
		t = &token{turn: make(chan struct{}, 1)}
		s.tokens[key] = t
	}
	return t
}

// mergeScopes adds what a challenge asks for.
func mergeScopes(scope, more []string) []string {
	out := slices.Clone(scope)
	for _, m := range more {
		if len(out) < maxScopes && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

// tokenAnswer is what a token server says, distribution's token and OAuth2
// specifications.
type tokenAnswer struct {
	Token        string  `json:"token"`
	AccessToken  string  `json:"access_token"`
	ExpiresIn    float64 `json:"expires_in"` // seconds
	RefreshToken string  `json:"refresh_token"`
}

func (a tokenAnswer) value() string {
	if a.Token != "" {
		return a.Token
	}
	return a.AccessToken
}

// life is how long the token is used: a little less than it lives.
func (a tokenAnswer) life() time.Duration {
	life := leastTokenLife
	if a.ExpiresIn > leastTokenLife.Seconds() {
		life = time.Duration(min(a.ExpiresIn, longestTokenLife.Seconds()) * float64(time.Second))
	}
	return life - min(life/4, 30*time.Second)
}

// fetchToken asks the realm of a challenge for a token: by OAuth2 with a
// refresh token; else by GET, with the password if there is one; or by OAuth2
// with the password where the server knows no GET. offline asks for a refresh
// token too.
func (s *session) fetchToken(ctx context.Context, home *url.URL, ch challenge, scope []string, offline bool) (tokenAnswer, error) {
	realm, err := url.Parse(ch.params["realm"])
	if err != nil || realm.Host == "" {
		return tokenAnswer{}, fault.New(fault.Unavailable, "the registry %s names a token server that is no address", s.endpoint.host)
	}
	if err := s.endpoint.permit(home, realm); err != nil {
		return tokenAnswer{}, err
	}
	realm.User, realm.Fragment = nil, ""
	if refresh := s.refreshToken(); refresh != "" {
		return s.postToken(ctx, realm, ch, scope, offline, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
	}
	answer, err := s.getToken(ctx, realm, ch, scope, offline)
	if status := statusIn(err); s.cred.Password != "" && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		return s.postToken(ctx, realm, ch, scope, offline, url.Values{
			"grant_type": {"password"}, "username": {s.cred.Username}, "password": {s.cred.Password},
		})
	}
	return answer, err
}

func (s *session) refreshToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refresh != "" {
		return s.refresh
	}
	return s.cred.IdentityToken
}

func (s *session) getToken(ctx context.Context, realm *url.URL, ch challenge, scope []string, offline bool) (tokenAnswer, error) {
	to := *realm
	q := to.Query()
	if service := ch.params["service"]; service != "" {
		q.Set("service", service)
	}
	for _, one := range scope {
		q.Add("scope", one)
	}
	if offline {
		q.Set("offline_token", "true")
		q.Set("client_id", clientID)
	}
	auth := ""
	if s.cred.Username != "" {
		q.Set("account", s.cred.Username)
		auth = basic(s.cred.Username, s.cred.Password)
	}
	to.RawQuery = q.Encode()
	return s.askToken(ctx, &call{method: http.MethodGet, url: &to}, auth)
}

func (s *session) postToken(ctx context.Context, realm *url.URL, ch challenge, scope []string, offline bool, form url.Values) (tokenAnswer, error) {
	form.Set("service", ch.params["service"])
	form.Set("client_id", clientID)
	if len(scope) > 0 {
		form.Set("scope", strings.Join(scope, " "))
	}
	if offline {
		form.Set("access_type", "offline")
	}
	body := form.Encode()
	answer, err := s.askToken(ctx, &call{
		method: http.MethodPost, url: realm, confidential: true,
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }, length: int64(len(body)),
	}, "")
	if err == nil && answer.RefreshToken != "" && form.Get("grant_type") == "refresh_token" {
		s.mu.Lock()
		s.refresh = answer.RefreshToken
		s.mu.Unlock()
	}
	return answer, err
}

func (s *session) askToken(ctx context.Context, c *call, auth string) (tokenAnswer, error) {
	resp, err := s.endpoint.exchange(ctx, c, auth)
	if err != nil {
		return tokenAnswer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return tokenAnswer{}, refusalOf(resp)
	}
	defer discard(resp)
	var answer tokenAnswer
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err == nil {
		err = json.Unmarshal(data, &answer)
	}
	value := answer.value()
	if err != nil || value == "" || len(value) > maxTokenLength || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return tokenAnswer{}, fault.New(fault.Unavailable, "the token server %s sent no usable token", redact(c.url))
	}
	return answer, nil
}
