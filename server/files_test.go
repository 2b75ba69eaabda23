package server

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
)

func TestFiles(t *testing.T) {
	r := newRig(t)
	status, _, text := r.do("GET", "/v1.41/containers/c1/changes", "")
	if want := `[{"Kind":0,"Path":"/etc"}` + "\n" + `,{"Kind":1,"Path":"/etc/<new>"}` + "\n]"; status != 200 || text != want {
		t.Errorf("changes: %d %s", status, text)
	}
	if status, _, text := r.do("GET", "/containers/same/changes", ""); status != 200 || text != "null" {
		t.Errorf("no changes: %d %s", status, text)
	}
	status, h, text := r.do("GET", "/containers/c1/export", "")
	if status != 200 || text != "tar" || h.Get("Content-Type") != "application/octet-stream" || r.containers.call != "export c1" {
		t.Errorf("export: %d %q %v %s", status, text, h, r.containers.call)
	}
	r.containers.err = fault.New(fault.NotFound, "No such container: x")
	r.want(404, "No such container: x", "GET", "/containers/x/changes", "")
	r.want(404, "No such container: x", "GET", "/containers/x/export", "")
	r.want(404, "No such container: x", "POST", "/commit?container=x", "")
}

func TestCommit(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		path, body string
		want       container.CommitOptions
	}{
		{"?container=c1", "", container.CommitOptions{Pause: true}},
		{"?container=c1&pause=0&squash=1", "null", container.CommitOptions{Squash: true}},
		{"?container=c1&pause=1&repo=a/b&tag=c&comment=x+y&author=me&changes=USER+a&changes=CMD+b&source-date-epoch=17", `{"User":"u","Nonsense":1}`,
			container.CommitOptions{Pause: true, Reference: "a/b:c", Comment: "x y", Author: "me", Changes: []string{"USER a", "CMD b"},
				Config: &wire.Config{User: "u"}, Epoch: time.Unix(17, 0).UTC()}},
	} {
		status, _, text := r.do("POST", "/v1.41/commit"+c.path, c.body)
		if status != 201 || text != `{"Id":"sha256:1"}` || r.containers.call != "commit c1" {
			t.Errorf("%s: %d %s, %s", c.path, status, text, r.containers.call)
		}
		if diff := cmp.Diff(c.want, r.containers.commit); diff != "" {
			t.Errorf("%s: %s", c.path, diff)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "5")
	if r.want(201, "*", "POST", "/commit?container=c1", ""); r.containers.commit.Epoch != time.Unix(5, 0).UTC() {
		t.Errorf("the time of the environment is %v", r.containers.commit.Epoch)
	}
	r.want(400, `invalid SOURCE_DATE_EPOCH "soon": want seconds since 1970`, "POST", "/commit?container=c1&source-date-epoch=soon", "")
	r.want(400, "cannot import digest reference", "POST", "/commit?container=c1&repo=a@sha256:1", "")
	r.want(400, "unsupported Content-Type header (text/plain): must be 'application/json'", "POST", "/commit?container=c1", "{}", "Content-Type: text/plain")
}
