package config_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/fault"
)

func write(t *testing.T, text string, path ...string) {
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if f, err := config.Load(dir); err != nil || f.DetachKeys != "" {
		t.Error(f, err)
	}
	write(t, `{"detachKeys":"ctrl-e,e","auths":{"h":{"auth":"eDp5"}},"credsStore":"x"}`, dir, "config.json")
	if f, err := config.Load(dir); err != nil || f.DetachKeys != "ctrl-e,e" || f.Auths["h"].Auth != "eDp5" {
		t.Error(f, err)
	}
	write(t, `{`, dir, "config.json")
	if f, err := config.Load(dir); err == nil || f == nil {
		t.Error(f, err)
	}
}

func TestContext(t *testing.T) {
	dir := t.TempDir()
	sum := sha256.Sum256([]byte("far"))
	key := hex.EncodeToString(sum[:])
	write(t, `{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://h:2376","SkipTLSVerify":false}}}`, dir, "contexts/meta", key, "meta.json")
	write(t, "ca", dir, "contexts/tls", key, "docker/ca.pem")
	e, err := config.NewContexts(dir).Endpoint("far")
	if err != nil || e.Host != "tcp://h:2376" || e.TLS == nil || !e.TLS.Verify || e.TLS.CA == "" || e.TLS.Cert != "" {
		t.Errorf("%+v %+v %v", e, e.TLS, err)
	}
	if _, err := config.NewContexts(dir).Endpoint("near"); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
}
