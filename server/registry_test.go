package server

import (
	"encoding/base64"
	"testing"

	"github.com/tarehq/tare/fault"
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
	r.want(400, `invalid limit specified: "x"`, "GET", "/images/search?term=x&limit=x", "")
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
	r.want(400, "invalid X-Registry-Auth header: auth is not base64 of user:password", "GET", "/distribution/a/json", "", "X-Registry-Auth: "+base64.URLEncoding.EncodeToString([]byte(`{"auth":"eA=="}`)))
	r.want(400, "invalid X-Registry-Auth header: must be a valid base64url-encoded string", "GET", "/distribution/a/json", "", "X-Registry-Auth: !")
	r.want(400, "invalid X-Registry-Auth header: invalid JSON: unexpected EOF", "GET", "/distribution/a/json", "", "X-Registry-Auth: "+base64.URLEncoding.EncodeToString([]byte("{")))
	r.want(400, "image name cannot be blank", "GET", "/distribution//json", "")
	r.registries.err = fault.New(fault.NotFound, "manifest unknown: manifest unknown")
	r.want(404, "manifest unknown: manifest unknown", "GET", "/v1.41/distribution/a/json", "")
}

func TestInfoTellsOfRegistries(t *testing.T) {
	c := registryConfig([]string{"https://m/"}, []string{"reg:5000", "10.0.0.0/8", "127.0.0.0/8"})
	if len(c.InsecureRegistryCIDRs) != 3 || c.InsecureRegistryCIDRs[2].String() != "10.0.0.0/8" || c.Mirrors[0] != "https://m/" ||
		c.IndexConfigs["docker.io"].Mirrors[0] != "https://m/" || c.IndexConfigs["reg:5000"].Secure || c.IndexConfigs["reg:5000"].Official {
		t.Errorf("%+v", c)
	}
}
