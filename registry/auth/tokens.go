package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TokenConfig is a server of tokens, as Docker's token protocol has it. The
// keys come from a JWKS (a file, or a URL), from certificates and public keys
// in PEM, or from both.
type TokenConfig struct {
	Realm, Service, Issuer string
	JWKS                   string
	CA                     string // file; of the server of the JWKS
	Certificates           []string
}

// Tokens verifies the tokens of a server.
type Tokens struct {
	config TokenConfig
	keys   *keyring
	now    func() time.Time

	mu    sync.Mutex
	known map[[32]byte]knownToken
	since int // the keys that they were verified by
}

// knownToken is one that was verified.
type knownToken struct {
	who  identity
	ends time.Time
}

const (
	maxKnown = 4096
	leeway   = 30 * time.Second
)

// NewTokens reads the files. A URL is asked when there is the first token.
func NewTokens(c TokenConfig, log *slog.Logger) (*Tokens, error) {
	keys, err := newKeyring(c, log)
	if err != nil {
		return nil, err
	}
	return &Tokens{config: c, keys: keys, now: time.Now, known: map[[32]byte]knownToken{}}, nil
}

// algorithms are all that are taken; each key has its own among them. None of
// them can be made with a public key, and "none" is none of them.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

type claims struct {
	jwt.Claims
	Access []grant `json:"access"`
}

// verify tells who a token is for, and what it grants.
func (t *Tokens) verify(ctx context.Context, raw string) (identity, error) {
	sum := sha256.Sum256([]byte(raw))
	generation := t.keys.refresh(ctx)
	if who, ok := t.lookup(sum, generation); ok {
		return who, nil
	}
	token, err := jwt.ParseSigned(raw, algorithms)
	if err != nil || len(token.Headers) != 1 {
		return identity{}, badToken("the token cannot be read: log in again")
	}
	var c claims
	if err := t.keys.open(ctx, token, &c); err != nil {
		return identity{}, err
	}
	if err := t.validate(&c); err != nil {
		return identity{}, err
	}
	who := identity{name: printable(c.Subject), known: true, scoped: true, grants: c.Access}
	t.store(sum, generation, knownToken{who, c.Expiry.Time().Add(leeway)})
	return who, nil
}

func (t *Tokens) validate(c *claims) error {
	if c.Expiry == nil {
		return badToken("the token never expires: this registry takes none of that kind")
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: t.config.Issuer, AnyAudience: jwt.Audience{t.config.Service}, Time: t.now()}, leeway)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return badToken("the token has expired: ask for another")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return badToken("the token is not valid yet: compare the clocks of the registry and of its token server")
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return badToken("the token is of another issuer than this registry trusts")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return badToken("the token is for another registry than this")
	}
	return badToken("the token cannot be used: log in again")
}

// lookup finds a token that was verified by these keys. Tokens that other keys
// have verified are forgotten.
func (t *Tokens) lookup(sum [32]byte, generation int) (identity, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since != generation {
		t.since = generation
		clear(t.known)
	}
	k, ok := t.known[sum]
	if ok && !t.now().Before(k.ends) {
		delete(t.known, sum)
		ok = false
	}
	return k.who, ok
}

func (t *Tokens) store(sum [32]byte, generation int, k knownToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since != generation {
		return
	}
	for old := range t.known {
		if len(t.known) < maxKnown {
			break
		}
		delete(t.known, old)
	}
	t.known[sum] = k
}
