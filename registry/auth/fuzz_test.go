package auth

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarehq/tare/registry"
)

func FuzzAuthorization(f *testing.F) {
	dir := f.TempDir()
	rs, es, _ := makeKeys(f)
	writeJWKS(f, dir+"/jwks", rs, es)
	writeUsers(f, dir+"/htpasswd", "alice", "a")
	p, err := OpenPasswords(dir+"/htpasswd", quiet)
	if err != nil {
		f.Fatal(err)
	}
	tokens, err := NewTokens(TokenConfig{Issuer: "auth.example", Service: "reg.example", JWKS: dir + "/jwks"}, quiet)
	if err != nil {
		f.Fatal(err)
	}
	own := New(Config{Passwords: p, Rules: []Rule{{Match: list("**"), Pull: []string{"*"}, Push: []string{"authenticated"}}}})
	external := New(Config{Passwords: p, Tokens: tokens})
	for _, s := range []string{"", "Basic YWxpY2U6YQ==", "basic Og==", "Bearer " + own.issuer.token("alice"), "Bearer " + own.issuer.token(""), "Bearer " + rs.sign(f, nil), "Bearer a.b.c", "Bearer", "Digest x", "Bearer tare.x.y"} {
		f.Add(s)
	}
	trusted := map[string]bool{"Basic YWxpY2U6YQ==": true}
	f.Fuzz(func(t *testing.T, header string) {
		for _, g := range []*Gate{own, external} {
			r := httptest.NewRequest("GET", "http://reg.example/v2/", nil)
			r.Header.Set("Authorization", header)
			user, err := g.Authorize(r, push)
			name, password, ok := r.BasicAuth()
			if err == nil && !trusted[header] && !(ok && name == "alice" && password == "a") && !strings.HasPrefix(strings.ToLower(header), "bearer ") {
				t.Errorf("%q may push as %q", header, user)
			}
			if err == nil && user != "alice" {
				t.Errorf("%q is %q", header, user)
			}
		}
	})
}

// Whatever the names are, a client reads from the challenge what was meant.
func FuzzScopes(f *testing.F) {
	f.Add("team/app", "reg.example", "pull")
	f.Add("a\"b\\c", "x\r\ny", "push")
	f.Fuzz(func(t *testing.T, repo, host, action string) {
		r := httptest.NewRequest("GET", "http://reg.example/v2/", nil)
		r.Host = host
		g := New(Config{Rules: []Rule{{Match: list("**"), Pull: []string{"*"}}}, Passwords: &Passwords{}})
		header := g.challenge(r, []registry.Access{{Repository: repo, Action: registry.Action(action)}}, "", errRequired).(*registry.Challenge).Header
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q", header)
		}
		quotes := 0
		for i := 0; i < len(header); i++ {
			switch header[i] {
			case '\\':
				i++
			case '"':
				quotes++
			}
		}
		want := 6
		if repo == "" {
			want = 4
		}
		if quotes != want {
			t.Errorf("%q has %d quotes", header, quotes)
		}
	})
}
