package server

import (
	"strings"
	"testing"
)

func TestCheckpoints(t *testing.T) {
	r := newRig(t)
	r.want(201, "", "POST", "/containers/x/checkpoints", `{"CheckpointID":"a","CheckpointDir":"/d","Exit":true}`)
	if want := "checkpoint x {Name:a Dir:/d Exit:true PreDump:false}"; r.containers.call != want {
		t.Errorf("%q", r.containers.call)
	}
	r.want(201, "", "POST", "/containers/x/checkpoints", `{"CheckpointID":"a","PreDump":true}`)
	if want := "checkpoint x {Name:a Dir: Exit:false PreDump:true}"; r.containers.call != want {
		t.Errorf("%q", r.containers.call)
	}
	r.want(204, "", "POST", "/containers/x/start?checkpoint=a&lazy-pages=1", "")
	if want := "start x from a of , lazy: true"; r.containers.call != want {
		t.Errorf("%q", r.containers.call)
	}
	if _, _, text := r.do("GET", "/containers/x/checkpoints?dir=/d", ""); text != `[{"Name":"a"},{"Name":"b"}]` || r.containers.call != "checkpoints x /d" {
		t.Errorf("%s, %q", text, r.containers.call)
	}
	if _, _, text := r.do("GET", "/containers/x/checkpoints/b/json", ""); !strings.Contains(text, `"Name":"b"`) || !strings.Contains(text, `"Size":7`) || r.containers.call != "inspect b of x " {
		t.Errorf("%s, %q", text, r.containers.call)
	}
	if _, _, text := r.do("GET", "/containers/x/checkpoints/b/archive?dir=/d", ""); text != "tar" || r.containers.call != "export b of x /d" {
		t.Errorf("%s, %q", text, r.containers.call)
	}
	r.want(204, "", "PUT", "/containers/x/checkpoints/b/archive", "bytes")
	if r.containers.call != "import b of x bytes" {
		t.Errorf("%q", r.containers.call)
	}
	r.want(204, "", "DELETE", "/containers/x/checkpoints/b?dir=/d", "")
	if r.containers.call != "remove b of x /d" {
		t.Errorf("%q", r.containers.call)
	}
}
