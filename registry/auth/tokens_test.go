package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tarehq/tare/registry"
)

// signer makes tokens with one key.
type signer struct {
	algorithm jose.SignatureAlgorithm
	key       any
	id        string
	chain     []string // x5c
	embed     bool
}

func (s signer) public() crypto.PublicKey { return s.key.(crypto.Signer).Public() }

func (s signer) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.public(), KeyID: s.id, Algorithm: string(s.algorithm), Use: "sig"}
}

// sign makes a token for alice with access to team/app; changed replaces claims,
// nil removes them.
func (s signer) sign(t testing.TB, changed map[string]any) string {
	t.Helper()
	o := (&jose.SignerOptions{EmbedJWK: s.embed}).WithType("JWT")
	if s.chain != nil {
		o = o.WithHeader("x5c", s.chain)
	}
	var k any = s.key
	if s.id != "" {
		k = jose.JSONWebKey{Key: s.key, KeyID: s.id}
	}
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: k}, o)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": "auth.example", "sub": "alice", "aud": "reg.example", "exp": now + 300, "nbf": now, "iat": now,
		"access": []grant{{"repository", "team/app", []string{"pull", "push"}}},
	}
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	raw, err := jwt.Signed(made).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func makeKeys(t testing.TB) (rs, es, ed signer) {
	t.Helper()
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	e, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, d, err3 := ed25519.GenerateKey(rand.Reader)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	return signer{algorithm: jose.RS256, key: r, id: "r"}, signer{algorithm: jose.ES256, key: e, id: "e"}, signer{algorithm: jose.EdDSA, key: d, id: "d"}
}

func writeJWKS(t testing.TB, file string, of ...signer) {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, s := range of {
		set.Keys = append(set.Keys, s.jwk())
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, file, string(data))
}

func tokenGate(t testing.TB, c TokenConfig) *Gate {
	t.Helper()
	c.Realm, c.Service, c.Issuer = "https://auth.example/token", "reg.example", "auth.example"
	tokens, err := NewTokens(c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Tokens: tokens})
}

const (
	tokenChallenge = `401 Bearer realm="https://auth.example/token",service="reg.example"`
	invalid        = tokenChallenge + `,scope="repository:team/app:pull",error="invalid_token"`
)

func TestTokensByEachKindOfKey(t *testing.T) {
	rs, es, ed := makeKeys(t)
	file := filepath.Join(t.TempDir(), "jwks")
	writeJWKS(t, file, rs, es, ed)
	g := tokenGate(t, TokenConfig{JWKS: file})
	for _, s := range []signer{rs, es, ed} {
		wants(t, g, bearer(s.sign(t, nil)), "alice", pull, push)
		wants(t, g, bearer(s.sign(t, nil)), "alice", ping)
		s.id = ""
		wants(t, g, bearer(s.sign(t, nil)), "alice", pull)
	}
	wants(t, g, basic("", ""), tokenChallenge, ping)
	wants(t, g, basic("", ""), tokenChallenge+`,scope="repository:team/app:pull,push"`, push)
	other := registry.Access{Repository: "other", Action: registry.Pull}
	wants(t, g, bearer(rs.sign(t, nil)), tokenChallenge+`,scope="repository:other:pull",error="insufficient_scope"`, other)
	wants(t, g, bearer(rs.sign(t, nil)), tokenChallenge+`,scope="repository:team/app:delete",error="insufficient_scope"`, registry.Access{Repository: "team/app", Action: registry.Delete})
	star := map[string]any{"access": []grant{{"repository", "team/app", []string{"*"}}}}
	wants(t, g, bearer(rs.sign(t, star)), "alice", pull, push, registry.Access{Repository: "team/app", Action: registry.Delete})

	catalog := bearer(rs.sign(t, map[string]any{"access": []grant{{"registry", "catalog", []string{"*"}}}}))
	wants(t, g, catalog, tokenChallenge+`,scope="repository:other:pull",error="insufficient_scope"`, other)
	catalog.URL.Path = catalogPath
	wants(t, g, catalog, "alice", other)
	plain := basic("", "")
	plain.URL.Path = catalogPath
	wants(t, g, plain, tokenChallenge+`,scope="registry:catalog:*"`, ping)
}

func TestTokensThatAreRefused(t *testing.T) {
	rs, es, _ := makeKeys(t)
	_, stranger, _ := makeKeys(t)
	file := filepath.Join(t.TempDir(), "jwks")
	writeJWKS(t, file, rs, es)
	g := tokenGate(t, TokenConfig{JWKS: file})
	now := time.Now().Unix()
	for name, changed := range map[string]map[string]any{
		"expired": {"exp": now - 60}, "never ending": {"exp": nil}, "of the future": {"nbf": now + 60}, "of another issuer": {"iss": "x"}, "of no issuer": {"iss": nil},
		"for another service": {"aud": "x"}, "for others": {"aud": []string{"x", "y"}}, "for nobody": {"aud": nil}, "of another form": {"access": "all"},
	} {
		t.Run(name, func(t *testing.T) { wants(t, g, bearer(rs.sign(t, changed)), invalid, pull) })
	}
	wants(t, g, bearer(rs.sign(t, map[string]any{"aud": []string{"x", "reg.example"}, "exp": now - 10})), "alice", pull) // clocks differ a little

	public, err := x509.MarshalPKIXPublicKey(rs.public())
	if err != nil {
		t.Fatal(err)
	}
	stranger.id = "e"
	own := stranger
	own.embed = true
	good := rs.sign(t, nil)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for name, raw := range map[string]string{
		"HMAC with the public key": signer{algorithm: jose.HS256, key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), id: "r"}.sign(t, nil),
		"not signed":               none + "." + parts[1] + ".",
		"not signed at all":        none + "." + parts[1] + "." + parts[2],
		"another's":                stranger.sign(t, nil),
		"its own key":              own.sign(t, nil),
		"another key's name":       signer{algorithm: jose.RS256, key: rs.key, id: "e"}.sign(t, nil),
		"changed":                  parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root"}`)) + "." + parts[2],
		"empty":                    "", "short": "a.b", "long": strings.Repeat("a.", 500),
	} {
		t.Run(name, func(t *testing.T) { wants(t, g, bearer(raw), invalid, pull) })
	}
}

func TestVerifiedTokenEndsWithItsTimeAndItsKey(t *testing.T) {
	rs, es, _ := makeKeys(t)
	file := filepath.Join(t.TempDir(), "jwks")
	writeJWKS(t, file, rs)
	g := tokenGate(t, TokenConfig{JWKS: file})
	raw := rs.sign(t, nil)
	wants(t, g, bearer(raw), "alice", pull)
	if len(g.tokens.known) != 1 {
		t.Errorf("%d tokens are remembered", len(g.tokens.known))
	}
	now := time.Now().Add(time.Hour)
	g.tokens.now = func() time.Time { return now }
	wants(t, g, bearer(raw), invalid, pull)
	g.tokens.now = time.Now
	wants(t, g, bearer(raw), "alice", pull)
	writeJWKS(t, file, es)
	wants(t, g, bearer(raw), invalid, pull)
	wants(t, g, bearer(es.sign(t, nil)), "alice", pull)
}

func TestKeysByURL(t *testing.T) {
	rs, es, ed := makeKeys(t)
	var asked atomic.Int32
	var set atomic.Value
	publish := func(of ...signer) {
		file := filepath.Join(t.TempDir(), "jwks")
		writeJWKS(t, file, of...)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		set.Store(data)
	}
	publish(rs)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Write(set.Load().([]byte))
	}))
	defer server.Close()
	g := tokenGate(t, TokenConfig{JWKS: server.URL})
	now := time.Now()
	g.tokens.keys.now = func() time.Time { return now }
	count := func(want int32) {
		t.Helper()
		if n := asked.Load(); n != want {
			t.Errorf("the keys were asked for %d times, want %d", n, want)
		}
	}
	count(0)
	for range 3 {
		wants(t, g, bearer(rs.sign(t, nil)), "alice", pull)
	}
	count(1)
	publish(rs, es)
	wants(t, g, bearer(es.sign(t, nil)), invalid, pull) // asked just now
	count(1)
	now = now.Add(fetchLeast)
	wants(t, g, bearer(es.sign(t, nil)), "alice", pull)
	count(2)
	for range 5 { // strangers' keys do not make it ask
		wants(t, g, bearer(ed.sign(t, nil)), invalid, pull)
	}
	count(2)
	now = now.Add(fetchEvery)
	publish(es)
	wants(t, g, bearer(rs.sign(t, nil)), invalid, pull)
	count(3)
	now = now.Add(fetchEvery)
	set.Store([]byte("<html>"))
	wants(t, g, bearer(es.sign(t, nil)), "alice", pull) // what was known stays
	count(4)
}

// certificate is signed by the parent, or by itself.
func certificate(t testing.TB, of signer, parent *x509.Certificate, by signer) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: of.id}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, of.public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestCertificates(t *testing.T) {
	rs, es, ed := makeKeys(t)
	root := certificate(t, rs, nil, rs)
	file := filepath.Join(t.TempDir(), "root.pem")
	replace(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})))
	g := tokenGate(t, TokenConfig{Certificates: []string{file}})
	rs.id = "AAAA:BBBB" // Docker's token servers name keys in ways of their own
	wants(t, g, bearer(rs.sign(t, nil)), "alice", pull)
	b64 := base64.StdEncoding.EncodeToString
	es.chain = []string{b64(certificate(t, es, root, rs).Raw)}
	wants(t, g, bearer(es.sign(t, nil)), "alice", pull)
	ed.chain = []string{b64(certificate(t, ed, nil, ed).Raw)}
	wants(t, g, bearer(ed.sign(t, nil)), invalid, pull)
	ed.chain = es.chain // another's certificate
	wants(t, g, bearer(ed.sign(t, nil)), invalid, pull)
}

func TestRulesBindTokensToo(t *testing.T) {
	rs, _, _ := makeKeys(t)
	file := filepath.Join(t.TempDir(), "jwks")
	writeJWKS(t, file, rs)
	with := tokenGate(t, TokenConfig{JWKS: file})
	p, _ := passwords(t, "robot", "r")
	g := New(Config{Tokens: with.tokens, Passwords: p, Rules: []Rule{{Match: list("**"), Pull: []string{"authenticated"}}}})
	wants(t, g, bearer(rs.sign(t, nil)), "alice", pull)
	wants(t, g, bearer(rs.sign(t, nil)), "403", push)
	wants(t, g, basic("robot", "r"), "robot", pull)
	wants(t, g, basic("robot", "x"), tokenChallenge, ping)
}

func TestKeysThatAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	weak := base64.RawURLEncoding.EncodeToString(append([]byte{0xc1}, make([]byte, 127)...)) // 1024 bits
	for name, text := range map[string]string{"weak": `{"keys":[{"kty":"RSA","e":"AQAB","n":"` + weak + `"}]}`, "symmetric": `{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}`, "none": `{"keys":[]}`, "other": "{"} {
		replace(t, file, text)
		if _, err := NewTokens(TokenConfig{JWKS: file}, quiet); err == nil {
			t.Errorf("%s: the keys were taken", name)
		}
	}
}
