package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// Login checks credentials with the registry of a host, which may be given as
// the URL that Docker's clients send; "" is Docker Hub. The identity token is a
// refresh token to keep in the place of the password; "" if the registry gives
// none. Wrong credentials are fault.Unauthorized with the registry's words.
func (c *Client) Login(ctx context.Context, host string, cred Credentials) (identityToken string, err error) {
	e, err := c.origin(ctx, loginDomain(host))
	if err != nil {
		return "", err
	}
	err = c.pace.repeat(ctx, func() error {
		// A session of its own: a token of an older login must not count.
		s := &session{endpoint: e, cred: cred, tokens: map[string]*token{}}
		identityToken, err = s.login(ctx)
		return err
	})
	return identityToken, err
}

func (s *session) login(ctx context.Context) (identityToken string, err error) {
	e := s.endpoint
	f, err := e.known(ctx)
	if err != nil {
		return "", err
	}
	root := e.url(f.scheme, "", nil)
	auth := ""
	if ch := chosen(f.challenges); ch.scheme == "bearer" && s.cred.RegistryToken == "" {
		answer, err := s.fetchToken(ctx, root, ch, nil, true)
		if err != nil {
			return "", fmt.Errorf("Get %q: %w", redact(root), err) //nolint:staticcheck // Docker's text
		}
		auth, identityToken = "Bearer "+answer.value(), answer.RefreshToken
		if identityToken == "" {
			identityToken = s.cred.IdentityToken
		}
	} else if auth, err = s.authorization(ctx, root, f.challenges, nil, ""); err != nil {
		return "", err
	}
	resp, err := e.exchange(ctx, &call{method: http.MethodGet, url: root}, auth)
	if err != nil {
		return "", err
	}
	if resp.StatusCode == http.StatusOK {
		discard(resp)
		return identityToken, nil
	}
	failure := refusalOf(resp)
	if isTransient(failure) {
		return "", failure
	}
	return "", fault.New(fault.KindOf(failure), "login attempt to %s failed with status: %d %s", redact(root), resp.StatusCode, http.StatusText(resp.StatusCode))
}

// origin is the endpoint of a domain that is the registry itself.
func (c *Client) origin(ctx context.Context, domain string) (*endpoint, error) {
	all, err := c.endpoints(ctx, domain)
	if err != nil {
		return nil, err
	}
	return all[len(all)-1], nil
}

// loginDomain is the domain that Docker's clients mean by an address.
func loginDomain(host string) string {
	_, rest, ok := strings.Cut(host, "://")
	if !ok {
		rest = host
	}
	rest, _, _ = strings.Cut(rest, "/")
	switch rest {
	case "", dockerDomain, "index." + dockerDomain, dockerHost:
		return dockerDomain
	}
	return rest
}

// SearchResult is a repository that a search has found.
type SearchResult struct {
	Name        string
	Description string
	StarCount   int
	IsOfficial  bool
	IsAutomated bool
}

// searchHost is where Docker Hub's search of version 1 is.
const searchHost = "index.docker.io"

// searchScope is what a token must be for to search with, in Docker Hub's words.
const searchScope = "registry:catalog:search"

const maxSearch = 1 << 20

// Search asks Docker Hub, or the registry that the term names before its first
// slash, for repositories. The limit is 1 to 100.
func (c *Client) Search(ctx context.Context, term string, limit int, cred Credentials) ([]SearchResult, error) {
	if limit < 1 || limit > 100 {
		return nil, fault.New(fault.Invalid, "limit %d is outside the range of [1, 100]", limit)
	}
	host, term, err := splitTerm(term)
	if err != nil {
		return nil, err
	}
	e, err := c.origin(ctx, host)
	if err != nil {
		return nil, err
	}
	var out []SearchResult
	err = c.pace.repeat(ctx, func() error {
		out, err = e.search(ctx, term, limit, cred)
		return err
	})
	return out, err
}

// splitTerm cuts the registry from a term, with Docker's rules and texts.
func splitTerm(term string) (host, rest string, err error) {
	if strings.Contains(term, "://") {
		return "", "", fault.New(fault.Invalid, "invalid repository name: repository name (%s) should not have a scheme", clean(term, 200))
	}
	first, after, ok := strings.Cut(term, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		if u, err := hosts.Address(first); err != nil || u.Host != first {
			return "", "", fault.New(fault.Invalid, "invalid index name (%s)", clean(first, 200))
		}
		if loginDomain(first) != dockerDomain {
			return first, after, nil
		}
		term = after
	}
	return searchHost, strings.TrimPrefix(term, "library/"), nil
}

func (e *endpoint) search(ctx context.Context, term string, limit int, cred Credentials) ([]SearchResult, error) {
	scheme, auth := e.schemes[0], ""
	if len(e.schemes) > 1 || cred.IdentityToken != "" {
		f, err := e.known(ctx)
		if err != nil {
			return nil, err
		}
		scheme = f.scheme
		if cred.IdentityToken != "" {
			s := &session{endpoint: e, cred: cred, tokens: map[string]*token{}}
			if auth, err = s.authorization(ctx, e.url(scheme, "", nil), f.challenges, []string{searchScope}, ""); err != nil {
				return nil, err
			}
		}
	}
	if cred.Username != "" && cred.Password != "" {
		auth = basic(cred.Username, cred.Password)
	}
	to := &url.URL{Scheme: scheme, Host: e.host, Path: "/v1/search", RawQuery: url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}.Encode()}
	resp, err := e.exchange(ctx, &call{method: http.MethodGet, url: to}, auth)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		if err := refusalOf(resp); isTransient(err) {
			return nil, err
		}
		return nil, fault.New(fault.Unavailable, "Unexpected status code %d", resp.StatusCode)
	}
	data, err := readDocument(resp, maxSearch)
	if err != nil {
		return nil, err
	}
	var page struct {
		Results []struct {
			Name        string `json:"name"`
			Description string `json:"description"`
			StarCount   int    `json:"star_count"`
			IsOfficial  bool   `json:"is_official"`
			IsAutomated bool   `json:"is_automated"`
		} `json:"results"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, fault.New(fault.Unavailable, "error decoding the registry's search results: %w", err)
	}
	out := make([]SearchResult, 0, min(len(page.Results), limit))
	for _, r := range page.Results[:min(len(page.Results), limit)] {
		out = append(out, SearchResult(r))
	}
	return out, nil
}
