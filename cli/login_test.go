package cli_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarehq/tare/cli"
)

// registry makes the fake try credentials: the password bad is refused, and the
// user token gets one.
func (f *fake) registry() {
	f.handle("POST /auth", func(w http.ResponseWriter, r *http.Request) {
		var c struct{ Username, Password string }
		json.NewDecoder(r.Body).Decode(&c)
		answer := map[string]string{"Status": "Login Succeeded", "IdentityToken": ""}
		switch {
		case c.Password == "bad":
			fail(w, 401, "unauthorized: incorrect username or password")
			return
		case c.Username == "token":
			answer["IdentityToken"] = "tok"
		}
		json.NewEncoder(w).Encode(answer)
	})
}

func readJSON(t *testing.T, path string) (v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

const insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"

func unencrypted(path string) string {
	return "\nWARNING! Your credentials are stored unencrypted in '" + path + "'.\n" +
		"Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"
}

func TestLogin(t *testing.T) {
	f := newFake(t)
	f.registry()
	path := filepath.Join(f.config, "config.json")
	want := result{0, "Login Succeeded\n", insecure + unencrypted(path)}
	if r := f.call(nil, "login", "-u", "u", "-p", "pw", "https://reg.example/v2/"); r != want {
		t.Errorf("%+v", r)
	}
	if body := string(f.body("POST /auth")); body != `{"username":"u","password":"pw","serveraddress":"reg.example"}` {
		t.Error(body)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if text, _ := os.ReadFile(path); string(text) != "{\n\t\"auths\": {\n\t\t\"reg.example\": {\n\t\t\t\"auth\": \"dTpwdw==\"\n\t\t}\n\t}\n}" {
		t.Errorf("%s", text)
	}
	if r := f.call(nil, "login", "-u", "u", "-p", "pw", "reg.example"); r != (result{0, "Login Succeeded\n", insecure}) {
		t.Errorf("%+v", r) // what was there already is not warned about again
	}
	r := f.call(nil, "login", "reg.example")
	if r.code != 0 || r.out != "Login Succeeded\n" || !strings.HasPrefix(r.err, "Authenticating with existing credentials... [Username: u]\n") {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "login", "-u", "u", "-p", "bad", "reg.example"); r != (result{1, "", insecure + "Error response from daemon: unauthorized: incorrect username or password\n"}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(strings.NewReader("pw2\r\n"), "login", "-u", "bob", "--password-stdin"); r.code != 0 || strings.Contains(r.err, insecure) {
		t.Errorf("%+v", r)
	}
	f.call(nil, "login", "-u", "token", "-p", "x", "other.example:5000")
	auths := map[string]any{"auths": map[string]any{
		"reg.example":                 map[string]any{"auth": "dTpwdw=="},
		"https://index.docker.io/v1/": map[string]any{"auth": "Ym9iOnB3Mg=="},
		"other.example:5000":          map[string]any{"auth": "dG9rZW46", "identitytoken": "tok"},
	}}
	if diff := cmp.Diff(any(auths), readJSON(t, path)); diff != "" {
		t.Error(diff)
	}
	f.handle("POST /images/create", pulled)
	for image, want := range map[string]string{
		"x":                    `{"username":"bob","password":"pw2","serveraddress":"https://index.docker.io/v1/"}`,
		"reg.example/x":        `{"username":"u","password":"pw","serveraddress":"reg.example"}`,
		"other.example:5000/x": `{"username":"token","serveraddress":"other.example:5000","identitytoken":"tok"}`,
		"other.example/x":      `{}`,
	} {
		if f.call(nil, "pull", "-q", image); f.auth("POST /images/create") != want {
			t.Errorf("%s: %s", image, f.auth("POST /images/create"))
		}
	}
	for server, name := range map[string]string{"": "https://index.docker.io/v1/", "reg.example": "reg.example", "https://other.example:5000": "other.example:5000", "no.example": "no.example"} {
		args := strings.Fields("logout " + server)
		if r := f.call(nil, args...); r != (result{0, "Removing login credentials for " + name + "\n", ""}) {
			t.Errorf("%+v", r)
		}
	}
	if diff := cmp.Diff(any(map[string]any{"auths": map[string]any{}}), readJSON(t, path)); diff != "" {
		t.Error(diff)
	}
}

func TestLoginRefused(t *testing.T) {
	f := newFake(t)
	f.registry()
	for args, want := range map[string]string{
		"login":                              "Error: Cannot perform an interactive login from a non TTY device\n",
		"login -u u":                         "Error: Cannot perform an interactive login from a non TTY device\n",
		"login --password-stdin":             "the --password-stdin option requires --username to be set\n",
		"login -u u -p x --password-stdin":   "conflicting options: cannot specify both --password and --password-stdin\n",
		"login --username= -p x":             "username is empty\n",
		"login -u u --password=":             "password is empty\n",
		"login -u u --password-stdin server": "password is empty\n",
	} {
		if r := f.call(strings.NewReader(""), strings.Fields(args)...); r != (result{1, "", want}) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Error(asked)
	}
}

// The user is asked for what is missing, and the password is not shown.
func TestLoginOnATerminal(t *testing.T) {
	user, program := terminal(t)
	f := newFake(t)
	f.registry()
	done := make(chan int, 1)
	go func() {
		var errOut bytes.Buffer
		done <- cli.Main(t.Context(), f.session(program, program, &errOut), []string{"login", "reg.example"})
	}()
	read(t, user, "Username: ")
	io.WriteString(user, "ann\n")
	read(t, user, "Password: ")
	io.WriteString(user, "secret\n")
	got := make(chan string, 1)
	go func() {
		var b strings.Builder
		buf := make([]byte, 64)
		for !strings.Contains(b.String(), "Succeeded") {
			n, err := user.Read(buf)
			if err != nil {
				break
			}
			b.Write(buf[:n])
		}
		got <- b.String()
	}()
	select {
	case text := <-got:
		if strings.Contains(text, "secret") {
			t.Errorf("shown: %q", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the log-in does not end")
	}
	if code := <-done; code != 0 {
		t.Error(code)
	}
	if body := string(f.body("POST /auth")); body != `{"username":"ann","password":"secret","serveraddress":"reg.example"}` {
		t.Error(body)
	}
	if !echo(t, program) {
		t.Error("the terminal does not show what is typed any more")
	}
}

// What tare does not know in config.json stays, a symbolic link stays one, and
// a spelling with a scheme is found.
func TestConfigIsKept(t *testing.T) {
	f := newFake(t)
	f.registry()
	path := f.configure(`{"HttpHeaders":{"X":"<y>"},"aliases":{"b":"c"},"auths":{"https://old.example/v1/":{"auth":"YTpi","email":"a@b"}},"psFormat":"x"}`)
	real := filepath.Join(f.config, "real.json")
	if err := os.Rename(path, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.json", path); err != nil {
		t.Fatal(err)
	}
	if r := f.call(nil, "login", "-u", "u", "-p", "pw", "reg.example"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	want := map[string]any{"HttpHeaders": map[string]any{"X": "<y>"}, "aliases": map[string]any{"b": "c"}, "psFormat": "x", "auths": map[string]any{
		"https://old.example/v1/": map[string]any{"auth": "YTpi", "email": "a@b"}, "reg.example": map[string]any{"auth": "dTpwdw=="}}}
	if diff := cmp.Diff(any(want), readJSON(t, real)); diff != "" {
		t.Error(diff)
	}
	if target, err := os.Readlink(path); err != nil || target != "real.json" {
		t.Error(target, err)
	}
	if info, _ := os.Stat(real); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	f.handle("POST /images/create", pulled)
	if f.call(nil, "pull", "-q", "old.example/x"); f.auth("POST /images/create") != `{"username":"a","password":"b","serveraddress":"old.example"}` {
		t.Error(f.auth("POST /images/create"))
	}
	f.env["DOCKER_AUTH_CONFIG"] = `{"auths":{"old.example":{"auth":"Yzpk"}}}`
	if f.call(nil, "pull", "-q", "old.example/x"); f.auth("POST /images/create") != `{"username":"c","password":"d","serveraddress":"old.example"}` {
		t.Error(f.auth("POST /images/create"))
	}
	if r := f.call(nil, "logout", "reg.example"); !strings.Contains(r.err, "DOCKER_AUTH_CONFIG is set") {
		t.Errorf("%+v", r)
	}
}

// helper is a credential helper that keeps its secrets as files.
const helper = `#!/bin/sh
# docker-credential-NAME get|store|erase|list
read -r line
printf '%s %s %s\n' "${0##*/}" "$1" "$line" >> "$HELPER/log"
case $1 in
get) if [ -e "$HELPER/kept" ]; then cat "$HELPER/kept"; elif [ -e "$HELPER/broken" ]; then echo the keychain is locked; exit 1
	else echo "credentials not found in native keychain"; exit 1; fi ;;
store) printf '%s' "$line" > "$HELPER/kept" ;;
erase) rm -f "$HELPER/kept" ;;
list) echo '{"kept.example":"ann"}' ;;
esac
`

func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"all", "one"} {
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte(helper), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("HELPER", dir)
	f := newFake(t)
	f.registry()
	f.handle("POST /images/create", pulled)
	path := f.configure(`{"credsStore":"all","credHelpers":{"one.example":"one"}}`)
	auth := func(image string) string {
		t.Helper()
		if r := f.call(nil, "pull", "-q", image); r.code != 0 || r.err != "" {
			t.Errorf("%+v", r)
		}
		return f.auth("POST /images/create")
	}
	if got := auth("one.example/x"); got != "{}" {
		t.Error(got)
	}
	if r := f.call(nil, "login", "-u", "u", "-p", "p<w", "one.example"); r != (result{0, "Login Succeeded\n", insecure}) {
		t.Errorf("%+v", r)
	}
	if got := auth("one.example/x"); got != `{"username":"u","password":"p\u003cw","serveraddress":"one.example"}` {
		t.Error(got)
	}
	f.call(nil, "login", "-u", "token", "-p", "pw")
	if got := auth("x"); got != `{"serveraddress":"https://index.docker.io/v1/","identitytoken":"tok"}` {
		t.Error(got)
	}
	want := map[string]any{"credsStore": "all", "credHelpers": map[string]any{"one.example": "one"},
		"auths": map[string]any{"one.example": map[string]any{}, "https://index.docker.io/v1/": map[string]any{}}}
	if diff := cmp.Diff(any(want), readJSON(t, path)); diff != "" {
		t.Error(diff)
	}
	if r := f.call(nil, "logout"); r.code != 0 || r.err != "" {
		t.Errorf("%+v", r)
	}
	if got := auth("x"); got != "{}" {
		t.Error(got)
	}
	if r := f.call(nil, "__complete", "--", "logout", "k"); r.out != "kept.example\n" {
		t.Errorf("%+v", r)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	for _, line := range []string{"docker-credential-one get one.example\n", "docker-credential-all erase https://index.docker.io/v1/\n",
		`docker-credential-one store {"ServerURL":"one.example","Username":"u","Secret":"p<w"}` + "\n",
		`docker-credential-all store {"ServerURL":"https://index.docker.io/v1/","Username":"<token>","Secret":"tok"}` + "\n"} {
		if !strings.Contains(string(log), line) {
			t.Errorf("%q is not in\n%s", line, log)
		}
	}
	os.WriteFile(filepath.Join(dir, "broken"), nil, 0o644)
	r := f.call(nil, "pull", "-q", "x")
	if r.code != 0 || r.err != "WARNING: error getting credentials - err: exit status 1, out: `the keychain is locked`\n" {
		t.Errorf("%+v", r)
	}
}
