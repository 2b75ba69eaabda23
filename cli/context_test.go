package cli_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
)

// bare runs the program with this environment alone.
func bare(env map[string]string, in string, args ...string) result {
	var out, errOut bytes.Buffer
	s := &command.Session{In: strings.NewReader(in), Out: &out, Err: &errOut, Getenv: func(name string) string { return env[name] }}
	code := cli.Main(context.Background(), s, args)
	return result{code, out.String(), errOut.String()}
}

// words calls bare with a line's words.
func words(env map[string]string, line string) result { return bare(env, "", strings.Fields(line)...) }

func TestContextCommands(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := map[string]string{"DOCKER_CONFIG": filepath.Join(dir, "config")}
	const listed = "NAME      DESCRIPTION                               DOCKER ENDPOINT              ERROR\n"
	const byDefault = "default   Current DOCKER_HOST based configuration   unix:///run/tare/tare.sock   \n"
	for _, step := range []struct {
		line string
		want result
	}{
		{"context show", result{0, "default\n", ""}},
		{"context create aa --description first --docker host=unix:///a.sock", result{0, "aa\n", "Successfully created context \"aa\"\n"}},
		{"context create aa --docker host=unix:///b.sock", result{1, "", "context \"aa\" already exists\n"}},
		{"context create x/y --docker host=unix:///b.sock", result{1, "", "context name \"x/y\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"\n"}},
		{"context create default", result{1, "", "\"default\" is a reserved context name\n"}},
		{"context create bb --docker foo=bar", result{1, "", "unable to create docker endpoint config: unrecognized config key: foo\n"}},
		{"context create bb --docker host=foo://bar", result{1, "", "unable to create docker endpoint config: invalid docker endpoint options: unable to parse docker host `foo://bar`: use unix:///path, tcp://host:port or ssh://user@host\n"}},
		{"context create bb --docker host=far", result{1, "", "unable to create docker endpoint config: invalid docker endpoint options: unable to parse docker host `far`: say tcp://far, or unix:// and a path\n"}},
		{"context create bb --from aa --docker host=unix:///b", result{1, "", "cannot use --docker flag when --from is set\n"}},
		{"context create bb --from aa", result{0, "bb\n", "Successfully created context \"bb\"\n"}},
		{"context update bb --description second --docker host=ssh://me@far", result{0, "bb\n", "Successfully updated context \"bb\"\n"}},
		{"context use bb", result{0, "bb\n", "Current context is now \"bb\"\n"}},
		{"context show", result{0, "bb\n", ""}},
		{"context ls", result{0, listed + "aa        first                                     unix:///a.sock               \n" +
			"bb *      second                                    ssh://me@far                 \n" + byDefault, ""}},
		{"context ls -q", result{0, "aa\nbb\ndefault\n", ""}},
		{"context ls --format {{.Name}}{{.Current}}", result{0, "aafalse\nbbtrue\ndefaultfalse\n", ""}},
		{"context inspect -f {{.Name}},{{.Endpoints.docker.Host}},{{.Metadata.Description}} aa", result{0, "aa,unix:///a.sock,first\n", ""}},
		{"context inspect -f {{.Endpoints.docker.Host}}", result{0, "ssh://me@far\n", ""}},
		{"context rm bb", result{1, "", "context \"bb\" is in use, set -f flag to force remove\n"}},
		{"context rm default", result{1, "", "context \"default\" cannot be removed\n"}},
		{"context rm nope", result{1, "", "context \"nope\" does not exist\n"}},
		{"context export bb", result{0, "", "Written file \"bb.dockercontext\"\n"}},
		{"context import cc bb.dockercontext", result{0, "cc\n", "Successfully imported context \"cc\"\n"}},
		{"context import cc bb.dockercontext", result{1, "", "context \"cc\" already exists\n"}},
		{"context rm -f bb nope", result{0, "bb\nnope\n", ""}},
		{"context show", result{0, "default\n", ""}},
		{"context inspect -f {{.Name}},{{.Endpoints.docker.Host}} cc", result{0, "cc,ssh://me@far\n", ""}},
		{"-c aa -H unix:///x ps", result{1, "", "conflicting options: cannot specify both --host and --context\n"}},
	} {
		if r := words(env, step.line); r != step.want {
			t.Errorf("%s: %+v\nwant %+v", step.line, r, step.want)
		}
	}
	const meta = `{"Endpoints":{"docker":{"Host":"tcp://h:1"},"other":{"x":1}}}`
	for _, name := range []string{"tls/../../../x", "/meta.json", "tls/../meta", "tls/docker/../../../x/y", "other"} {
		if r := bare(env, tarOf(t, name, meta), "context", "import", "dd", "-"); r.code != 1 || !strings.Contains(r.err, "unexpected file") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := bare(env, "PK\x03\x04", "context", "import", "dd", "-"); r.code != 1 || !strings.Contains(r.err, "a zip is not supported") {
		t.Errorf("%+v", r)
	}
	bare(env, tarOf(t, "meta.json", meta), "context", "import", "dd", "-")
	words(env, "context update dd --description z")
	if r := words(env, "context inspect -f {{.Name}}{{.Endpoints.docker.Host}}{{.Endpoints.other.x}} dd"); r.out != "ddtcp://h:11\n" {
		t.Errorf("%+v", r)
	}
}

func tarOf(t *testing.T, name, text string) string {
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWhichDaemon has every way to name a daemon at once and takes them away in
// the order in which they win.
func TestWhichDaemon(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"DOCKER_CONFIG": dir}
	for _, name := range []string{"flag", "variable", "current"} {
		if r := words(env, "context create "+name+" --docker host=unix:///"+name); r.code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	words(env, "context use current")
	env["TARE_HOST"], env["DOCKER_HOST"], env["DOCKER_CONTEXT"] = "unix:///tare-host", "unix:///docker-host", "variable"
	reaches := func(host, line string) {
		t.Helper()
		if r := words(env, line); r.code != 1 || r.err != "cannot connect to the daemon at unix:///"+host+": is it running?\n" {
			t.Errorf("%s: %+v, want %s", line, r, host)
		}
	}
	reaches(`flag (context "flag")`, "-c flag ps")
	reaches("host-flag", "-H unix:///host-flag ps")
	reaches("tare-host", "ps")
	const warning = "Warning: TARE_HOST environment variable overrides the active context. To use "
	if r := words(env, "context use variable"); !strings.Contains(r.err, warning+`"variable", either set the global --context flag, or unset TARE_HOST environment variable.`) {
		t.Errorf("%+v", r)
	}
	if r := words(env, "context ls"); !strings.Contains(r.err, warning+"a context, either") {
		t.Errorf("%+v", r)
	}
	words(env, "context use current")
	delete(env, "TARE_HOST")
	reaches("docker-host", "ps")
	reaches("tare-host", "-H unix:///tare-host version")
	delete(env, "DOCKER_HOST")
	reaches(`variable (context "variable")`, "ps")
	delete(env, "DOCKER_CONTEXT")
	reaches(`current (context "current")`, "ps")
	os.RemoveAll(filepath.Join(dir, "contexts"))
	if r := words(env, "ps"); r.code != 1 || !strings.HasPrefix(r.err, "context \"current\": context not found: ") || !strings.HasSuffix(r.err, "choose one by tare context use\n") {
		t.Errorf("%+v", r)
	}
	words(env, "context use default")
	if r := words(env, "version -f {{.Client.Context}}"); !strings.HasPrefix(r.out, "default") {
		t.Errorf("%+v", r)
	}
}

// TestContextTLS reaches a daemon that wants a certificate, by a context that has
// one, and not without.
func TestContextTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"Version": r.TLS.PeerCertificates[0].Subject.Organization[0]})
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	t.Chdir(dir)
	pair := server.TLS.Certificates[0]
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	key := keyPEM(t, pair.PrivateKey)
	for name, text := range map[string][]byte{"ca.pem": certificate, "cert.pem": certificate, "key.pem": key, "bad.pem": []byte("x")} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"DOCKER_CONFIG": filepath.Join(dir, "config")}
	host := "host=tcp://" + server.Listener.Addr().String()
	if r := words(env, "context create bad --docker "+host+",ca=bad.pem"); r.err != "unable to create docker endpoint config: invalid docker endpoint options: failed to retrieve context tls info: ca.pem seems invalid\n" {
		t.Errorf("%+v", r)
	}
	if r := words(env, "context create far --docker "+host+",ca=ca.pem,cert=cert.pem,key=key.pem"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	const version = "version -f {{.Server.Version}}"
	if r := words(env, "-c far "+version); r.out != "Acme Co\n" {
		t.Errorf("%+v", r)
	}
	if r := words(env, "context export far -"); r.code != 0 {
		t.Errorf("%+v", r)
	} else if r := bare(env, r.out, "context", "import", "again", "-"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if r := words(env, "-c again "+version); r.out != "Acme Co\n" {
		t.Errorf("%+v", r)
	}
	if r := words(env, "context inspect -f {{.TLSMaterial.docker}} again"); r.out != "[ca.pem cert.pem key.pem]\n" {
		t.Errorf("%+v", r)
	}
	words(env, "context update again --docker "+host+",ca=ca.pem")
	if r := words(env, "-c again "+version); r.code != 1 || strings.Contains(r.out, "Acme") {
		t.Errorf("without a certificate: %+v", r)
	}
	// The flags and variables for those who have no context.
	env["DOCKER_HOST"], env["DOCKER_TLS_VERIFY"], env["DOCKER_CERT_PATH"] = strings.TrimPrefix(host, "host="), "1", dir
	if r := words(env, version); r.out != "Acme Co\n" {
		t.Errorf("%+v", r)
	}
	if r := words(env, "--tlscacert bad.pem "+version); r.code != 1 {
		t.Errorf("%+v", r)
	}
	delete(env, "DOCKER_TLS_VERIFY")
	if r := words(env, "--tls --tlscert cert.pem --tlskey key.pem "+version); r.out != "Acme Co\n" {
		t.Errorf("%+v", r)
	}
}

// Without a home, a directory .docker that somebody has put where the program is
// called is not looked at.
func TestNoConfigOfTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(".docker", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(".docker/config.json", []byte(`{"currentContext":"evil"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := words(map[string]string{}, "context show"); r.out == "evil\n" || r.code != 0 {
		t.Errorf("%+v", r)
	}
	if r := words(map[string]string{"HOME": "."}, "context show"); r.out != "evil\n" {
		t.Errorf("the file is not one that would be read: %+v", r)
	}
}

func keyPEM(t *testing.T, key any) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestHeaders(t *testing.T) {
	f := newFake(t)
	var got http.Header
	f.handle("GET /version", func(w http.ResponseWriter, r *http.Request) { got = r.Header; w.Write([]byte("{}")) })
	f.configure(`{"HttpHeaders":{"X-One":"1","X-Two":"a b"}}`)
	if r := f.call(nil, "version"); r.code != 0 || got.Get("X-One") != "1" || got.Get("X-Two") != "a b" {
		t.Errorf("%+v %v", r, got)
	}
	f.env["DOCKER_CUSTOM_HEADERS"] = "X-Three=3"
	if r := f.call(nil, "version"); r.code != 0 || got.Get("X-One") != "" || got.Get("X-Three") != "3" {
		t.Errorf("%+v %v", r, got)
	}
	f.env["DOCKER_CUSTOM_HEADERS"] = "X-Three"
	if r := f.call(nil, "version"); r.code != 1 || !strings.Contains(r.err, "DOCKER_CUSTOM_HEADERS") {
		t.Errorf("%+v", r)
	}
	f.env = map[string]string{}
	f.configure(`{"HttpHeaders":{"user-agent":"me/1"}}`)
	if r := f.call(nil, "version"); r.code != 0 || len(got["User-Agent"]) != 1 || got.Get("User-Agent") != "me/1" {
		t.Errorf("%+v %v", r, got)
	}
	for _, bad := range []string{`"X-One":"1\r\nX-Smuggled: 2"`, `"X One":"1"`, `"Content-length":"0"`, `"Host":"h"`} {
		f.configure(`{"HttpHeaders":{` + bad + `}}`)
		if r := f.call(nil, "version"); r.code != 1 || !strings.Contains(r.err, "see HttpHeaders in config.json") {
			t.Errorf("%s: %+v", bad, r)
		}
	}
}

// An exported context whose file is a terabyte of nothing is refused, and not
// read.
func TestContextImportSparse(t *testing.T) {
	tar, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("tar is not installed")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "meta.json"), 1<<40); err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(tar, "-C", dir, "-cSf", filepath.Join(dir, "sparse.tar"), "meta.json").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	r := bare(map[string]string{"DOCKER_CONFIG": dir}, "", "context", "import", "sparse", filepath.Join(dir, "sparse.tar"))
	if r.code == 0 || !strings.Contains(r.err, `"meta.json" is larger than`) {
		t.Errorf("%+v", r)
	}
}
