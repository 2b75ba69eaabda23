package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
)

func TestEmptyFileIsDefault(t *testing.T) {
	c, err := Parse("r.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Storage.Root != DefaultRoot || c.HTTP.Listen[0] != DefaultListen || c.Auth != nil || c.Collect.Grace != Duration(24*time.Hour) {
		t.Errorf("%+v", c)
	}
}

func TestValues(t *testing.T) {
	t.Setenv("TARE_TEST_SECRET", "from-env")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("r.toml", fmt.Appendf(nil, `
[storage.s3]
endpoint = "https://s3.example"
bucket = "b"
access_key = {env = "TARE_TEST_SECRET"}
secret_key = {file = %q}
[[repository]]
match = ["team/**"]
quota = "1.5GiB"
immutable_tags = ["v*"]
[repository.retention]
keep_last = 3
keep_within = "30d"
[[repository]]
match = ["**"]
quota = 4096
[[notify]]
url = "https://hook.example/x"
headers = {Authorization = "Bearer inline"}
`, file))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		secret Secret
		want   string
	}{{c.Storage.S3.AccessKey, "from-env"}, {c.Storage.S3.SecretKey, "from-file"}, {c.Notify[0].Headers["Authorization"], "Bearer inline"}} {
		if got, err := s.secret.Read(); err != nil || got != s.want {
			t.Errorf("%v: %q, %v", s.secret, got, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %s", s.secret, c.Notify, c.Storage.S3, s.secret); strings.Contains(shown, "inline") || strings.Contains(shown, "from-") {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
	first, _ := c.RepositoryFor("team/app")
	second, _ := c.RepositoryFor("other")
	if first.Quota != 3<<29 || second.Quota != 4096 || !first.Immutable.Match("v1") || first.Immutable.Match("latest") {
		t.Errorf("%+v %+v", first, second)
	}
	if r := first.Retention; r.KeepLast != 3 || r.KeepWithin != Duration(720*time.Hour) || r.Untagged != Duration(168*time.Hour) {
		t.Errorf("%+v", r)
	}
}

// The file has a mistake of each kind, and each is told, at its place.
func TestAllProblemsAtTheirPlaces(t *testing.T) {
	text := `colour = "red"
[storage]
root = 5
sise = 1
[http]
listen = ["127.0.0.1:5000", "nowhere"]
stall = "soon"
h2c = "yes"
  [http.tls]
  cert = "c.pem"
[auth]
htpasswd = "h"
groups = {devs = ["alice", "*"]}
[[auth.rule]]
match = ["team/**"]
push = ["@ops"]
[[auth.rule]]
pull = ["*"]
[[repository]]
match = ["a//b", "ok"]
quota = "many"
[[upstream]]
name = "hub"
url = "https://me:hunter2@registry.example"
password = {env = "A", file = "B"}
[[sync]]
upstream = "other"
repositories = ["library/alpine"]
[log]
level = "loud"
when = 2026-11-27
`
	_, err := Parse("r.toml", []byte(text))
	var p *Problems
	if !errors.As(err, &p) || !errors.Is(err, fault.Invalid) {
		t.Fatalf("%v", err)
	}
	want := []string{
		`r.toml:1:1: unknown key "colour"`,
		`r.toml:3:1: storage.root is a whole number: want a string`,
		`r.toml:4:1: unknown key "sise": [storage] has root, s3`,
		`r.toml:6:29: http.listen: "nowhere" is no address`,
		`r.toml:7:1: http.stall: "soon" is no time`,
		`r.toml:8:1: http.h2c is a string: want true or false`,
		`r.toml:9:9: http.tls.key is missing`,
		`r.toml:13:28: "*" is no user`,
		`r.toml:16:9: there is no group "ops"`,
		`r.toml:17:8: match is missing`,
		`r.toml:20:10: repository.match: "a//b" has an empty component`,
		`r.toml:21:1: repository.quota: "many" is no size`,
		`r.toml:24:1: upstream.url has a user or a password`,
		`r.toml:25:1: upstream.password: want { file = "PATH" }`,
		`r.toml:27:1: there is no upstream "other"`,
		`r.toml:30:1: log.level is "loud"`,
		`r.toml:31:1: unknown key "when"`,
	}
	got := strings.Split(err.Error(), "\n")
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("not told: %s", want[i])
		case i >= len(want):
			t.Errorf("told: %s", got[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("told %s\nwant %s", got[i], want[i])
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("a password is shown")
	}
}

func TestSyntaxHasItsPlace(t *testing.T) {
	_, err := Parse("r.toml", []byte("[storage]\nroot = \"a\"\nroot == 3\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "r.toml:3:") {
		t.Errorf("%v", err)
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"[storage]\nroot = \"a\"", "[[repository]]\nmatch = [\"**\"]\nretention = {keep_last = 1}", "[storage.s3]\nsecret_key = {env = \"A\"}",
		"auth.rule = [{match = [\"a\"]}, {}]", "[[auth.rule]]\n[auth.rule.x]\n[[auth.rule]]", "\"a.b\".'c' = [[1], {x = 2}]", "[http]\nlisten = [\n# a\n\"x\",]", "notify = [{headers = {a = 1}}]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		var p *Problems
		if errors.As(err, &p) {
			lines := strings.Count(string(data), "\n") + 1
			for _, one := range p.List {
				if one.Line < 1 || one.Line > lines || one.Column < 1 {
					t.Errorf("%q: %+v", data, one)
				}
			}
		}
	})
}

func TestProxies(t *testing.T) {
	c, err := Parse("r.toml", []byte("[http]\nproxies = [\"10.1.2.3/8\", \"2001:db8::1\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.HTTP.Proxies); got != "[10.0.0.0/8 2001:db8::1/128]" || !c.HTTP.Web {
		t.Errorf("%s, web %v", got, c.HTTP.Web)
	}
	for text, want := range map[string]string{
		"[http]\nproxies = [\"proxy.example\"]\n": `r.toml:2:12: http.proxies: "proxy.example" is no network`,
		"[http]\nproxies = [7]\n":                 `is no network`,
		"[limits]\nmanifest = \"5MiB\"\n":         `r.toml:2:1: limits.manifest is at most 4MiB`,
	} {
		if _, err := Parse("r.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
