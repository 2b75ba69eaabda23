package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/server/version"
)

// endpoints are all of the Engine API's, from 1.24 to the newest, with the
// least version that has them. Each is asked in each version.
const endpoints = `
GET /containers/json
POST /containers/create
GET /containers/x/json
GET /containers/x/top
GET /containers/x/logs?stdout=1
GET /containers/x/changes
GET /containers/x/export
GET /containers/x/stats?stream=0
POST /containers/x/resize?h=1&w=1
POST /containers/x/start
POST /containers/x/stop
POST /containers/x/restart
POST /containers/x/kill
POST /containers/x/update
POST /containers/x/rename?name=yy
POST /containers/x/pause
POST /containers/x/unpause
POST /containers/x/attach?stream=1&stdout=1
GET /containers/x/attach/ws?stream=1&stdout=1
POST /containers/x/wait
DELETE /containers/x
HEAD /containers/x/archive?path=/
GET /containers/x/archive?path=/
PUT /containers/x/archive?path=/
POST /containers/prune
GET /containers/x/checkpoints
POST /containers/x/checkpoints
DELETE /containers/x/checkpoints/c
GET /images/json
POST /build
POST /build/prune
POST /build/cancel
POST /images/create?fromImage=x
GET /images/x/json
GET /images/x/attestations
GET /images/x/history
POST /images/x/push
POST /images/x/tag?repo=y
DELETE /images/x
GET /images/search?term=x
POST /images/prune
POST /auth
GET /info
GET /version
GET /_ping
HEAD /_ping
POST /commit?container=x
GET /events?until=1
GET /system/df
GET /images/x/get
GET /images/get?names=x
POST /images/load
POST /containers/x/exec
POST /exec/x/start
POST /exec/x/resize?h=1&w=1
GET /exec/x/json
GET /volumes
POST /volumes/create
GET /volumes/x
PUT /volumes/x
DELETE /volumes/x
POST /volumes/prune
GET /networks
GET /networks/x
DELETE /networks/x
POST /networks/create
POST /networks/x/connect
POST /networks/x/disconnect
POST /networks/prune
GET /plugins
GET /plugins/privileges?remote=x
POST /plugins/pull?remote=x
GET /plugins/a/x/json
DELETE /plugins/a/x
POST /plugins/a/x/enable
POST /plugins/a/x/disable
POST /plugins/a/x/upgrade
POST /plugins/create?name=x
POST /plugins/a/x/push
POST /plugins/a/x/set
GET /nodes
GET /nodes/x
DELETE /nodes/x
POST /nodes/x/update
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/update
GET /swarm/unlockkey
POST /swarm/unlock
GET /services
POST /services/create
GET /services/x
DELETE /services/x
POST /services/x/update
GET /services/x/logs
GET /tasks
GET /tasks/x
GET /tasks/x/logs
GET /secrets
POST /secrets/create
GET /secrets/x
DELETE /secrets/x
POST /secrets/x/update
GET /configs
POST /configs/create
GET /configs/x
DELETE /configs/x
POST /configs/x/update
GET /distribution/a/x/json
POST /session
POST /grpc
`

// bodies are those that their endpoints need to get anywhere.
var bodies = map[string]string{
	"/containers/create": `{"Image":"x"}`, "/containers/x/exec": `{"Cmd":["true"]}`, "/exec/x/start": `{"Detach":true}`, "/auth": `{}`, "/containers/x/update": `{}`,
}

// TestEveryEndpoint walks the API: nothing panics, nothing is a page that nobody
// knows, and each refusal says why in Docker's shape.
func TestEveryEndpoint(t *testing.T) {
	r := newRig(t)
	r.containers.serve = func(net.Conn, []byte) {}
	for _, line := range strings.Split(strings.TrimSpace(endpoints), "\n") {
		method, path, _ := strings.Cut(line, " ")
		for minor := version.Min.Minor; minor <= version.Max.Minor; minor++ {
			done := make(chan wire.WaitResponse, 1)
			done <- wire.WaitResponse{}
			r.containers.wait = done
			if err := knownEndpoint(t.Context(), r, method, fmt.Sprintf("/v1.%d%s", minor, path)); err != nil {
				t.Errorf("1.%d %s: %v", minor, line, err)
			}
		}
	}
}

func knownEndpoint(ctx context.Context, r *rig, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	plain, _, _ := strings.Cut(path[strings.Index(path[1:], "/")+1:], "?")
	body := bodies[plain]
	req, err := http.NewRequestWithContext(ctx, method, "http://tare"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 || method == http.MethodHead {
		if resp.StatusCode == http.StatusNotFound {
			return fmt.Errorf("it is not there")
		}
		return nil
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var refusal struct{ Message string }
	if err := json.Unmarshal(text, &refusal); err != nil || refusal.Message == "" {
		return fmt.Errorf("%d %q is no refusal", resp.StatusCode, text)
	}
	if resp.StatusCode == http.StatusInternalServerError || refusal.Message == errPageNotFound.Error() {
		return fmt.Errorf("%d %s", resp.StatusCode, refusal.Message)
	}
	return nil
}

// TestNoSwarm asks for all that a swarm has, as `docker` does.
func TestNoSwarm(t *testing.T) {
	r := newRig(t)
	manager := errNoManager.Error()
	for _, line := range []string{
		"GET /swarm", "POST /swarm/update?version=1", "GET /swarm/unlockkey", "POST /swarm/unlock", "GET /nodes", "GET /services", "POST /services/create", "GET /tasks",
		"GET /secrets", "POST /secrets/create", "GET /configs", "DELETE /configs/x", "GET /services/x/logs",
	} {
		method, path, _ := strings.Cut(line, " ")
		r.want(503, manager, method, path, "{}")
	}
	r.want(503, "This node is not part of a swarm", "POST", "/swarm/leave", "")
	r.want(501, "swarm mode is not supported yet", "POST", "/swarm/init", "{}")
	r.want(503, "volume update only valid for cluster volumes, but swarm is unavailable", "PUT", "/volumes/x", "{}")
}

// TestPlugins: there are none, and none can be had.
func TestPlugins(t *testing.T) {
	r := newRig(t)
	if status, _, text := r.do("GET", `/plugins?filters={"enabled":["true"]}`, ""); status != 200 || text != "[]" {
		t.Errorf("%d %s", status, text)
	}
	r.want(400, "invalid filter 'colour'", "GET", `/plugins?filters={"colour":["x"]}`, "")
	r.want(400, "invalid filter 'enabled=[x]'", "GET", `/plugins?filters={"enabled":["x"]}`, "")
	r.want(404, `plugin "a/b:1" not found`, "GET", "/plugins/a/b:1/json", "")
	r.want(404, `plugin "a/b" not found`, "POST", "/plugins/a/b/enable", "")
	r.want(501, "installing plugins is not supported yet", "POST", "/plugins/pull?remote=x", "[]")
}

// TestPrunes of what there is nothing of.
func TestPrunes(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		`/volumes/prune?filters={"all":["1"],"label!":["a"]}`:              `{"VolumesDeleted":[],"SpaceReclaimed":0}`,
		`/build/prune?all=1&filters={"until":["24h"],"type":["internal"]}`: `{"CachesDeleted":null,"SpaceReclaimed":0}`,
	} {
		if status, _, text := r.do("POST", path, ""); status != 200 || text != want {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	r.want(400, "invalid filter 'colour'", "POST", `/volumes/prune?filters={"colour":["x"]}`, "")
	r.want(400, "failed to prune build cache: invalid filter 'colour'", "POST", `/build/prune?filters={"colour":["x"]}`, "")
	r.want(400, `keep-storage is in bytes and expects an integer, got x: strconv.Atoi: parsing "x": invalid syntax`, "POST", "/build/prune?keep-storage=x", "")
	r.want(404, "get a/b: no such volume", "GET", "/volumes/a%2Fb", "")
	r.want(201, "", "POST", "/volumes/create", `{"Name":"listed"}`)
	if _, _, text := r.do("GET", "/volumes?brief=1", ""); text != `{"Volumes":[{"Driver":"local","Name":"listed"}],"Warnings":null}` {
		t.Error(text)
	}
	r.want(400, `invalid filter 'all': strconv.ParseBool: parsing "x": invalid syntax`, "POST", `/volumes/prune?filters={"all":["x"]}`, "")
	_, _, text := r.do("GET", "/events?since=0&until="+time.Now().UTC().Format(time.RFC3339Nano), "")
	if strings.Count(text, `"Action":"prune"`) != 2 || !strings.Contains(text, `"Type":"builder"`) || !strings.Contains(text, `{"reclaimed":"0"}`) {
		t.Error(text)
	}
}

func TestVolumes(t *testing.T) {
	r := newRig(t)
	if _, _, text := r.do("GET", "/volumes", ""); text != `{"Volumes":[],"Warnings":null}` {
		t.Error(text)
	}
	var v volume.Volume
	status, _, text := r.do("POST", "/volumes/create", `{"Name":"data","Labels":{"a":"b"}}`)
	if err := json.Unmarshal([]byte(text), &v); status != 201 || err != nil || v.Name != "data" || v.Driver != "local" || v.Scope != "local" || v.Labels["a"] != "b" || !strings.HasSuffix(v.Mountpoint, "/volumes/data/_data") {
		t.Errorf("%d %s", status, text)
	}
	if status, _, again := r.do("POST", "/v1.30/volumes/create", `{"Name":"data"}`); status != 201 || again != text {
		t.Errorf("created twice: %d %s", status, again)
	}
	r.want(404, `create data: error looking up volume plugin x: plugin "x" not found`, "POST", "/volumes/create", `{"Name":"data","Driver":"x"}`)
	r.want(404, `create other: error looking up volume plugin x: plugin "x" not found`, "POST", "/volumes/create", `{"Name":"other","Driver":"x"}`)
	r.want(400, `create other: invalid option: "x"`, "POST", "/volumes/create", `{"Name":"other","DriverOpts":{"x":"y"}}`)
	r.want(503, "*", "POST", "/volumes/create", `{"Name":"other","ClusterVolumeSpec":{}}`)
	if _, _, got := r.do("GET", "/volumes/data", ""); got != text {
		t.Errorf("it is\n%s, and was made as\n%s", got, text)
	}
	for query, want := range map[string]int{`{"name":["at"]}`: 1, `{"name":["^b"]}`: 0, `{"label":["a=b"]}`: 1, `{"label":["a","c"]}`: 0, `{"driver":["local"]}`: 1,
		`{"driver":["x"]}`: 0, `{"dangling":["true"]}`: 1, `{"dangling":["false"]}`: 0} {
		if _, _, text := r.do("GET", "/volumes?filters="+url.QueryEscape(query), ""); strings.Count(text, `"Name":"data"`) != want {
			t.Errorf("%s: %s", query, text)
		}
	}
	r.do("POST", "/volumes/create", "{}") // without a name
	if status, _, text := r.do("POST", "/volumes/prune", ""); status != 200 || strings.Contains(text, `"data"`) || strings.Count(text, `"`) != 6 {
		t.Errorf("pruned without all: %d %s", status, text)
	}
	if _, _, text := r.do("POST", "/v1.41/volumes/prune", ""); text != `{"VolumesDeleted":["data"],"SpaceReclaimed":0}` {
		t.Errorf("pruned before 1.42: %s", text)
	}
	if _, _, text := r.do("GET", `/volumes?filters={"dangling":["true"],"name":["x"]}`, ""); text != `{"Volumes":[],"Warnings":null}` {
		t.Error(text)
	}
	r.want(400, "invalid filter 'colour'", "GET", `/volumes?filters={"colour":["x"]}`, "")
	r.want(400, "invalid filter 'dangling=[x]'", "GET", `/volumes?filters={"dangling":["x"]}`, "")
	r.want(404, "get x: no such volume", "GET", "/volumes/x", "")
	r.want(404, "get x: no such volume", "DELETE", "/volumes/x", "")
	r.want(204, "*", "DELETE", "/volumes/x?force=1", "")
}

// absentInfo are the fields of GET /info that this daemon has nothing for.
var absentInfo = map[string]string{
	"SystemStatus":     "of the standalone Swarm",
	"Isolation":        "of Windows",
	"ProductLicense":   "of another product",
	"GenericResources": "of swarm nodes",
	"Containerd":       "there is none",
	"NRI":              "there is none",
	"ContainerdCommit": "there is none",
}

// TestEveryFieldOfInfo has each field of the newest version say something, or
// names why there is nothing to say.
func TestEveryFieldOfInfo(t *testing.T) {
	r := newRig(t)
	r.daemon = Daemon{
		CgroupDriver: "systemd", ID: "i", Version: "1", GitCommit: "c", DataRoot: "/d", Debug: true, LogDriver: "json-file", Labels: []string{"a=b"}, Driver: "overlayfs", DriverStatus: [][2]string{{"a", "b"}},
		Runtimes: map[string]system.Runtime{"tarerun": {}}, DefaultRuntime: "tarerun", InitBinary: "tare-init", LiveRestore: true, Experimental: true, Seccomp: "builtin",
		Proxies: Proxies{"http://a", "http://b", "c"}, AddressPools: []system.NetworkAddressPool{{Size: 24}}, Warnings: []string{"w"},
	}
	_, _, text := r.do("GET", "/info", "")
	var info system.Info
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	info.ContainersPaused, info.NEventsListener = 1, 1 // of which there are none here
	host := map[string]bool{"MemoryLimit": true, "SwapLimit": true, "CPUCfsPeriod": true, "CPUCfsQuota": true, "CPUShares": true, "CPUSet": true, "PidsLimit": true,
		"IPv4Forwarding": true, "OomKillDisable": true, "CDISpecDirs": true, "DiscoveredDevices": true, "OSVersion": true} // as the machine is
	fields := reflect.ValueOf(info)
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		if _, absent := absentInfo[name]; absent || host[name] {
			continue
		}
		if fields.Field(i).IsZero() {
			t.Errorf("%s says nothing", name)
		}
	}
	if !strings.Contains(text, `"GenericResources":null`) || !strings.Contains(text, `"CDISpecDirs":`) {
		t.Error(text)
	}
}

func TestDaemonInHeaders(t *testing.T) {
	r := newRig(t)
	r.daemon.Experimental, r.daemon.Classic = true, true
	_, h, _ := r.do("HEAD", "/_ping", "")
	if h.Get("Docker-Experimental") != "true" || h.Get("Builder-Version") != "1" {
		t.Error(h)
	}
	r.daemon.Seccomp, r.daemon.NoNewPrivileges, r.daemon.HostCgroupns = "/p.json", true, true
	_, _, text := r.do("GET", "/info", "")
	if !strings.Contains(text, `"name=no-new-privileges"`) || strings.Contains(text, "name=cgroupns") || !strings.Contains(text, `"name=seccomp,profile=/p.json"`) {
		t.Error(text)
	}
	if _, _, text := r.do("GET", "/version", ""); !strings.Contains(text, `"Experimental":true`) || !strings.Contains(text, `"Experimental":"true"`) {
		t.Error(text)
	}
}
