package auth

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/pattern"
)

var quiet = slog.New(slog.DiscardHandler)

// writeUsers makes a file of names and passwords, in turn.
func writeUsers(t testing.TB, file string, pairs ...string) {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		hash, err := bcrypt.GenerateFromPassword([]byte(pairs[i+1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(pairs[i] + ":" + string(hash) + "\n")
	}
	replace(t, file, b.String())
}

func replace(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func passwords(t testing.TB, pairs ...string) (*Passwords, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	writeUsers(t, file, pairs...)
	p, err := OpenPasswords(file, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return p, file
}

func basic(user, password string) *http.Request {
	r := httptest.NewRequest("GET", "http://reg.example/v2/", nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	return r
}

func bearer(token string) *http.Request {
	r := basic("", "")
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func list(texts ...string) (l pattern.List) {
	for _, s := range texts {
		l = append(l, pattern.MustParse(s))
	}
	return l
}

// wants checks what became of a request: the user's name, "401" with what the
// challenge has in it, or "403".
func wants(t testing.TB, g *Gate, r *http.Request, want string, what ...registry.Access) {
	t.Helper()
	user, err := g.Authorize(r, what...)
	var c *registry.Challenge
	got := user
	switch {
	case errors.As(err, &c):
		got = "401 " + c.Header
		if !errors.Is(err, fault.Unauthorized) {
			t.Errorf("the challenge is %v", fault.KindOf(err))
		}
	case errors.Is(err, fault.Forbidden) && !errors.Is(err, fault.Unauthorized):
		got = "403"
	case err != nil:
		got = err.Error()
	}
	if got != want {
		t.Errorf("%v: %v\n got %s\nwant %s", what, err, got, want)
	}
}

const basicChallenge = `401 Basic realm="tare-registry",charset="UTF-8"`

var (
	ping = registry.Access{}
	pull = registry.Access{Repository: "team/app", Action: registry.Pull}
	push = registry.Access{Repository: "team/app", Action: registry.Push}
)

func TestPasswordsWithoutRules(t *testing.T) {
	p, _ := passwords(t, "alice", "secret", "bob", "hidden")
	g := New(Config{Passwords: p})
	wants(t, g, basic("alice", "secret"), "alice", ping)
	wants(t, g, basic("alice", "secret"), "alice", push, pull)
	wants(t, g, basic("alice", "hidden"), basicChallenge, pull)
	wants(t, g, basic("carol", "hidden"), basicChallenge, pull)
	wants(t, g, basic("", ""), basicChallenge, ping)
	wants(t, g, basic("", ""), basicChallenge, pull)
	wants(t, g, bearer("x"), basicChallenge, pull)
	r := basic("", "")
	r.Header.Set("Authorization", "Basic %%%")
	wants(t, g, r, basicChallenge, ping)
	r.Header.Set("Authorization", "Basic Og==") // ":"
	wants(t, g, r, basicChallenge, pull)
}

func TestRules(t *testing.T) {
	p, _ := passwords(t, "alice", "a", "bob", "b", "ops", "o")
	g := New(Config{Passwords: p, Groups: map[string][]string{"devs": {"alice"}}, Rules: []Rule{
		{Match: list("team/private"), Pull: []string{"ops"}, Delete: []string{"ops"}},
		{Match: list("team/**"), Pull: []string{"authenticated"}, Push: []string{"@devs"}},
		{Match: list("drop/*"), Push: []string{"bob"}},
	}})
	private := registry.Access{Repository: "team/private", Action: registry.Pull}
	wants(t, g, basic("alice", "a"), "alice", push, pull)
	wants(t, g, basic("bob", "b"), "bob", pull)
	wants(t, g, basic("bob", "b"), "403", push)
	wants(t, g, basic("bob", "b"), "403", pull, push)
	wants(t, g, basic("", ""), basicChallenge, pull)
	wants(t, g, basic("alice", "a"), "403", private) // the first rule that matches decides
	wants(t, g, basic("ops", "o"), "ops", private, registry.Access{Repository: "team/private", Action: registry.Delete})
	wants(t, g, basic("ops", "o"), "403", registry.Access{Repository: "team/app", Action: registry.Delete})
	wants(t, g, basic("bob", "b"), "bob", registry.Access{Repository: "drop/x", Action: registry.Pull}) // who pushes pulls
	wants(t, g, basic("ops", "o"), "403", registry.Access{Repository: "elsewhere", Action: registry.Pull})
	wants(t, g, basic("ops", "o"), "ops", ping)
}

// A registry for everybody to read has no way to log in, and needs none.
func TestRulesAlone(t *testing.T) {
	g := New(Config{Rules: []Rule{{Match: list("**"), Pull: []string{"*"}}}})
	for _, r := range []*http.Request{basic("", ""), basic("left", "over"), bearer("x")} {
		wants(t, g, r, "", ping)
		wants(t, g, r, "", pull)
		wants(t, g, r, "403", push)
	}
}

func TestPasswordsChangeWithTheFile(t *testing.T) {
	p, file := passwords(t, "alice", "old")
	g := New(Config{Passwords: p})
	wants(t, g, basic("alice", "old"), "alice", pull)
	writeUsers(t, file, "alice", "new")
	wants(t, g, basic("alice", "old"), basicChallenge, pull)
	wants(t, g, basic("alice", "new"), "alice", pull)
	replace(t, file, "alice:$apr1$abc$def\n")
	wants(t, g, basic("alice", "new"), "alice", pull) // and the log tells
	writeUsers(t, file, "bob", "b")
	wants(t, g, basic("alice", "new"), basicChallenge, pull)
}

// While every turn is taken nothing can be computed: what is answered was
// remembered.
func TestRightPasswordIsRemembered(t *testing.T) {
	p, _ := passwords(t, "alice", "a")
	g := New(Config{Passwords: p})
	wants(t, g, basic("alice", "a"), "alice", pull)
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	wants(t, g, basic("alice", "a"), "alice", pull)
}

func TestGuessingIsDamped(t *testing.T) {
	p, _ := passwords(t, "alice", "a", "bob", "b")
	now := time.Unix(1e9, 0)
	p.failures.now = func() time.Time { return now }
	g := New(Config{Passwords: p})
	for range maxFailures {
		wants(t, g, basic("alice", "x"), basicChallenge, pull)
	}
	wants(t, g, basic("alice", "a"), basicChallenge, pull)
	wants(t, g, basic("bob", "b"), "bob", pull)
	elsewhere := basic("alice", "a")
	elsewhere.RemoteAddr = "[2001:db8::1]:99"
	wants(t, g, elsewhere, "alice", pull)
	now = now.Add(forgetFailure)
	wants(t, g, basic("alice", "a"), "alice", pull)
}

func TestFailuresAreBounded(t *testing.T) {
	var f failures
	for i := range maxFailed + 100 {
		f.add(f.key("192.0.2.1", string(rune(i+1000))))
	}
	if len(f.of) > maxFailed {
		t.Errorf("%d are remembered", len(f.of))
	}
	if origin("[2001:db8::1]:1") != origin("[2001:db8::2]:2") || origin("192.0.2.1:1") == origin("192.0.2.2:1") {
		t.Error("addresses are told apart in the wrong way")
	}
}

func TestPasswordFilesThatAreRefused(t *testing.T) {
	good, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"alice:$apr1$x$y":       "1: the password of alice is not hashed by bcrypt",
		"# c\n\nalice:{SHA}abc": "3: the password of alice is not hashed by bcrypt",
		"alice":                 "1: this is no user",
		"alice:$2y$05$short":    "1: the hash of alice is not whole",
		"a:" + string(good) + "\na:" + string(good):             "2: there is a user a already",
		"a:" + strings.Replace(string(good), "$04$", "$31$", 1): "1: the hash of a has the cost 31",
	} {
		if _, err := parseUsers([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if u, err := parseUsers([]byte("a:" + strings.Replace(string(good), "$2a$", "$2y$", 1))); err != nil || len(u.hashes) != 1 {
		t.Errorf("%v", err)
	}
}

func publicGate(t testing.TB) (*Gate, string) {
	p, file := passwords(t, "alice", "a")
	return New(Config{Passwords: p, Rules: []Rule{{Match: list("**"), Pull: []string{"*"}, Push: []string{"authenticated"}}}}), file
}

// token asks the gate for a token, as Docker's clients do.
func token(t testing.TB, g *Gate, user, password string) (string, int) {
	t.Helper()
	r := httptest.NewRequest("GET", TokenPath+"?service=reg.example&scope=repository:team/app:pull,push", nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	g.ServeToken(w, r)
	var answer struct {
		Token     string
		ExpiresIn int `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	if w.Code == 200 && answer.ExpiresIn < 60 {
		t.Errorf("the token lives for %d s, less than a client can know", answer.ExpiresIn)
	}
	return answer.Token, w.Code
}

func TestTokensOfItsOwn(t *testing.T) {
	g, file := publicGate(t)
	const to = `401 Bearer realm="http://reg.example/v2/token",service="reg.example"`
	wants(t, g, basic("", ""), to, ping)
	wants(t, g, basic("", ""), "", pull)
	wants(t, g, basic("", ""), to+`,scope="repository:team/app:pull,push"`, push)
	nobody, code := token(t, g, "", "")
	if code != 200 {
		t.Fatal(code)
	}
	wants(t, g, bearer(nobody), "", ping)
	wants(t, g, bearer(nobody), "", pull)
	wants(t, g, bearer(nobody), to+`,scope="repository:team/app:pull,push",error="insufficient_scope"`, push)
	alice, _ := token(t, g, "alice", "a")
	wants(t, g, bearer(alice), "alice", push, pull)
	wants(t, g, bearer(alice), "403", registry.Access{Repository: "team/app", Action: registry.Delete})
	wants(t, g, basic("alice", "a"), "alice", push)
	if _, code := token(t, g, "alice", "wrong"); code != 401 {
		t.Errorf("a wrong password got %d", code)
	}
	const bad = to + `,error="invalid_token"`
	for _, s := range []string{"", "tare.", "tare.AAAA.AAAA", alice[:len(alice)-2] + "AA", "tare." + strings.Repeat("A", 40) + ".", strings.Replace(nobody, ".", ".A", 1)} {
		wants(t, g, bearer(s), bad, ping)
	}
	wants(t, New(Config{Passwords: g.passwords, Rules: g.rules.list}), bearer(alice), bad, ping) // of another process
	writeUsers(t, file, "alice", "changed")
	wants(t, g, bearer(alice), bad, ping)
	wants(t, g, bearer(nobody), "", pull)
	g.issuer.now = func() time.Time { return time.Now().Add(tokenLife + time.Second) }
	wants(t, g, bearer(nobody), bad, ping)
}

func TestTokenAddress(t *testing.T) {
	g, _ := publicGate(t)
	r := basic("", "")
	r.Header.Set("X-Forwarded-Proto", "https")
	wants(t, g, r, `401 Bearer realm="https://reg.example/v2/token",service="reg.example"`, ping)
	g.url = "https://outside.example/x"
	wants(t, g, r, `401 Bearer realm="https://outside.example/x/v2/token",service="reg.example"`, ping)
	for _, r := range []*http.Request{httptest.NewRequest("POST", TokenPath, nil)} {
		w := httptest.NewRecorder()
		if g.ServeToken(w, r); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
			t.Errorf("%s: %d", r.Method, w.Code)
		}
	}
}

// TestGuessesAtOnce has many guesses wait beside each other: they count as if
// they had come one after the other.
func TestGuessesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := passwords(t, "alice", "secret")
		p.turns = make(chan struct{}, 1)
		p.turns <- struct{}{}
		tooMany := make(chan bool)
		const guesses = 3 * maxFailures
		for i := range guesses {
			go func() {
				guess := "guess" + strconv.Itoa(i)
				tooMany <- errors.Is(p.check(basic("alice", guess), "alice", guess), errTooMany)
			}()
		}
		synctest.Wait()
		<-p.turns
		n := 0
		for range guesses {
			if <-tooMany {
				n++
			}
		}
		if n != guesses-maxFailures {
			t.Errorf("%d of %d guesses were not looked at", n, guesses)
		}
	})
}

// TestCrowdedAddress: whoever asks from elsewhere does not wait for all that one
// address asks under any names.
func TestCrowdedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := passwords(t, "alice", "secret")
		p.turns = make(chan struct{}, 1)
		p.turns <- struct{}{}
		ctx, end := context.WithCancel(t.Context())
		for i := range 50 {
			go p.check(basic("", "").WithContext(ctx), "nobody"+strconv.Itoa(i), "x")
		}
		synctest.Wait()
		elsewhere := basic("", "")
		elsewhere.RemoteAddr = "198.51.100.7:99"
		let := make(chan error)
		go func() { let <- p.check(elsewhere, "alice", "secret") }()
		synctest.Wait()
		<-p.turns
		if err := <-let; err != nil {
			t.Error(err)
		}
		p.strangers.mu.Lock()
		before := p.strangers.left(p.strangers.keyLocked(origin(basic("", "").RemoteAddr), ""))
		p.strangers.mu.Unlock()
		if before > 3 {
			t.Errorf("%d others came first", before)
		}
		end()
		synctest.Wait()
	})
}

// TestStrangersAreDamped: names that nobody has do not keep the processor busy
// for ever; who is known, and who comes from elsewhere, is let in.
func TestStrangersAreDamped(t *testing.T) {
	p, _ := passwords(t, "alice", "a", "bob", "b")
	now := time.Unix(1e9, 0)
	p.strangers.now = func() time.Time { return now }
	g := New(Config{Passwords: p})
	wants(t, g, basic("alice", "a"), "alice", pull)
	for i := range maxFromAddress {
		wants(t, g, basic("nobody"+strconv.Itoa(i), "x"), basicChallenge, pull)
	}
	wants(t, g, basic("bob", "b"), basicChallenge, pull)
	wants(t, g, basic("alice", "a"), "alice", pull)
	elsewhere := basic("bob", "b")
	elsewhere.RemoteAddr = "198.51.100.7:99"
	wants(t, g, elsewhere, "bob", pull)
	again := basic("carol", "c") // nobody, whom one failure less lets be looked at
	wants(t, g, again, basicChallenge, pull)
	now = now.Add(forgetFromAddress)
	if g := p.guess(again, "carol"); g.tooMany() {
		t.Error("failures are not forgotten")
	}
}

// TestWrongAddressesWaitForEachOther has those that guess from many addresses
// take one turn between them.
func TestWrongAddressesWaitForEachOther(t *testing.T) {
	p := &Passwords{turns: make(chan struct{}, 3), doubtful: make(chan struct{}, 1)}
	from := func(addr string) guess {
		return p.guess(&http.Request{RemoteAddr: addr + ":1"}, "ann")
	}
	for _, addr := range []string{"10.0.0.1", "10.0.0.2"} {
		from(addr).failed()
	}
	done, err := p.turn(t.Context(), from("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.turn(ctx, from("10.0.0.2")); err == nil {
		t.Error("two addresses that were wrong have passwords computed at once")
	}
	other, err := p.turn(t.Context(), from("10.0.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	other()
	done()
	if done, err = p.turn(t.Context(), from("10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	done()
}
