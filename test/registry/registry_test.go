package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

func TestPlainAndTLS(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := registry.Start(t, registry.Options{TLS: secure})
		img := images.Make(t, images.Spec{Layers: 2, Docker: secure})
		images.Copy(t, img.Ref(), "docker://"+r.Host+"/some/thing:v1")
		body, err := r.Get("/v2/_catalog")
		if err != nil || !strings.Contains(string(body), `"some/thing"`) {
			t.Errorf("%s %v", body, err)
		}
		if _, err := os.Stat(filepath.Join(r.Storage, "docker/registry/v2/blobs/sha256")); err != nil {
			t.Error(err)
		}
		host := r.Host
		if err := r.Down(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get("/v2/"); err == nil {
			t.Error("it is not down")
		}
		if err := r.Up(); err != nil || r.Host != host {
			t.Fatalf("%s, before %s: %v", r.Host, host, err)
		}
		if _, err := r.Get("/v2/some/thing/manifests/"+img.Manifest.Digest.String(), img.Manifest.MediaType); err != nil {
			t.Error(err)
		}
	}
}

func TestHtpasswd(t *testing.T) {
	r := registry.Start(t, registry.Options{Htpasswd: map[string]string{"ann": "secret"}})
	if _, err := r.Get("/v2/"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a password: %v", err)
	}
	img := images.Make(t, images.Spec{})
	if images.Skopeo(img.Ref(), "docker://"+r.Host+"/x:1", "--dest-creds=ann:wrong") == nil {
		t.Error("the wrong password is right")
	}
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/x:1", "--dest-creds=ann:secret")
}

func rights() *registry.Rights {
	return &registry.Rights{
		Passwords: map[string]string{"ann": "secret"},
		Access:    map[string]map[string][]string{"": {"public/*": {"pull"}}, "ann": {"**": {"*"}}},
	}
}

func TestToken(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := registry.Start(t, registry.Options{TLS: secure, Token: rights()})
		img := images.Make(t, images.Spec{})
		for name, want := range map[string]bool{"public/x": true, "private/x": false} {
			images.Copy(t, img.Ref(), "docker://"+r.Host+"/"+name+":1", "--dest-creds=ann:secret")
			err := images.Skopeo("docker://"+r.Host+"/"+name+":1", "oci:"+t.TempDir()+":x")
			if (err == nil) != want {
				t.Errorf("pull of %s by nobody: %v", name, err)
			}
			if images.Skopeo(img.Ref(), "docker://"+r.Host+"/"+name+":2") == nil {
				t.Errorf("nobody may push %s", name)
			}
		}
		if images.Skopeo(img.Ref(), "docker://"+r.Host+"/public/x:1", "--dest-creds=ann:wrong") == nil {
			t.Error("the wrong password is right")
		}
		asked := r.Tokens.Asked()
		if len(asked) == 0 || asked[0].User != "ann" || asked[0].Service != r.Tokens.Service || asked[0].Status != 200 {
			t.Errorf("%+v", asked)
		}
	}
}

// The OAuth2 way: a password for a refresh token, and that for tokens.
func TestRefreshToken(t *testing.T) {
	r := registry.Start(t, registry.Options{TLS: true, Token: rights()})
	post := func(form url.Values) (status int, answer struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}) {
		form.Set("service", r.Tokens.Service)
		form.Set("client_id", "tests")
		res, err := r.Client().PostForm(r.Tokens.Realm, form)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, answer
	}
	status, first := post(url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"secret"}, "access_type": {"offline"}})
	if status != 200 || first.Refresh == "" {
		t.Fatalf("%d %+v", status, first)
	}
	status, second := post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.Refresh}, "scope": {"registry:catalog:*"}})
	if status != 200 || second.Access == "" {
		t.Fatalf("%d %+v", status, second)
	}
	req, err := http.NewRequest(http.MethodGet, r.URL+"/v2/_catalog", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+second.Access)
	res, err := r.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		t.Errorf("the token does not open the catalog: %s %s", res.Status, body)
	}
	r.Tokens.Revoke()
	if status, _ := post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.Refresh}}); status != 401 {
		t.Errorf("a revoked token: %d", status)
	}
	if asked := fmt.Sprint(r.Tokens.Asked()); !strings.Contains(asked, "refresh_token") {
		t.Error(asked)
	}
}
