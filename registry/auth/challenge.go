package auth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tarehq/tare/registry"
)

const (
	catalogPath = "/v2/_catalog"
	// TokenPath is where Gate.ServeToken is to be found.
	TokenPath = "/v2/token"
)

// challenge tells a client how to come back: with a password, or with a token
// for the scopes that it lacks. reason is an error code of RFC 6750, or "".
func (g *Gate) challenge(r *http.Request, want []registry.Access, reason string, err error) error {
	if g.tokens == nil && g.issuer == nil {
		return &registry.Challenge{Header: `Basic realm=` + quote(g.realm) + `,charset="UTF-8"`, Err: err}
	}
	realm, service := "", ""
	if g.tokens != nil {
		realm, service = g.tokens.config.Realm, g.tokens.config.Service
	} else {
		realm, service = g.address(r)+TokenPath, r.Host
	}
	header := "Bearer realm=" + quote(realm) + ",service=" + quote(service)
	if s := scopes(r, want); s != "" {
		header += ",scope=" + quote(s)
	}
	if reason != "" {
		header += ",error=" + quote(reason)
	}
	return &registry.Challenge{Header: header, Err: err}
}

// address is where the client sees the registry.
func (g *Gate) address(r *http.Request) string {
	switch {
	case g.url != "":
		return g.url
	case r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https":
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// scopes are what a token needs, in the words of Docker's token protocol:
// repository:NAME:ACTION,… parted by spaces. Who pushes has to look first.
func scopes(r *http.Request, want []registry.Access) string {
	var names []string
	actions := map[string][]string{}
	add := func(name string, action registry.Action) {
		if !slices.Contains(actions[name], string(action)) {
			actions[name] = append(actions[name], string(action))
		}
	}
	for _, w := range want {
		if w.Repository == "" {
			continue
		}
		if !slices.Contains(names, w.Repository) {
			names = append(names, w.Repository)
		}
		if w.Action == registry.Push {
			add(w.Repository, registry.Pull)
		}
		add(w.Repository, w.Action)
	}
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, fmt.Sprintf("repository:%s:%s", name, strings.Join(actions[name], ",")))
	}
	if r.URL.Path == catalogPath {
		out = []string{"registry:catalog:*"}
	}
	return strings.Join(out, " ")
}

// quote makes a quoted string of RFC 9110, 5.6.4. What no header may have is
// left out.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// grant is what a token allows with one thing.
type grant struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// granted tells whether a token's claims allow it. One for the catalog allows
// to see there what is in it.
func granted(grants []grant, want registry.Access, catalog bool) bool {
	for _, g := range grants {
		switch {
		case g.Type == "repository" && g.Name == want.Repository:
			if slices.Contains(g.Actions, string(want.Action)) || slices.Contains(g.Actions, "*") {
				return true
			}
		case catalog && g.Type == "registry" && g.Name == "catalog" && want.Action == registry.Pull:
			if slices.Contains(g.Actions, "*") {
				return true
			}
		}
	}
	return false
}
