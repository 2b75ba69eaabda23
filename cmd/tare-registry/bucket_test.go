package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/s3"
)

// TestBucketByTLS has a bucket behind a certificate of its own authority, and
// credentials from each place where S3's clients look for them.
func TestBucketByTLS(t *testing.T) {
	files := pair(t, t.TempDir(), "s3")
	server := s3.StartTLS(t, files.Cert, files.Key, "registry")
	machine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"Code": "Success", "AccessKeyId": s3.AccessKey, "SecretAccessKey": s3.SecretKey, "Expiration": time.Now().Add(time.Hour)})
	}))
	defer machine.Close()
	shared := filepath.Join(t.TempDir(), "credentials")
	write(t, shared, fmt.Sprintf("[images]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3.AccessKey, s3.SecretKey))
	t.Setenv("HOME", t.TempDir())
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_PROFILE", "AWS_CONFIG_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	configuration := func(name, more string) string {
		file := filepath.Join(t.TempDir(), "r.toml")
		write(t, file, fmt.Sprintf("[storage.s3]\nendpoint = \"https://%s\"\nbucket = \"registry\"\nprefix = %q\nregion = \"us-east-1\"\npath_style = true\n%s", server.Host, name, more))
		return file
	}
	ca := fmt.Sprintf("ca = %q\n", files.Cert)
	for name, c := range map[string]struct {
		config string
		env    map[string]string
	}{
		"configuration": {fmt.Sprintf("access_key = %q\nsecret_key = %q\n", s3.AccessKey, s3.SecretKey), nil},
		"environment":   {"", map[string]string{"AWS_ACCESS_KEY_ID": s3.AccessKey, "AWS_SECRET_ACCESS_KEY": s3.SecretKey}},
		"shared file":   {"", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": shared, "AWS_PROFILE": "images"}},
		"machine":       {"", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": machine.URL}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			r := start(t, "--config", configuration(name, ca+c.config))
			repo := r.repository(t, "team/app", remote.Credentials{})
			if err := push(t.Context(), repo, name, "v1"); err != nil {
				t.Fatal(err)
			}
			wantPull(t, repo, "v1", name)
		})
	}
	t.Run("without the authority", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", s3.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", s3.SecretKey)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := run(ctx, io.Discard, io.Discard, []string{"serve", "--addr", "127.0.0.1:0", "--config", configuration("none", "")})
		if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
			t.Errorf("a server that nobody vouches for: %v", err)
		}
	})
}
