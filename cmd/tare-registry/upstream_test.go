package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// TestUpstream has a registry of copies, of images that are asked for and of
// those that are synced, from one that wants a password.
func TestUpstream(t *testing.T) {
	far := registry.Start(t, registry.Options{TLS: true, Htpasswd: map[string]string{"ann": "secret"}})
	img := images.Make(t, images.Spec{Layers: 2})
	for _, name := range []string{"team/app:v1", "team/tool:v1", "team/tool:v2"} {
		images.Copy(t, img.Ref(), "docker://"+far.Host+"/"+name, "--dest-creds=ann:secret")
	}
	root, numbers := t.TempDir(), freePort(t)
	file, password := filepath.Join(t.TempDir(), "r.toml"), filepath.Join(t.TempDir(), "password")
	write(t, password, "secret\n")
	write(t, file, fmt.Sprintf(`
[storage]
root = %q
[http]
listen = ["127.0.0.1:0"]
[metrics]
listen = %q
[[upstream]]
name = "far"
url = %q
prefix = "far"
namespaces = ["far.example"]
ca = %q
username = "ann"
password = {file = %q}
tag_ttl = "0s"
[[sync]]
upstream = "far"
prefix = "mirror"
repositories = ["team/tool"]
tags = ["v*"]
interval = "1h"
`, root, numbers, far.URL, far.CA, password))
	r := start(t, "--config", file)
	testutil.Eventually(t, 20*time.Second, "the sync has ended", func() bool {
		_, err := os.Stat(filepath.Join(root, "syncs.json"))
		return err == nil
	})
	pull := func(path string) {
		t.Helper()
		repo := r.repository(t, path, remote.Credentials{})
		d, _, err := repo.Manifest(t.Context(), "v1")
		if err != nil || d.Digest != img.Manifest.Digest {
			t.Fatalf("%s: %s instead of %s: %v", path, d.Digest, img.Manifest.Digest, err)
		}
		for _, b := range img.Layers {
			if _, err := repo.ReadBlob(t.Context(), b, 1<<20); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	pull("far/team/app")
	answer, err := http.Get("http://" + r.host + "/v2/team/app/manifests/v1?ns=far.example")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("as a mirror of far.example: %s", answer.Status)
	}
	err = push(t.Context(), r.repository(t, "far/team/app", remote.Credentials{}), "text", "v3")
	if !errors.Is(err, fault.Forbidden) {
		t.Errorf("a push to a copy: %v", err)
	}
	if err := push(t.Context(), r.repository(t, "own/app", remote.Credentials{}), "text", "v1"); err != nil {
		t.Error(err)
	}
	if err := far.Down(); err != nil {
		t.Fatal(err)
	}
	pull("far/team/app")
	pull("mirror/team/tool")
	_, _, text := get(t, "http://"+numbers+"/metrics")
	for _, want := range []string{`noun="blob",result="hit",upstream="far"} 2`, `noun="blob",result="asked",upstream="far"} 2`,
		`noun="manifest",result="hit",upstream="far"} `, `noun="tag",result="asked",upstream="far"} 2`, `noun="tag",result="stale",upstream="far"} 1`} {
		if !strings.Contains(text, "tare_registry_upstream_lookups_total{"+want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(text, `tare_registry_upstream_received_bytes_total{upstream="far"} 0`) {
		t.Error("no bytes are counted")
	}
}
