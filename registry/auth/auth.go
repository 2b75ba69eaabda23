// Package auth decides who may do what with a registry's repositories.
//
// Who somebody is, is told by a name and a password of an htpasswd file
// (Passwords), or by a token of the server that Docker's token protocol sends
// clients to (Tokens). What they may do is told by the token's claims, and by
// rules for repositories, where there are any; both have to allow it.
//
// Clients that want nothing but what is for everybody send no credentials. A
// client of Docker asks GET /v2/ once how to authenticate and takes that for
// all that follows: were everybody let in there, it would never send its
// password, and were everybody asked for a password, nobody without one could
// pull. So a registry that has passwords, and something for everybody, gives
// tokens itself (Issuer), to the unknown ones too.
package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
)

// Config is what a Gate decides by. Of Passwords and Tokens, one, both or none
// is there.
type Config struct {
	Realm     string // of the Basic challenge; "" is "tare-registry"
	URL       string // where clients see the registry; "" is as their requests say
	Passwords *Passwords
	Tokens    *Tokens
	Key       []byte // of tokens that the registry gives itself; nil is a random one
	Groups    map[string][]string
	Rules     []Rule
}

// Gate is a registry.Authorizer.
type Gate struct {
	realm, url string
	passwords  *Passwords
	tokens     *Tokens
	issuer     *issuer // nil unless the registry gives tokens itself
	rules      rules
}

// New makes a gate.
func New(c Config) *Gate {
	g := &Gate{realm: c.Realm, url: strings.TrimSuffix(c.URL, "/"), passwords: c.Passwords, tokens: c.Tokens, rules: rules{c.Rules, c.Groups}}
	if g.realm == "" {
		g.realm = "tare-registry"
	}
	if c.Passwords != nil && c.Tokens == nil && g.rules.public() {
		g.issuer = newIssuer(c.Key, c.Passwords)
	}
	return g
}

// identity is who sent a request.
type identity struct {
	name   string // "" for nobody in particular
	known  bool   // by credentials, be it that of nobody in particular
	scoped bool   // to what is granted
	grants []grant
}

// Authorize is registry.Authorizer's.
func (g *Gate) Authorize(r *http.Request, want ...registry.Access) (string, error) {
	who, err := g.identify(r)
	if err != nil {
		return "", g.challenge(r, want, reasonOf(err), err)
	}
	for _, w := range want {
		if w.Repository == "" {
			if !who.known && (g.passwords != nil || g.tokens != nil) {
				return "", g.challenge(r, want, "", errRequired)
			}
			continue
		}
		if who.scoped && !granted(who.grants, w, r.URL.Path == catalogPath) {
			return "", g.challenge(r, want, "insufficient_scope", fault.New(fault.Unauthorized, "%s", denied(who.name, w)))
		}
		allowed := g.rules.allow(who.name, w) || who.scoped && len(g.rules.list) == 0
		switch {
		case allowed:
		case who.name == "" && who.known:
			return "", g.challenge(r, want, "insufficient_scope", errRequired)
		case who.name == "" && (g.passwords != nil || g.tokens != nil):
			return "", g.challenge(r, want, "", errRequired)
		default:
			return "", fault.New(fault.Forbidden, "%s", denied(who.name, w))
		}
	}
	return who.name, nil
}

var errRequired = fault.New(fault.Unauthorized, "authentication required: log in to this registry")

func denied(user string, want registry.Access) string {
	who := "nobody without a login may"
	if user != "" {
		who = "user " + user + " may not"
	}
	return fmt.Sprintf("%s %s %s: ask whoever runs the registry", who, want.Action, want.Repository)
}

// identify reads the Authorization header. Basic without a name and a password,
// which some clients send, is nobody in particular.
func (g *Gate) identify(r *http.Request) (identity, error) {
	header := r.Header.Get("Authorization")
	if header == "" || g.passwords == nil && g.tokens == nil {
		return identity{}, nil
	}
	scheme, rest, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "Basic") && g.passwords != nil:
		user, password, ok := r.BasicAuth()
		if ok && user == "" && password == "" {
			return identity{}, nil
		}
		if !ok {
			return identity{}, fault.New(fault.Unauthorized, "the credentials cannot be read: want Basic and, in base64, NAME:PASSWORD")
		}
		if err := g.passwords.check(r, user, password); err != nil {
			return identity{}, err
		}
		return identity{name: user, known: true}, nil
	case strings.EqualFold(scheme, "Bearer") && g.issuer != nil:
		return g.issuer.verify(strings.TrimSpace(rest))
	case strings.EqualFold(scheme, "Bearer") && g.tokens != nil:
		return g.tokens.verify(r.Context(), strings.TrimSpace(rest))
	}
	return identity{}, fault.New(fault.Unauthorized, "this registry takes no credentials of the kind that was sent: log in to it again")
}

// tokenError is a token that is of no use, as RFC 6750 calls it.
type tokenError struct{ error }

func (e tokenError) Unwrap() error { return e.error }

func reasonOf(err error) string {
	var token tokenError
	if errors.As(err, &token) {
		return "invalid_token"
	}
	return ""
}

func badToken(format string, args ...any) error {
	return tokenError{fault.New(fault.Unauthorized, format, args...)}
}
