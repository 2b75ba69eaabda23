package compat

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/registry"
)

// docker runs Docker's client with a configuration of the test's own.
func docker(t *testing.T, d *daemon.Daemon, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", append([]string{"--config", filepath.Join(d.Dir, "docker")}, args...)...)
	cmd.Env, cmd.Stdin = d.Env(), strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestDockerLogsIn has Docker's client log in to each kind of registry, and use
// what that brought.
func TestDockerLogsIn(t *testing.T) {
	d := daemon.Start(t)
	d.ImportBusybox(t)
	for what, o := range map[string]registry.Options{
		"basic": {Htpasswd: map[string]string{"ann": "secret"}},
		"token": {Token: &registry.Rights{Passwords: map[string]string{"ann": "secret"}, Access: map[string]map[string][]string{"ann": {"own/*": {"*"}}}}},
	} {
		reg := registry.Start(t, o)
		name := reg.Host + "/own/box:1"
		if out, err := docker(t, d, "", "tag", "busybox", name); err != nil {
			t.Fatal(out)
		}
		if out, err := docker(t, d, "", "push", name); err == nil {
			t.Errorf("%s: a push as nobody: %s", what, out)
		}
		refusal := map[string]string{
			"basic": "login attempt to http://" + reg.Host + "/v2/ failed with status: 401 Unauthorized",
			"token": fmt.Sprintf("Get %q: unauthorized: ", "http://"+reg.Host+"/v2/"),
		}[what]
		if out, err := docker(t, d, "wrong\n", "login", "-u", "ann", "--password-stdin", reg.Host); err == nil || !strings.Contains(out, refusal) {
			t.Errorf("%s: %v %s, want %s", what, err, out, refusal)
		}
		if out, err := docker(t, d, "secret\n", "login", "-u", "ann", "--password-stdin", reg.Host); err != nil || !strings.Contains(out, "Login Succeeded") {
			t.Fatalf("%s: %v %s", what, err, out)
		}
		for _, step := range [][]string{{"push", name}, {"rmi", name}, {"pull", name}, {"run", "--rm", name, "true"}} {
			if out, err := docker(t, d, "", step...); err != nil {
				t.Errorf("%s: %v: %s", what, step, out)
			}
		}
		if out, err := docker(t, d, "", "logout", reg.Host); err != nil {
			t.Error(out)
		}
		if out, err := docker(t, d, "", "pull", name); err == nil {
			t.Errorf("%s: a pull as nobody: %s", what, out)
		}
	}
}

func TestDockerSearches(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" && r.URL.Query().Get("q") == "thing" {
			io.WriteString(w, `{"results":[{"name":"some/thing","star_count":7,"is_official":true,"description":"what it is"},{"name":"other/thing","star_count":1}]}`)
		}
	}))
	defer s.Close()
	d := daemon.Start(t, "--registry-mirror", "https://mirror.example", "--insecure-registry", "10.9.0.0/16", "--max-concurrent-downloads", "2")
	out, err := docker(t, d, "", "search", "--filter", "stars=3", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}} {{.Description}}", strings.TrimPrefix(s.URL, "http://")+"/thing")
	if err != nil || out != "some/thing 7 [OK] what it is" {
		t.Errorf("%v %s", err, out)
	}
	out, err = docker(t, d, "", "info", "--format", "{{.RegistryConfig.Mirrors}} {{.RegistryConfig.InsecureRegistryCIDRs}}")
	if err != nil || !strings.HasPrefix(out, "[https://mirror.example/] [") || !strings.Contains(out, "10.9.0.0") {
		t.Errorf("%v %s", err, out)
	}
}
