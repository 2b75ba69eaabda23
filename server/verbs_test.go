package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
)

// What is done to a container that is there, as far as the server sees it.
func TestVerbs(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		method, path, body string
		status             int
		call               string
	}{
		{"POST", "/containers/web/pause", "", 204, "pause web"},
		{"POST", "/containers/web/unpause", "", 204, "unpause web"},
		{"POST", "/containers/web/rename?name=site", "", 204, "rename web site"},
		{"POST", "/containers/web/update", `{"Memory":7}`, 200, "update web"},
		{"GET", "/containers/web/stats", "", 200, "stats web {Stream:true OneShot:false}"},
		{"GET", "/containers/web/stats?stream=0", "", 200, "stats web {Stream:false OneShot:false}"},
		{"GET", "/v1.41/containers/web/stats?stream=false&one-shot=1", "", 200, "stats web {Stream:false OneShot:true}"},
		{"GET", "/v1.40/containers/web/stats?stream=false&one-shot=1", "", 200, "stats web {Stream:false OneShot:false}"},
		{"GET", "/containers/web/top", "", 200, "top web "},
		{"GET", "/containers/web/top?ps_args=-o+pid", "", 200, "top web -o pid"},
		{"POST", `/containers/prune?filters={"until":["1h"]}`, "", 200, "prune map[until:map[1h:true]]"},
	} {
		r.want(test.status, "*", test.method, test.path, test.body)
		if r.containers.call != test.call {
			t.Errorf("%s: %s, want %s", test.path, r.containers.call, test.call)
		}
	}
	if _, _, text := r.do("GET", "/containers/web/stats", ""); len(text) < 10 || text[:11] != `{"id":"web"` {
		t.Errorf("stats: %s", text)
	}
	if _, _, text := r.do("GET", "/containers/web/top", ""); text != `{"Processes":[["1"]],"Titles":["PID"]}` {
		t.Errorf("top: %s", text)
	}
	if _, _, text := r.do("POST", "/containers/prune", ""); text != `{"ContainersDeleted":null,"SpaceReclaimed":0}` {
		t.Errorf("prune: %s", text)
	}
	r.want(200, "*", "POST", "/containers/web/update", "") // as in Docker, nothing is to change
	r.want(200, "*", "POST", "/containers/web/update", `{"PidsLimit":-5}`)
	if p := r.containers.updated.PidsLimit; p == nil || *p != 0 {
		t.Errorf("no limit of processes: %v", p)
	}
	r.want(200, "*", "POST", "/v1.39/containers/web/update", `{"PidsLimit":5}`)
	if p := r.containers.updated.PidsLimit; p != nil {
		t.Errorf("version 1.39 has no limit of processes: %v", *p)
	}
	r.want(200, "*", "POST", "/containers/web/update", `{"NetworkingConfig":{"EndpointsConfig":{"n":{"DriverOpts":{"com.tarehq.network.in-rate":"10mbit"}}}}}`)
	if call := r.containers.call; !strings.HasPrefix(call, "limit web {") || !strings.Contains(call, `"n":{`) || !strings.Contains(call, `"10mbit"`) {
		t.Errorf("a network's rate: %s", call)
	}
	r.containers.call = ""
	for change, want := range map[string]string{
		`"DriverOpts":{"com.tarehq.network.in-rate":"fast"}`: `invalid network rate "fast": say bits per second, such as 500kbit, 10mbit or 1gbit`,
		`"DriverOpts":{"color":"red"}`:                       "invalid config for network n: the option color cannot be changed of a place on a network; disconnect the container and connect it anew",
		`"Aliases":["a"]`:                                    "invalid config for network n: only DriverOpts can be changed of a place on a network; disconnect the container and connect it anew",
	} {
		r.want(400, want, "POST", "/containers/web/update", `{"NetworkingConfig":{"EndpointsConfig":{"n":{`+change+`}}}}`)
	}
	if r.containers.call != "" {
		t.Errorf("what is refused did %s", r.containers.call)
	}
	r.containers.err = errors.New("Container x is not paused")
	r.want(500, "Container x is not paused", "POST", "/containers/web/unpause", "")
	r.containers.err = fault.New(fault.Conflict, "Container x is already paused")
	r.want(409, "Container x is already paused", "POST", "/containers/web/pause", "")
	r.want(409, "*", "GET", "/containers/web/stats", "")
}
