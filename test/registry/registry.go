// Package registry runs Debian's docker-registry for tests: a real, foreign
// registry, as a process of its own on a loopback port that the kernel chose,
// plain or with TLS, open or behind passwords or tokens.
package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Program is the registry, of Debian's package docker-registry.
const Program = "/usr/bin/docker-registry"

// Options say what registry it is. The zero value is one over plain HTTP that
// lets everybody do everything.
type Options struct {
	TLS      bool              // with a certificate of Registry.CA for 127.0.0.1, ::1 and localhost
	Htpasswd map[string]string // user -> password: basic auth
	Token    *Rights           // bearer tokens of a token server, Registry.Tokens
	Upstream string            // a URL: be a mirror that fetches from there
	Storage  string            // a directory to use; one of the registry's own when empty
	Within   []string          // a command line that runs another, as nsenter does
}

// Registry is one that runs. Its fields are not to be changed.
type Registry struct {
	Host    string  // "127.0.0.1:port"
	URL     string  // "http://" or "https://" and the host
	CA      string  // path of the authority's certificate, PEM; "" without TLS
	Storage string  // directory: docker/registry/v2/...
	Tokens  *Tokens // nil without

	dir   string
	owned bool // the storage is in dir
	how   Options
	ca    *authority
	cmd   *exec.Cmd
	life  io.Closer // the process ends with it
	ended chan struct{}
}

// Start runs a registry until the test's end.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	r, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the log of registry %s:\n%s", r.Host, tail(r.Log(), 2<<10))
		}
		os.RemoveAll(r.dir)
	})
	return r
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Run runs a registry until Close, and returns when it answers.
func Run(o Options) (*Registry, error) {
	if _, err := os.Stat(Program); err != nil {
		return nil, errors.New("docker-registry is missing; make test installs it")
	}
	dir, err := os.MkdirTemp("", "tare-test-registry-")
	if err != nil {
		return nil, err
	}
	r := &Registry{dir: dir, how: o, Storage: o.Storage}
	if r.Storage == "" {
		r.Storage, r.owned = filepath.Join(dir, "storage"), true
	}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(err, r.Remove())
	}
	if err := r.Up(); err != nil {
		return nil, errors.Join(err, r.Remove())
	}
	return r, nil
}

// prepare makes the files that the configuration names.
func (r *Registry) prepare() (err error) {
	if r.how.TLS {
		if r.ca, err = newAuthority(); err != nil {
			return err
		}
		r.CA = r.path("ca.crt")
		if err := r.ca.write(r.CA, r.path("server.crt"), r.path("server.key")); err != nil {
			return err
		}
	}
	if r.how.Htpasswd != nil {
		var lines []byte
		for user, password := range r.how.Htpasswd {
			line, err := exec.Command("htpasswd", "-Bbn", "-C", "4", user, password).Output() // bcrypt at its cheapest
			if err != nil {
				return fmt.Errorf("htpasswd, of apache2-utils: %w", err)
			}
			lines = append(lines, bytes.TrimSpace(line)...)
			lines = append(lines, '\n')
		}
		if err := os.WriteFile(r.path("htpasswd"), lines, 0o600); err != nil {
			return err
		}
	}
	if r.how.Token != nil {
		if r.Tokens, err = serveTokens(r.how.Token, r.ca); err != nil {
			return err
		}
		return os.WriteFile(r.path("token.crt"), r.Tokens.signer.pem(), 0o600)
	}
	return nil
}

func (r *Registry) path(name string) string { return filepath.Join(r.dir, name) }

// object is a map of a configuration; YAML reads JSON.
type object map[string]any

// configuration is of distribution's version 0.1 format.
func (r *Registry) configuration() ([]byte, error) {
	address := r.Host
	if address == "" {
		address = "127.0.0.1:0"
	}
	listen := object{"addr": address, "secret": "of tests"}
	if r.how.TLS {
		listen["tls"] = object{"certificate": r.path("server.crt"), "key": r.path("server.key")}
	}
	config := object{
		"version": "0.1",
		"log":     object{"level": "info"},
		"storage": object{
			"filesystem":  object{"rootdirectory": r.Storage},
			"delete":      object{"enabled": true},
			"maintenance": object{"uploadpurging": object{"enabled": false}},
		},
		"http": listen,
	}
	switch {
	case r.how.Htpasswd != nil:
		config["auth"] = object{"htpasswd": object{"realm": "tests", "path": r.path("htpasswd")}}
	case r.Tokens != nil:
		config["auth"] = object{"token": object{"realm": r.Tokens.Realm, "service": r.Tokens.Service,
			"issuer": issuer, "rootcertbundle": r.path("token.crt")}}
	}
	if r.how.Upstream != "" {
		config["proxy"] = object{"remoteurl": r.how.Upstream}
	}
	return json.MarshalIndent(config, "", " ")
}

// lifeline runs a command until standard input ends, so that no registry
// outlives a test process, however that ends.
const lifeline = `"$@" </dev/null & pid=$!; cat >/dev/null; kill -KILL $pid; wait $pid`

var listening = regexp.MustCompile(`msg="listening on ([0-9.]+:[0-9]+)`)

// Up starts the registry again after Down, at the same address and with the
// same content.
func (r *Registry) Up() error {
	config, err := r.configuration()
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.path("config.yml"), config, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(r.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	before := len(r.Log())
	args := append(slices.Clone(r.how.Within), "sh", "-c", lifeline, "lifeline", Program, "serve", r.path("config.yml"))
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if r.life, err = r.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(r.cmd, r.ended)
	return r.await(before)
}

// await returns when the registry says where it listens, in its log from the
// offset on. It says so after listen(2), so connections are accepted.
func (r *Registry) await(offset int) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		said := r.Log()[offset:]
		if m := listening.FindStringSubmatch(said); m != nil {
			r.Host, r.URL = m[1], "http://"+m[1]
			if r.how.TLS {
				r.URL = "https://" + m[1]
			}
			return nil
		}
		// The shell goes on when the registry has ended.
		if regexp.MustCompile(`level=fatal|configuration error|panic:`).MatchString(said) || time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("docker-registry does not start: %s", said), r.Down())
		}
		select {
		case <-r.ended:
			return fmt.Errorf("docker-registry ended: %s", r.Log()[offset:])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Down kills the registry's process. Up starts it again.
func (r *Registry) Down() error {
	if r.life == nil {
		return nil
	}
	r.life.Close()
	r.life = nil
	select {
	case <-r.ended:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("docker-registry %s does not end", r.Host)
	}
}

// Close ends the registry and its token server. Its log and its storage stay
// until Remove.
func (r *Registry) Close() error {
	err := r.Down()
	if r.Tokens != nil {
		r.Tokens.close()
	}
	return err
}

// Remove is Close, and removes the registry's files.
func (r *Registry) Remove() error { return errors.Join(r.Close(), os.RemoveAll(r.dir)) }

// Pid is the registry's process, 0 when it does not run.
func (r *Registry) Pid() int {
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
	for _, list := range children {
		data, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(data)) {
			if exe, _ := os.Readlink("/proc/" + word + "/exe"); exe == Program {
				pid, _ := strconv.Atoi(word)
				return pid
			}
		}
	}
	return 0
}

// Log is what the registry has said: its access log is part of it.
func (r *Registry) Log() string {
	data, _ := os.ReadFile(r.path("log"))
	return string(data)
}

// Client is one that trusts the registry's authority.
func (r *Registry) Client() *http.Client {
	if r.ca == nil {
		return &http.Client{}
	}
	return r.ca.client()
}

// Get asks the registry without credentials for a path such as "/v2/_catalog"
// and returns the body, which must come with status 200.
func (r *Registry) Get(path string, accept ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header["Accept"] = accept
	res, err := r.Client().Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, res.Status, body)
	}
	return body, err
}
