package registry

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

const issuer = "token server of tests"

// Rights are what the token server grants: user -> pattern of path.Match for
// the repository -> actions ("pull", "push", "delete", or "*" for all three).
// The user "" is who gives no name. The repository "registry" stands for the
// catalog.
type Rights struct {
	Passwords map[string]string
	Access    map[string]map[string][]string

	GetOnly  bool          // answer POST, the OAuth2 way, with 404 as many servers do
	Lifetime time.Duration // of tokens, an hour when 0; the registry allows a minute more
	Plain    bool          // speak HTTP even when the registry speaks HTTPS
}

// Asked is one request to the token server.
type Asked struct {
	Method  string
	User    string   // who was named, rightly or not
	Grant   string   // "", or the POST's grant_type
	Service string   // as asked
	Scopes  []string // as asked, one scope each
	Offline bool     // a refresh token was asked for
	Status  int      // of the answer
}

// Tokens is a token server over HTTP (HTTPS when the registry is), in the
// test's process: Docker's token authentication by GET, and by POST with
// passwords and refresh tokens (distribution, spec/auth/{token,oauth,jwt,scope}).
type Tokens struct {
	Realm   string // URL
	Service string

	rights *Rights
	signer *signer
	server *httptest.Server
	mu     sync.Mutex
	asked  []Asked
	fresh  map[string]string // refresh token -> user
}

func serveTokens(rights *Rights, ca *authority) (*Tokens, error) {
	key, err := newSigner(&x509.Certificate{Subject: pkix.Name{CommonName: issuer}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}, nil)
	if err != nil {
		return nil, err
	}
	s := &Tokens{Service: "registry of tests", rights: rights, signer: key, fresh: map[string]string{}}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(s.serve)}}
	if ca != nil && !rights.Plain {
		s.server.TLS = ca.serving()
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	s.Realm = s.server.URL + "/token"
	return s, nil
}

func (s *Tokens) close() { s.server.Close() }

// Asked lists the requests so far.
func (s *Tokens) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Revoke makes the server forget the refresh tokens that it gave.
func (s *Tokens) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.fresh)
}

func (s *Tokens) serve(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil || r.URL.Path != "/token" {
		http.NotFound(w, r)
		return
	}
	a := Asked{Method: r.Method, Service: r.Form.Get("service")}
	for _, scope := range r.Form["scope"] {
		a.Scopes = append(a.Scopes, strings.Fields(scope)...)
	}
	var user string
	a.Status, user = s.identify(r, &a)
	s.mu.Lock()
	s.asked = append(s.asked, a)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if a.Status != http.StatusOK {
		w.WriteHeader(a.Status)
		fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}],"details":"incorrect username or password"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(s.answer(user, &a))
}

// identify tells who asks, and the status when he may not.
func (s *Tokens) identify(r *http.Request, a *Asked) (status int, user string) {
	var password string
	switch {
	case r.Method == http.MethodGet:
		a.Offline = r.Form.Get("offline_token") == "true"
		a.User, password, _ = r.BasicAuth()
	case r.Method != http.MethodPost || s.rights.GetOnly:
		return http.StatusNotFound, ""
	default:
		a.Grant, a.Offline = r.PostForm.Get("grant_type"), r.PostForm.Get("access_type") == "offline"
		if r.PostForm.Get("client_id") == "" || a.Service == "" {
			return http.StatusBadRequest, ""
		}
		if a.Grant == "refresh_token" {
			s.mu.Lock()
			defer s.mu.Unlock()
			if a.User = s.fresh[r.PostForm.Get("refresh_token")]; a.User == "" {
				return http.StatusUnauthorized, ""
			}
			return http.StatusOK, a.User
		}
		a.User, password = r.PostForm.Get("username"), r.PostForm.Get("password")
		if a.Grant != "password" || a.User == "" {
			return http.StatusBadRequest, ""
		}
	}
	if right, known := s.rights.Passwords[a.User]; a.User != "" && (!known || right != password) {
		return http.StatusUnauthorized, ""
	}
	return http.StatusOK, a.User
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (s *Tokens) answer(user string, a *Asked) map[string]any {
	lifetime := s.rights.Lifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	now := time.Now()
	token := s.sign(map[string]any{"iss": issuer, "sub": user, "aud": s.Service, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(lifetime).Unix(), "access": s.grant(user, a.Scopes)})
	answer := map[string]any{"access_token": token, "expires_in": int(lifetime.Seconds()), "issued_at": now.UTC().Format(time.RFC3339)}
	if a.Method == http.MethodPost {
		answer["scope"] = strings.Join(a.Scopes, " ")
	} else {
		answer["token"] = token
	}
	if user != "" && (a.Offline || a.Grant == "refresh_token") {
		fresh := rand.Text()
		s.mu.Lock()
		s.fresh[fresh] = user
		s.mu.Unlock()
		answer["refresh_token"] = fresh
	}
	return answer
}

// grant is what of the scopes the user may. A scope is "type:name:actions",
// and a name may have colons, of a port.
func (s *Tokens) grant(user string, scopes []string) []access {
	granted := []access{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		i := strings.LastIndexByte(rest, ':')
		if i < 0 {
			continue
		}
		name, wanted := rest[:i], strings.Split(rest[i+1:], ",")
		key := name
		if kind == "registry" {
			key = "registry"
		}
		got := access{Type: kind, Name: name, Actions: []string{}}
		for pattern, actions := range s.rights.Access[user] {
			if ok, _ := path.Match(pattern, key); ok || pattern == "**" {
				for _, w := range wanted {
					if slices.Contains(actions, w) || slices.Contains(actions, "*") {
						got.Actions = append(got.Actions, w)
					}
				}
			}
		}
		granted = append(granted, got)
	}
	return granted
}

// sign makes a JWT with ES256 (RFC 7518, section 3.4: r and s, 32 bytes each)
// whose key is told by its certificate.
func (s *Tokens) sign(claims map[string]any) string {
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	text := part(map[string]any{"typ": "JWT", "alg": "ES256",
		"x5c": []string{base64.StdEncoding.EncodeToString(s.signer.cert.Raw)}}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	x, y, err := ecdsa.Sign(rand.Reader, s.signer.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
