package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// authorizer is a plugin that must agree: it refuses privileged containers, and
// to show the networks.
type authorizer struct {
	mu   sync.Mutex
	seen []string // "AuthZReq POST /containers/create"
}

func (a *authorizer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/Plugin.Activate" {
		json.NewEncoder(w).Encode(map[string]any{"Implements": []string{"authz"}})
		return
	}
	var q struct {
		RequestMethod             string
		RequestURI                string `json:"RequestUri"`
		RequestBody, ResponseBody []byte
		RequestHeaders            map[string]string
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	method := strings.TrimPrefix(r.URL.Path, "/AuthZPlugin.")
	a.mu.Lock()
	a.seen = append(a.seen, method+" "+q.RequestMethod+" "+q.RequestURI)
	a.mu.Unlock()
	refused := strings.Contains(string(q.RequestBody), `"Privileged":true`) ||
		method == "AuthZRes" && strings.Contains(q.RequestURI, "/networks")
	json.NewEncoder(w).Encode(map[string]any{"Allow": !refused, "Msg": "not in this house"})
}

func (a *authorizer) saw(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.seen {
		if strings.Contains(s, text) {
			return true
		}
	}
	return false
}

// TestAuthorization: nothing is done that a plugin does not agree to, also when
// it is gone, and a reload takes and leaves it.
func TestAuthorization(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	sockets := filepath.Join(d.Dir, "sockets")
	if err := os.Mkdir(sockets, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(sockets, "doorman.sock"))
	if err != nil {
		t.Fatal(err)
	}
	plugin := &authorizer{}
	server := &http.Server{Handler: plugin}
	go server.Serve(l)
	d.AtEnd(server.Close)
	config := filepath.Join(d.Dir, "daemon.json")
	d.Add("--plugin-dir", sockets)
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reload := func() {
		t.Helper()
		if err := syscall.Kill(d.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"authorization-plugins": ["doorman"]}`)
	d.Up(t)
	d.ImportBusybox(t)
	refused := func(what string, args ...string) {
		t.Helper()
		if out, err := d.Try(args...); err == nil || !strings.Contains(err.Error(), "authorization denied by plugin doorman: not in this house") {
			t.Errorf("%s: %q %v", what, out, err)
		}
	}
	if out := d.Tare(t, "run", "--rm", "busybox", "echo", "ran"); out != "ran" {
		t.Errorf("run: %q", out)
	}
	refused("a privileged container", "run", "--rm", "--privileged", "busybox", "true")
	refused("the answer", "network", "ls")
	if out := d.Tare(t, "info", "--format", "{{json .Plugins.Authorization}}"); out != `["doorman"]` {
		t.Errorf("info: %s", out)
	}
	if out := d.Tare(t, "info"); !strings.Contains(out, "\n  Authorization: doorman\n") {
		t.Errorf("info: %s", out)
	}
	for _, text := range []string{"AuthZReq POST /v1.", "/containers/create", "AuthZRes GET", "/attach?"} {
		if !plugin.saw(text) {
			t.Errorf("the plugin was not asked about %s", text)
		}
	}

	write(`{}`)
	reload()
	testutil.Eventually(t, 10*time.Second, "nobody is asked", func() bool { _, err := d.Try("network", "ls"); return err == nil })
	write(`{"authorization-plugins": ["doorman"]}`)
	reload()
	testutil.Eventually(t, 10*time.Second, "it is asked again", func() bool { _, err := d.Try("network", "ls"); return err != nil })
	server.Close()
	if _, err := d.Try("ps"); err == nil || !strings.Contains(err.Error(), "plugin doorman failed with error") {
		t.Errorf("without the plugin: %v", err)
	}
	write(`{}`)
	reload()
	testutil.Eventually(t, 10*time.Second, "nobody is asked", func() bool { _, err := d.Try("ps"); return err == nil })
}
