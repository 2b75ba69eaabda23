package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/bcrypt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// output is what a command wrote, while it writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// running is a registry that a test has started.
type running struct {
	host string // 127.0.0.1:PORT
	log  *output
	stop context.CancelFunc
	end  chan error
}

var readyLine = regexp.MustCompile(`(?m)^.*tare-registry is ready.*addresses=\[https?://([^ \]]+)\].*\n`)

// start runs serve with the arguments, on a port that the kernel chooses.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{log: &output{}, stop: stop, end: make(chan error, 1)}
	go func() {
		r.end <- run(ctx, io.Discard, r.log, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...))
	}()
	testutil.Eventually(t, 20*time.Second, "the registry is ready", func() bool {
		select {
		case err := <-r.end:
			t.Fatalf("serve ended: %v\n%s", err, r.log)
		default:
		}
		m := readyLine.FindStringSubmatch(r.log.String())
		if m != nil {
			r.host = m[1]
		}
		return m != nil
	})
	t.Cleanup(func() {
		stop()
		if err, running := <-r.end; running && err != nil {
			t.Errorf("serve: %v\n%s", err, r.log)
		}
	})
	return r
}

// wait returns what serve did; it was told to stop, or will end by itself.
func (r *running) wait() error {
	err := <-r.end
	close(r.end)
	return err
}

// htpasswd makes a file of names and passwords, in turn.
func htpasswd(t *testing.T, pairs ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	var text string
	for i := 0; i < len(pairs); i += 2 {
		hash, err := bcrypt.GenerateFromPassword([]byte(pairs[i+1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += pairs[i] + ":" + string(hash) + "\n"
	}
	write(t, file, text)
	return file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// repository is one of the registry, as Tare's own client sees it.
func (r *running) repository(t *testing.T, path string, c remote.Credentials) *remote.Repository {
	t.Helper()
	client, err := remote.New(remote.Config{UserAgent: "test", Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	ref, err := reference.Parse(r.host + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return client.Repository(ref, c)
}

// push makes an image with one layer and pushes it under the tag.
func push(ctx context.Context, r *remote.Repository, text, tag string) error {
	describe := func(mediaType, text string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
	}
	layer, config := describe(ocispec.MediaTypeImageLayer, text), describe(ocispec.MediaTypeImageConfig, "{}")
	for d, text := range map[*ocispec.Descriptor]string{&layer: text, &config: "{}"} {
		open := func(offset int64) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text[offset:])), nil }
		if err := r.PushBlob(ctx, *d, open, nil); err != nil {
			return err
		}
	}
	m, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		return err
	}
	return r.PushManifest(ctx, describe(ocispec.MediaTypeImageManifest, string(m)), m, tag)
}

func pull(ctx context.Context, r *remote.Repository, tag string) (string, error) {
	_, data, err := r.Manifest(ctx, tag)
	if err != nil {
		return "", err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return "", err
	}
	layer, err := r.ReadBlob(ctx, m.Layers[0], 1<<20)
	return string(layer), err
}

func wantPull(t *testing.T, r *remote.Repository, tag, want string) {
	t.Helper()
	if got, err := pull(t.Context(), r, tag); err != nil || got != want {
		t.Errorf("pulled %q, %v: want %q", got, err, want)
	}
}

func wantKind(t *testing.T, err error, want fault.Kind) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v (%v), want %v", err, fault.KindOf(err), want)
	}
}

var alice = remote.Credentials{Username: "alice", Password: "secret"}

func TestServeWithoutAnything(t *testing.T) {
	root := t.TempDir()
	r := start(t, "--root", root)
	repo := r.repository(t, "team/app", remote.Credentials{})
	if err := push(t.Context(), repo, "layer", "v1"); err != nil {
		t.Fatal(err)
	}
	wantPull(t, repo, "v1", "layer")
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	again := start(t, "--root", root)
	wantPull(t, again.repository(t, "team/app", remote.Credentials{}), "v1", "layer")
	if n := strings.Count(again.log.String(), "\n"); n != 1 {
		t.Errorf("the start is told in %d lines:\n%s", n, again.log)
	}
}

func TestServeWithPasswords(t *testing.T) {
	r := start(t, "--root", t.TempDir(), "--auth", "htpasswd:"+htpasswd(t, "alice", "secret"))
	mine, nobody := r.repository(t, "team/app", alice), r.repository(t, "team/app", remote.Credentials{})
	if err := push(t.Context(), mine, "layer", "v1"); err != nil {
		t.Fatal(err)
	}
	wantPull(t, mine, "v1", "layer")
	_, err := pull(t.Context(), nobody, "v1")
	wantKind(t, err, fault.Unauthorized)
	wantKind(t, push(t.Context(), nobody, "layer", "v2"), fault.Unauthorized)
	_, err = pull(t.Context(), r.repository(t, "team/app", remote.Credentials{Username: "alice", Password: "wrong"}), "v1")
	wantKind(t, err, fault.Unauthorized)
}

func TestServeAnonymousPull(t *testing.T) {
	r := start(t, "--root", t.TempDir(), "--auth", "htpasswd:"+htpasswd(t, "alice", "secret"), "--anonymous-pull")
	mine, nobody := r.repository(t, "team/app", alice), r.repository(t, "team/app", remote.Credentials{})
	if err := push(t.Context(), mine, "layer", "v1"); err != nil {
		t.Fatal(err)
	}
	wantPull(t, nobody, "v1", "layer")
	wantPull(t, mine, "v1", "layer")
	wantKind(t, push(t.Context(), nobody, "layer", "v2"), fault.Unauthorized)
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Login(t.Context(), r.host, alice); err != nil {
		t.Errorf("login: %v", err)
	}
	_, err = client.Login(t.Context(), r.host, remote.Credentials{Username: "alice", Password: "wrong"})
	wantKind(t, err, fault.Unauthorized)
}

func TestServeByConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registry.toml")
	write(t, file, fmt.Sprintf(`
[storage]
root = %q
[auth]
htpasswd = %q
groups = {devs = ["alice"]}
[[auth.rule]]
match = ["team/**"]
pull = ["authenticated"]
push = ["@devs"]
[[repository]]
match = ["team/small"]
quota = 100
[[repository]]
match = ["team/**"]
immutable_tags = ["v*"]
[log]
format = "text"
`, t.TempDir(), htpasswd(t, "alice", "secret", "bob", "b")))
	r := start(t, "--config", file)
	ctx, bob := t.Context(), remote.Credentials{Username: "bob", Password: "b"}
	mine := r.repository(t, "team/app", alice)
	for _, tag := range []string{"v1", "latest"} {
		if err := push(ctx, mine, "layer", tag); err != nil {
			t.Fatal(err)
		}
	}
	wantPull(t, r.repository(t, "team/app", bob), "v1", "layer")
	wantKind(t, push(ctx, r.repository(t, "team/app", bob), "other", "v2"), fault.Forbidden)
	wantKind(t, push(ctx, r.repository(t, "elsewhere", alice), "layer", "v1"), fault.Forbidden)
	if err := push(ctx, mine, "changed", "latest"); err != nil {
		t.Error(err)
	}
	if err := push(ctx, mine, "changed", "v1"); err == nil {
		t.Error("an immutable tag was changed")
	}
	wantPull(t, mine, "v1", "layer")
	if err := push(ctx, r.repository(t, "team/small", alice), strings.Repeat("x", 101), "a"); err == nil {
		t.Error("more than the quota was pushed")
	}
}

// A server of tokens that knows nobody sends anonymous clients away, and one
// that signs with a key that the registry does not have is not believed.
func TestServeBehindTokenServer(t *testing.T) {
	tokens := newTokenServer(t)
	file := filepath.Join(t.TempDir(), "registry.toml")
	write(t, file, fmt.Sprintf(`
[storage]
root = %q
[auth.token]
realm = "%[2]s/token"
service = "reg.example"
issuer = "tests"
jwks = "%[2]s/keys"
`, t.TempDir(), tokens.URL))
	r := start(t, "--config", file)
	mine := r.repository(t, "team/app", alice)
	if err := push(t.Context(), mine, "layer", "v1"); err != nil {
		t.Fatal(err)
	}
	wantPull(t, mine, "v1", "layer")
	_, err := pull(t.Context(), r.repository(t, "team/app", remote.Credentials{}), "v1")
	wantKind(t, err, fault.Unauthorized)
	if err := push(t.Context(), r.repository(t, "other/app", alice), "layer", "v1"); err == nil {
		t.Error("a token without a grant was enough to push")
	}
}

func TestStartThatCannotBe(t *testing.T) {
	taken := start(t, "--root", t.TempDir())
	secret := filepath.Join(t.TempDir(), "bad")
	write(t, secret, "alice:hunter2\n")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"port":        {[]string{"--addr", taken.host}, "cannot listen on " + taken.host + ": another process does"},
		"address":     {[]string{"--addr", "192.0.2.1:5000"}, "this machine does not have the address"},
		"passwords":   {[]string{"--auth", "htpasswd:" + secret}, ":1: the password of alice is not hashed by bcrypt"},
		"other auth":  {[]string{"--auth", "ldap:x"}, "is no way to log in"},
		"half TLS":    {[]string{"--tls-cert", "x"}, "give --tls-cert and --tls-key together"},
		"no TLS":      {[]string{"--tls-cert", "/none", "--tls-key", "/none"}, "cannot use /none and /none"},
		"no config":   {[]string{"--config", "/none"}, "cannot read the configuration"},
		"anonymous":   {[]string{"--anonymous-pull"}, "goes with --auth"},
		"no argument": {[]string{"x"}, "takes no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
			defer stop()
			err := run(ctx, io.Discard, io.Discard, append([]string{"serve", "--root", t.TempDir()}, c.args...))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// A request that is under way when the registry is told to stop ends as ever.
func TestStopWaitsForUploads(t *testing.T) {
	r := start(t, "--root", t.TempDir())
	resp, err := http.Post("http://"+r.host+"/v2/a/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	const text = "a layer that comes in two parts"
	body, feed := io.Pipe()
	location := resp.Header.Get("Location")
	if strings.HasPrefix(location, "/") {
		location = "http://" + r.host + location
	}
	join := "?"
	if strings.Contains(location, "?") {
		join = "&"
	}
	req, err := http.NewRequest("PUT", location+join+"digest="+digest.FromString(text).String(), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue") // the body is read when the registry wants it
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	answered := make(chan string, 1)
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		resp.Body.Close()
		answered <- resp.Status
	}()
	if _, err := io.WriteString(feed, text[:10]); err != nil {
		t.Fatal(err)
	}
	r.stop()
	testutil.Eventually(t, 20*time.Second, "the registry takes no new clients", func() bool {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + r.host + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	if _, err := io.WriteString(feed, text[10:]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if got := <-answered; got != "201 Created" {
		t.Errorf("the upload got %s", got)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestCollectAndRetain(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "registry.toml")
	write(t, file, fmt.Sprintf("[storage]\nroot = %q\n[[repository]]\nmatch = [\"**\"]\n[repository.retention]\nkeep_last = 1\nuntagged = \"1ms\"\n", dir))
	r := start(t, "--config", file)
	repo := r.repository(t, "team/app", remote.Credentials{})
	for _, tag := range []string{"v1", "v2"} {
		if err := push(t.Context(), repo, "layer of "+tag, tag); err != nil {
			t.Fatal(err)
		}
	}
	command := func(want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := run(t.Context(), &out, io.Discard, append(args, "--config", file)); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v: %v\n%s\nwant %s", args, err, &out, want)
		}
	}
	// The registry that runs does it.
	command("would remove 2 tags and manifests", "retention", "--dry-run")
	command("removed 0 blobs and 0 uploads", "garbage-collect", "--grace", "0s")
	sock := filepath.Join(dir, controlSock)
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.Rename(sock, sock+"."); err != nil {
		t.Error(err)
	}
	err := run(t.Context(), io.Discard, io.Discard, []string{"garbage-collect", "--config", file})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), "SIGUSR1") {
		t.Errorf("beside a running registry that cannot be asked: %v", err)
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	command("would remove 2 tags and manifests", "retention", "--dry-run")
	command("would remove 2 tags and manifests", "retention", "--dry-run")
	command("removed 2 tags and manifests", "retention")
	command("removed 0 tags and manifests", "retention")
	command("removed 2 blobs and 0 uploads", "garbage-collect", "--grace", "0s")
	command("removed 0 blobs and 0 uploads", "garbage-collect", "--grace", "0s")
	again := start(t, "--config", file)
	wantPull(t, again.repository(t, "team/app", remote.Credentials{}), "v2", "layer of v2")
	_, err = pull(t.Context(), again.repository(t, "team/app", remote.Credentials{}), "v1")
	wantKind(t, err, fault.NotFound)
}

func TestCommandLine(t *testing.T) {
	for args, want := range map[string]string{
		"": "Begin with:  tare-registry serve", "--help": "config check FILE", "serve --help": "127.0.0.1:5000", "version": "tare-registry version ",
		"--version": "tare-registry version ", "garbage-collect --help": "is asked to do it", "retention -h": "--dry-run",
		"help": "Begin with:", "help retention": "--dry-run", "help config check": "config check FILE", "config": "config check FILE", "config --help": "config check FILE",
	} {
		var out bytes.Buffer
		err := run(t.Context(), &out, io.Discard, strings.Fields(args))
		if !strings.Contains(out.String(), want) || err != nil && !errors.Is(err, pflag.ErrHelp) {
			t.Errorf("%s: %v\n%s", args, err, &out)
		}
	}
	for args, want := range map[string]string{
		"begin": `"begin" is no command`, "config check": "takes FILE", "version x": "takes no arguments", "serve --bogus": "see tare-registry serve --help",
		"serve --config /dev/null --addr 5000": "want HOST:PORT", "config chek x": "is no command", "garbage-collect --root /not/there": "there is no registry in /not/there",
		"config check /none": "cannot read the configuration",
	} {
		if err := run(t.Context(), io.Discard, io.Discard, strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// The example of the documentation is right, and has every table there is.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("there is no example")
	}
	for i, b := range blocks {
		file := filepath.Join(t.TempDir(), "registry.toml")
		write(t, file, string(b[1]))
		var out bytes.Buffer
		if err := run(t.Context(), &out, io.Discard, []string{"config", "check", file}); err != nil || !strings.HasSuffix(out.String(), "is right\n") {
			t.Errorf("example %d: %v", i+1, err)
		}
	}
}
