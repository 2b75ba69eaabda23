package image

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

func registries(t *testing.T) *Registries {
	t.Helper()
	c, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return NewRegistries(c)
}

func TestDistribution(t *testing.T) {
	reg := registry.Start(t, registry.Options{Htpasswd: map[string]string{"ann": "secret"}})
	img := images.Make(t, images.Spec{Layers: 2})
	images.Copy(t, img.Ref(), "docker://"+reg.Host+"/some/thing:v1", "--dest-creds=ann:secret")
	r, ann := registries(t), Credentials{Username: "ann", Password: "secret"}
	for _, name := range []string{reg.Host + "/some/thing:v1", reg.Host + "/some/thing@" + img.Manifest.Digest.String()} {
		got, err := r.Distribution(t.Context(), name, ann)
		if err != nil || got.Descriptor.Digest != img.Manifest.Digest || len(got.Platforms) != 1 || got.Platforms[0].OS != "linux" || got.Platforms[0].Architecture == "" {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if _, err := r.Distribution(t.Context(), reg.Host+"/some/thing:v2", ann); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := r.Distribution(t.Context(), reg.Host+"/some/thing:v1", Credentials{}); !errors.Is(err, fault.Unauthorized) {
		t.Error(err)
	}
	if _, err := r.Distribution(t.Context(), "a/B", ann); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if token, err := r.Login(t.Context(), reg.Host, ann); err != nil || token != "" {
		t.Errorf("%q %v", token, err)
	}
	ann.Password = "wrong"
	if _, err := r.Login(t.Context(), reg.Host, ann); !errors.Is(err, fault.Unauthorized) {
		t.Error(err)
	}
}

func TestSearchFilters(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" {
			io.WriteString(w, `{"results":[{"name":"official","is_official":true,"star_count":9},{"name":"automated","is_automated":true,"star_count":5},{"name":"plain","star_count":1}]}`)
		}
	}))
	defer s.Close()
	r, term := registries(t), strings.TrimPrefix(s.URL, "http://")+"/x"
	for _, test := range []struct {
		filters map[string]map[string]bool
		want    string
	}{
		{nil, "official automated plain"},
		{map[string]map[string]bool{"is-official": {"true": true}}, "official"},
		{map[string]map[string]bool{"is-official": {"false": true}, "stars": {"2": true}}, "automated"},
		{map[string]map[string]bool{"is-automated": {"1": true}}, "automated"},
		{map[string]map[string]bool{"stars": {"3": true, "6": true}}, "official"},
		{map[string]map[string]bool{"stars": {"x": true}}, "invalid filter 'stars=x'"},
		{map[string]map[string]bool{"is-official": {"x": true}}, "invalid filter 'is-official=[x]'"},
		{map[string]map[string]bool{"is-official": {"true": true, "false": true}}, "invalid filter 'is-official=[false true]'"},
		{map[string]map[string]bool{"colour": {"x": true}}, "invalid filter 'colour'"},
	} {
		got, err := r.Search(t.Context(), SearchOptions{Term: term, Limit: 25, Filters: test.filters})
		var names []string
		for _, g := range got {
			names = append(names, g.Name)
		}
		if err != nil && err.Error() != test.want || err == nil && strings.Join(names, " ") != test.want {
			t.Errorf("%v: %q %v, want %s", test.filters, names, err, test.want)
		}
	}
}
