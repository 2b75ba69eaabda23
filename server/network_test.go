package server

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

func TestNetworkList(t *testing.T) {
	r := newRig(t)
	r.containers.on = map[string]map[string]wirenet.EndpointResource{}
	names := func(query string) string {
		path, filters, _ := strings.Cut(query, "=")
		_, _, text := r.do("GET", "/networks"+strings.TrimSuffix(path+"="+url.QueryEscape(filters), "="), "")
		var list []struct{ Name string }
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(query, err, text)
		}
		var out []string
		for _, n := range list {
			out = append(out, n.Name)
		}
		return strings.Join(out, " ")
	}
	for query, want := range map[string]string{
		"": "bridge host none mine", `?filters={"name":["br"]}`: "bridge", `?filters={"name":["^b","^m.+e$"]}`: "bridge mine",
		`?filters={"name":["[none"]}`: "", `?filters={"driver":["null","host"]}`: "host none", `?filters={"scope":["swarm"]}`: "",
		`?filters={"type":["custom"]}`: "mine", `?filters={"type":["builtin"]}`: "bridge host none", `?filters={"type":["builtin","custom"]}`: "bridge host none mine",
		`?filters={"id":["host-i"]}`: "host", `?filters={"label":["a"]}`: "mine", `?filters={"label":["a=1","b"]}`: "mine",
		`?filters={"label":["a=1","b=1"]}`: "", `?filters={"dangling":["true"]}`: "mine", `?filters={"dangling":["0"]}`: "bridge host none",
		`?filters={"dangling":{"1":true},"driver":{"host":true}}`: "", `?filters={"idOrName":["mine"]}`: "mine",
	} {
		if got := names(query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	r.containers.on["mine"] = map[string]wirenet.EndpointResource{"c1": {Name: "c"}}
	if got := names(`?filters={"dangling":["true"]}`); got != "" {
		t.Errorf("a network with a container is dangling: %s", got)
	}
	for filters, want := range map[string]string{
		`{"colour":["x"]}`: "invalid filter 'colour'", `{"type":["x"]}`: "invalid filter: 'type'='x'",
		`{"dangling":["x"]}`: `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`, `{"dangling":["0","1"]}`: `got more than one value for filter key "dangling"`,
	} {
		r.want(400, want, "GET", "/networks?filters="+url.QueryEscape(filters), "")
	}
	if _, _, text := r.do("GET", "/networks", ""); strings.Contains(text, "Containers") {
		t.Error("the list has the containers")
	}
	if _, _, text := r.do("GET", "/v1.27/networks", ""); !strings.Contains(text, `"Containers":{"c1":{"Name":"c"`) || strings.Contains(text, "Status") {
		t.Error("the list of old lacks the containers", text)
	}
}

func TestNetworkInspect(t *testing.T) {
	r := newRig(t)
	r.want(404, "network x not found", "GET", "/networks/x", "")
	r.want(404, "network mine not found", "GET", "/networks/mine?scope=swarm", "")
	r.want(200, "*", "GET", "/networks/mine?scope=local&verbose=true", "")
	r.want(400, `invalid value for verbose: maybe: strconv.ParseBool: parsing "maybe": invalid syntax`, "GET", "/networks/mine?verbose=maybe", "")
	for version, status := range map[string]bool{"": true, "/v1.52": true, "/v1.51": false} {
		if _, _, text := r.do("GET", version+"/networks/mine", ""); strings.Contains(text, `"Status":{`) != status {
			t.Errorf("%s: %s", version, text)
		}
	}
}

// TestNetworkRequests compares what reaches the nouns.
func TestNetworkRequests(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ method, path, body, want, answer string }{
		{"POST", "/networks/create", `{"Name":"n","CheckDuplicate":true,"EnableIPv4":false,"IPAM":{"Driver":"default","Config":[{"Subnet":"10.0.0.0/24","Gateway":null}]},"Options":{"a":"b"}}`,
			`create network {"Name":"n","Driver":"","Scope":"","EnableIPv4":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"10.0.0.0/24"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,"Options":{"a":"b"},"Labels":null}`,
			`{"Id":"n1","Warning":"w"}`},
		{"POST", "/v1.47/networks/create", `{"Name":"n","EnableIPv4":false,"EnableIPv6":true}`,
			`create network {"Name":"n","Driver":"","Scope":"","EnableIPv6":true,"IPAM":null,"Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,"Options":null,"Labels":null}`,
			`{"Id":"n1","Warning":"w"}`},
		{"DELETE", "/networks/n", "", "remove network n", ""},
		{"POST", "/networks/n/connect", `{"Container":"c"}`, "connect c to n null", ""},
		{"POST", "/networks/n/disconnect", `{"Container":"c","Force":true}`, "disconnect c from n true", ""},
	} {
		if status, _, text := r.do(c.method, c.path, c.body); status >= 300 || text != c.answer || r.containers.call != c.want {
			t.Errorf("%s %s: %d %s\n%s\nwant\n%s", c.method, c.path, status, text, r.containers.call, c.want)
		}
	}
	const e = `{"Container":"c","EndpointConfig":{"MacAddress":"02:00:00:00:00:09","GwPriority":3,"Aliases":["a"]}}`
	for version, want := range map[string]string{"": `"GwPriority":3`, "/v1.47": `"GwPriority":0`, "/v1.44": `"MacAddress":"02:00:00:00:00:09"`, "/v1.43": `"MacAddress":""`} {
		if r.do("POST", version+"/networks/n/connect", e); !strings.Contains(r.containers.call, want) || !strings.Contains(r.containers.call, `"Aliases":["a"]`) {
			t.Errorf("%s: %s", version, r.containers.call)
		}
	}
	r.want(400, "*", "POST", "/networks/create", `{"IPAM":{"Config":[{"Subnet":"ten"}]}}`)
	r.containers.err = fault.New(fault.Forbidden, "endpoint with name c already exists in network n")
	r.want(403, "endpoint with name c already exists in network n", "POST", "/networks/n/connect", `{"Container":"c"}`)
	r.want(403, "*", "DELETE", "/networks/n", "")
	r.want(403, "*", "POST", "/networks/n/disconnect", `{"Container":"c"}`)
	r.want(403, "*", "POST", "/networks/create", `{"Name":"n"}`)
}

func TestNetworkPrune(t *testing.T) {
	r := newRig(t)
	for filters, want := range map[string]string{
		"": `["mine"]`, `{"label":["a=1","b=2"]}`: `["mine"]`, `{"label":["a=1","b=3"]}`: `null`, `{"label!":["c"]}`: `["mine"]`, `{"label!":["a"]}`: `null`,
		`{"until":["1001"]}`: `["mine"]`, `{"until":["999"]}`: `null`, `{"until":["24h"],"label":["a"]}`: `["mine"]`,
	} {
		if status, _, text := r.do("POST", "/networks/prune?filters="+url.QueryEscape(filters), ""); status != 200 || text != `{"NetworksDeleted":`+want+`}` {
			t.Errorf("%s: %d %s, want %s", filters, status, text, want)
		}
	}
	if _, _, text := r.do("GET", "/events?since=0&until="+time.Now().UTC().Format(time.RFC3339Nano), ""); strings.Count(text, `"Action":"prune"`) != 8 || !strings.Contains(text, `"Type":"network"`) || !strings.Contains(text, `{"reclaimed":"0"}`) {
		t.Error(text)
	}
	r.want(400, "invalid filter 'colour'", "POST", `/networks/prune?filters={"colour":["x"]}`, "")
	r.want(400, "more than one until filter specified", "POST", `/networks/prune?filters={"until":["1h","2h"]}`, "")
	r.want(400, "*", "POST", `/networks/prune?filters={"until":["whenever"]}`, "")
}
