package server

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
)

func TestLogin(t *testing.T) {
	r := newRig(t)
	status, _, text := r.do("POST", "/v1.41/auth", `{"username":"me","password":"pw","serveraddress":"reg:5000"}`)
	if status != 200 || text != `{"IdentityToken":"the-token","Status":"Login Succeeded"}` || r.registries.cred.Username != "me" || r.registries.call != "login reg:5000" {
		t.Errorf("%d %s %+v", status, text, r.registries.cred)
	}
	r.registries.err = fault.New(fault.Unauthorized, "unauthorized: incorrect username or password")
	r.want(401, "unauthorized: incorrect username or password", "POST", "/auth", "{}")
	r.want(400, "*", "POST", "/auth", "[")
}

func TestSearch(t *testing.T) {
	r := newRig(t)
	if status, _, text := r.do("GET", `/images/search?term=busybox&filters={"stars":{"3":true}}`, ""); status != 200 || text != "[]" {
		t.Errorf("%d %s", status, text)
	}
	if o := r.registries.search; o.Term != "busybox" || o.Limit != 25 || !o.Filters["stars"]["3"] {
		t.Errorf("%+v", o)
	}
	r.want(400, `invalid limit specified: "-1"`, "GET", "/images/search?term=x&limit=-1", "")
	r.want(400, `invalid limit specified: strconv.Atoi: parsing "x": invalid syntax`, "GET", "/images/search?term=x&limit=x", "")
	r.want(400, "invalid filter", "GET", "/images/search?term=x&filters={", "")
}

func TestDistribution(t *testing.T) {
	r := newRig(t)
	auth := `{"username":"?>","password":"pw"}` // of which the two base64 differ
	for name, text := range map[string]string{
		"base64url": base64.URLEncoding.EncodeToString([]byte(auth)), "base64": base64.StdEncoding.EncodeToString([]byte(auth)),
		"without padding": base64.RawURLEncoding.EncodeToString([]byte(auth)),
	} {
		r.registries.cred.Username = ""
		status, _, _ := r.do("GET", "/distribution/reg:5000/a/b:1/json", "", "X-Registry-Auth: "+text)
		if status != 200 || r.registries.call != "distribution reg:5000/a/b:1" || r.registries.cred.Username != "?>" {
			t.Errorf("%s: %d %s %+v", name, status, r.registries.call, r.registries.cred)
		}
	}
	old := base64.StdEncoding.EncodeToString([]byte(`{"auth":"` + base64.StdEncoding.EncodeToString([]byte("ann:a:b")) + `"}`))
	if r.do("GET", "/distribution/a/json", "", "X-Registry-Auth: "+old); r.registries.cred.Username != "ann" || r.registries.cred.Password != "a:b" {
		t.Errorf("%+v", r.registries.cred)
	}
	r.want(400, "image name cannot be blank", "GET", "/distribution//json", "")
	r.registries.err = fault.New(fault.NotFound, "manifest unknown: manifest unknown")
	r.want(404, "manifest unknown: manifest unknown", "GET", "/v1.41/distribution/a/json", "")
}

// What does not reach a registry fails as in Docker's daemon: not by 503, after which
// clients ask again.
func TestUnreachableRegistry(t *testing.T) {
	r := newRig(t)
	r.registries.err = fault.New(fault.Unavailable, "no such host")
	r.images.err = r.registries.err
	r.want(500, "no such host", "POST", "/auth", "{}")
	r.want(500, "no such host", "GET", "/images/search?term=x", "")
	r.want(500, "no such host", "GET", "/distribution/a/json", "")
	r.want(500, "no such host", "POST", "/images/create?fromImage=a&tag=b", "")
	r.want(500, "no such host", "POST", "/images/a/push", "")
}

// A header that cannot be read is nobody, for every operation that takes one.
func TestUnreadableRegistryAuth(t *testing.T) {
	r := newRig(t)
	enc := base64.URLEncoding.EncodeToString
	for _, text := range []string{"!", enc([]byte("{")), enc([]byte("[]")), enc([]byte(`{"auth":"eA=="}`)), enc([]byte(`{"username":"ann"}{}`))} {
		for path, cred := range map[string]*image.Credentials{
			"GET /distribution/a/json": &r.registries.cred, "GET /images/search?term=a": &r.registries.search.Credentials,
			"POST /images/create?fromImage=a": &r.images.cred, "POST /images/a/push": &r.images.cred,
		} {
			*cred = image.Credentials{Username: "old"}
			method, path, _ := strings.Cut(path, " ")
			if status, _, out := r.do(method, path, "", "X-Registry-Auth: "+text); status != 200 || *cred != (image.Credentials{}) {
				t.Errorf("%s with %s: %d %s %+v", path, text, status, out, *cred)
			}
		}
	}
	r.want(400, "invalid credentials: auth is not base64 of user:password", "POST", "/auth", `{"auth":"eA=="}`)
}

func TestInfoTellsOfRegistries(t *testing.T) {
	c := registryConfig([]string{"https://m/"}, []string{"reg:5000", "10.0.0.0/8", "127.0.0.0/8"})
	if len(c.InsecureRegistryCIDRs) != 3 || c.InsecureRegistryCIDRs[2].String() != "10.0.0.0/8" || c.Mirrors[0] != "https://m/" ||
		c.IndexConfigs["docker.io"].Mirrors[0] != "https://m/" || c.IndexConfigs["reg:5000"].Secure || c.IndexConfigs["reg:5000"].Official {
		t.Errorf("%+v", c)
	}
}
