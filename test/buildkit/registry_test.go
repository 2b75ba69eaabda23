package buildkit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

var ready = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)

// registry serves a registry, as its configuration says beside where it keeps
// things, and returns its host.
func registry(t *testing.T, configuration string) string {
	t.Helper()
	dir := t.TempDir()
	config, logPath := filepath.Join(dir, "registry.toml"), filepath.Join(dir, "log")
	if err := os.WriteFile(config, []byte("[storage]\nroot = \""+dir+"/root\"\n"+configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(daemon.Bin(t), "tare-registry"), "serve", "--config", config, "--addr", "127.0.0.1:0")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil || t.Failed() {
			text, _ := os.ReadFile(logPath)
			t.Errorf("tare-registry ended with %v:\n%s", err, text)
		}
	})
	var found [][]byte
	testutil.Eventually(t, 30*time.Second, "tare-registry is ready", func() bool {
		text, err := os.ReadFile(logPath)
		if err != nil {
			t.Fatal(err)
		}
		found = ready.FindSubmatch(text)
		return found != nil
	})
	return string(found[1])
}

// password writes a file of one user's, and returns nothing to say about it.
func password(t *testing.T, file, user, secret string) string {
	t.Helper()
	if out, err := exec.Command("htpasswd", "-Bbc", "-C", "4", file, user, secret).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return ""
}
