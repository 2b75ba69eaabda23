package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/server/version"
)

func TestPing(t *testing.T) {
	r := newRig(t)
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/_ping", "/v1.24/_ping", "/v1.56/_ping"} {
			status, h, text := r.do(method, path, "")
			if status != 200 || method == "GET" && text != "OK" || method == "HEAD" && text != "" {
				t.Errorf("%s %s: %d %q", method, path, status, text)
			}
			for name, want := range map[string]string{
				"Api-Version": "1.56", "Ostype": "linux", "Server": "Tare/1.2.3 (linux)", "Docker-Experimental": "false",
				"Builder-Version": "2", "Swarm": "inactive", "Content-Type": "text/plain; charset=utf-8",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
				}
			}
		}
	}
}

func TestVersions(t *testing.T) {
	r := newRig(t)
	r.want(400, "client version 1.99 is too new. Maximum supported API version is 1.56", "GET", "/v1.99/info", "")
	r.want(400, "client version 2.0 is too new. Maximum supported API version is 1.56", "GET", "/v2.0/info", "")
	r.want(404, "page not found", "GET", "/vx/info", "")
	r.want(400, `invalid API version "1.99999999999999999999"`, "GET", "/v1.99999999999999999999/info", "")
	status, h, text := r.do("GET", "/v1.20/info", "")
	if status != 400 || text != "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version" ||
		!strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
		t.Errorf("too old: %d %s %q", status, h.Get("Content-Type"), text)
	}
	var v struct{ Version, ApiVersion, MinAPIVersion, Os, Arch string }
	if _, _, text := r.do("GET", "/version", ""); json.Unmarshal([]byte(text), &v) != nil || v.Version != "1.2.3" || v.ApiVersion != "1.56" || v.MinAPIVersion != "1.24" || v.Os != "linux" || v.Arch == "" {
		t.Errorf("version: %s", text)
	}
}

// The newest version is that of the wire types' own API text.
func TestMaxVersionIsTheModules(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n  version: \""+version.Max.String()+"\"\n") {
		t.Errorf("the module's API text is not of version %s", version.Max)
	}
}

// Every path of the API text is answered by something else than "page not
// found".
func TestEveryPathIsKnown(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := (&rig{}).handler()
	path, found, inPaths := "", 0, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case line == "paths:":
			inPaths = true
		case !inPaths:
		case strings.HasPrefix(line, "  /"):
			path = strings.TrimSuffix(strings.TrimSpace(line), ":")
		case strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "     ") && strings.HasSuffix(line, ":"):
			method := strings.ToUpper(strings.TrimSuffix(strings.TrimSpace(line), ":"))
			if handle, _ := s.find(method, split(path)); handle == nil {
				t.Errorf("%s %s is not known", method, path)
			}
			found++
		}
	}
	if found < 100 {
		t.Errorf("only %d operations were read from the API text", found)
	}
}

func TestUnknownPaths(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/", "/nope", "/v1.41/nope", "/containers", "/containers/a/b/json", "/infos", "/v1.41"} {
		r.want(404, "page not found", "GET", path, "")
	}
	r.want(404, "page not found", "POST", "/info", "")
	r.want(404, "page not found", "PATCH", "/containers/json", "")
	if status, _, _ := r.do("OPTIONS", "/anything", ""); status != 200 {
		t.Errorf("OPTIONS answers %d", status)
	}
}

func TestSwarmAndOthers(t *testing.T) {
	r := newRig(t)
	manager := `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	for _, path := range []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/v1.41/services/x/logs"} {
		r.want(503, manager, "GET", path, "")
	}
	if _, _, text := r.do("GET", "/plugins", ""); text != "[]" {
		t.Errorf("plugins: %s", text)
	}
	if _, _, text := r.do("GET", "/volumes", ""); text != `{"Volumes":[],"Warnings":null}` {
		t.Errorf("volumes: %s", text)
	}
	r.want(404, "get data: no such volume", "GET", "/volumes/data", "")
}

func TestErrorKinds(t *testing.T) {
	r := newRig(t)
	for kind, status := range map[fault.Kind]int{
		fault.NotFound: 404, fault.Conflict: 409, fault.Invalid: 400, fault.Unauthorized: 401, fault.Forbidden: 403,
		fault.Unavailable: 503, fault.NotImplemented: 501, fault.Internal: 500,
	} {
		r.containers.err = fault.New(kind, "because <of> & %d", 1)
		r.want(status, "because <of> & 1", "POST", "/containers/x/stop", "")
		if _, _, text := r.do("POST", "/containers/x/stop", ""); text != `{"message":"because <of> & 1"}` {
			t.Errorf("body %s", text)
		}
	}
	r.containers.err = errors.New("disk broken")
	r.want(500, "disk broken", "GET", "/containers/json", "")
	r.containers.err = fault.New(fault.NotModified, "already")
	if status, _, text := r.do("POST", "/containers/x/start", ""); status != 304 || text != "" {
		t.Errorf("%d %q", status, text)
	}
	r.containers.err = fault.New(fault.Conflict, "container x is not running")
	r.want(409, "cannot kill container: web: container x is not running", "POST", "/containers/web/kill", "")
}

func TestPanicIsAnswered(t *testing.T) {
	r := newRig(t)
	r.want(500, "internal error, the daemon's log has the details", "GET", "/containers/panic/json", "")
	r.want(200, "*", "GET", "/containers/x/json", "")
}

func TestStoppingCutsRequests(t *testing.T) {
	r := newRig(t)
	r.images.cut = func(ctx context.Context) error {
		r.stop()
		<-ctx.Done()
		return ctx.Err()
	}
	r.want(503, "the daemon is stopping: the request was not carried out to its end", "POST", "/images/load", "")
	for _, path := range []string{"/images/x/get", "/containers/x/logs?stdout=1"} {
		r := newRig(t)
		r.images.cut = func(ctx context.Context) error {
			r.stop()
			<-ctx.Done()
			return ctx.Err()
		}
		r.containers.stream.Copy = func(ctx context.Context, emit func(byte, []byte) error) error {
			return errors.Join(emit(1, []byte("line\n")), r.images.cut(ctx))
		}
		resp, err := r.client.Get("http://tare" + path)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: %q looks whole", path, text)
		}
	}
}

func TestBadBodies(t *testing.T) {
	r := newRig(t)
	create := "/containers/create"
	r.want(400, "invalid JSON: got EOF while reading request body", "POST", create, "")
	r.want(400, "invalid JSON: got EOF while reading request body", "POST", create, " ")
	r.want(400, "invalid JSON: invalid character 'n' looking for beginning of object key string", "POST", create, "{nope")
	r.want(400, "invalid JSON: unexpected EOF", "POST", create, `{"Image":"x"`)
	r.want(400, "unexpected content after JSON", "POST", create, `{"Image":"x"} {}`)
	r.want(400, "config cannot be empty in order to create a container", "POST", create, `{}`)
	r.want(400, "unsupported Content-Type header (text/plain): must be 'application/json'", "POST", create, `{"Image":"x"}`, "Content-Type: text/plain")
	r.want(400, "*", "POST", create, `{"Image":"x"}`, "Content-Type: ;;")
	r.want(400, "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string", "POST", create, `{"Image":5}`)
	r.want(400, "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64", "POST", create, `{"HostConfig":{"Memory":"x"}}`)
	r.want(400, "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.LogConfig.Config of type map[string]string", "POST", create, `{"HostConfig":{"LogConfig":{"Config":"x"}}}`)
	r.want(400, "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest", "POST", create, `[]`)
	r.want(400, "invalid JSON: http: request body too large", "POST", create, `{"Image":"`+strings.Repeat("x", maxBody)+`"}`)
	r.want(201, "*", "POST", create, `{"Image":"x","NoSuchField":{"a":[1]}}`, "Content-Type: application/json; charset=utf-8")
	r.want(400, "No exec command specified", "POST", "/containers/x/exec", `{"Cmd":[]}`)
	r.want(400, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24", "POST", "/containers/x/start", `{"Binds":["/a"]}`)
	r.want(204, "*", "POST", "/containers/x/start", `{}`)
}

func TestCommandsAsStrings(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string][2][]string{
		`{"Image":"x","Cmd":"true","Entrypoint":"a b"}`: {{"a b"}, {"true"}},
		`{"Image":"x","Cmd":["a","b"],"Entrypoint":[]}`: {{}, {"a", "b"}},
		`{"image":"x","cmd":null}`:                      {nil, nil},
	} {
		r.want(201, "*", "POST", "/containers/create", body)
		if c := r.containers.created.Config; !reflect.DeepEqual([2][]string{c.Entrypoint, c.Cmd}, want) || c.Image != "x" {
			t.Errorf("%s: %+v", body, c)
		}
	}
}

func TestForms(t *testing.T) {
	r := newRig(t)
	r.want(400, "invalid filter", "GET", "/containers/json?filters=nope", "")
	r.want(400, `strconv.Atoi: parsing "x": invalid syntax`, "GET", "/containers/json?limit=x", "")
	r.want(400, `invalid resize height "a": invalid syntax`, "POST", "/containers/x/resize?h=a&w=2", "")
	r.want(400, `invalid resize width "-2": value out of range`, "POST", "/containers/x/resize?h=3&w=-2", "")
	r.want(400, `invalid resize height "": invalid syntax`, "POST", "/exec/x/resize", "")
	r.want(200, "*", "POST", "/containers/x/resize?h=3&w=2", "")
	r.want(400, "Bad parameters: you must choose at least one stream", "GET", "/containers/x/logs", "")
	r.want(400, "*", "GET", "/containers/x/logs?stdout=1&since=yesterday", "")
	r.want(400, `invalid condition: "soon"`, "POST", "/containers/x/wait?condition=soon", "")
	r.want(400, "invalid filter 'colour'", "GET", "/networks?filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", "")
	r.want(204, "", "POST", "/containers/x/start?checkpoint=a", "")
	if want := "start x from a of , lazy: false"; r.containers.call != want {
		t.Errorf("%q", r.containers.call)
	}

	for query, want := range map[string]bool{"1": true, "true": true, "yes": true, "": false, "0": false, "no": false, "False": false, "none": false} {
		r.do("GET", "/containers/json?all="+query, "")
		if r.containers.list.All != want {
			t.Errorf("all=%s is %v", query, r.containers.list.All)
		}
	}
	for _, filters := range []string{`{"status":["running","exited"]}`, `{"status":{"running":true,"exited":false}}`} {
		r.want(200, "*", "GET", "/containers/json?limit=3&filters="+filters, "")
		f := r.containers.list.Filters
		if !f["status"]["running"] || !f["status"]["exited"] || r.containers.list.Limit != 3 {
			t.Errorf("%s: %+v", filters, r.containers.list)
		}
	}
	r.do("POST", "/v1.42/containers/x/stop?t=-1&signal=INT", "")
	if o := r.containers.stop; o.Signal != "INT" || o.Timeout == nil || *o.Timeout != -1 {
		t.Errorf("%+v", o)
	}
	r.do("POST", "/v1.41/containers/x/restart?signal=INT", "")
	if o := r.containers.stop; o.Signal != "" || o.Timeout != nil {
		t.Errorf("%+v", o)
	}
	r.do("GET", "/containers/x/logs?stderr=1&since=1700000000.25&tail=all", "")
	if o := r.containers.logs; o.Tail != -1 || !o.Since.Equal(time.Unix(1700000000, 250000000)) || !o.Until.IsZero() || o.Stdout || !o.Stderr {
		t.Errorf("%+v", o)
	}
	r.do("DELETE", "/containers//web?force=1", "")
	if r.containers.call != "remove web force" {
		t.Error(r.containers.call)
	}
}

func TestImageNames(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"GET /images/busybox/json":              "inspect busybox",
		"GET /images/localhost:5000/a/b:1/json": "inspect localhost:5000/a/b:1",
		"GET /v1.41/images/a/b@sha256:12/json":  "inspect a/b@sha256:12",
		"GET /images/a%2Fb/json":                "inspect a/b",
		"GET /images/a/json?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm64%22%7D": "inspect a for linux/arm64",
		"GET /images/json/json":      "inspect json",
		"GET /images/a/json/history": "history a/json",
		"GET /v1.48/images/a/history?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm64%22%7D": "history a linux/arm64",
		"GET /images/a/b/get":               "save a/b ",
		"GET /images/get?names=a&names=b/c": "save a,b/c ",
		"GET /images/a/get?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22,%22variant%22:%22v7%22%7D":                                           "save a linux/arm/v7",
		"GET /images/a/get?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22%7D&platform=%7B%22os%22:%22linux%22,%22architecture%22:%22386%22%7D": "save a linux/arm,linux/386",
		"GET /images/a/get?compression=gzip&compression-level=9":                                                                                              "save a  {gzip 9}",
		"GET /images/a/get?compression=none":                                                       "save a  { 0}",
		"DELETE /images/a?platforms=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22%7D":       "remove a linux/arm",
		"DELETE /v1.49/images/a?platforms=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22%7D": "remove a",
		"POST /images/load?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22%7D":       "load linux/arm",
		"POST /v1.47/images/load?platform=%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22%7D": "load",
		"POST /images/a/b/tag?repo=host:1/c&tag=2":                                                 "tag a/b host:1/c:2",
		"POST /images/a/tag?repo=c":                                                                "tag a c",
		"DELETE /images/a/b:c":                                                                     "remove a/b:c",
	} {
		method, path, _ := strings.Cut(path, " ")
		r.images.call = ""
		if status, _, text := r.do(method, path, ""); status >= 400 || r.images.call != want {
			t.Errorf("%s %s: %d %s, called %q, want %q", method, path, status, text, r.images.call, want)
		}
	}
	r.want(400, "image name cannot be blank", "DELETE", "/images/", "")
	r.want(400, "no image to save: name at least one", "GET", "/images/get", "")
	r.want(400, "multiple platform parameters not supported", "GET", "/v1.51/images/a/get?platform=a&platform=b", "")
	r.want(400, `unknown compression "lz4": it is gzip, zstd or none`, "GET", "/images/a/get?compression=lz4", "")
	r.want(400, "there is no gzip compression of level 10: levels are 1 to 9", "GET", "/images/a/get?compression=gzip&compression-level=10", "")
	r.want(400, "a compression-level needs a compression", "GET", "/images/a/get?compression-level=1", "")
	r.images.err = fault.New(fault.NotFound, "No such image: a:latest")
	r.want(404, "No such image: a:latest", "GET", "/images/a/json", "")
	r.want(404, "No such image: a:latest", "GET", "/images/a/get", "")
	r.want(400, "cannot import digest reference", "POST", "/images/a/tag?repo=b@sha256:1&tag=x", "")
}

func TestImportAndLoad(t *testing.T) {
	r := newRig(t)
	status, h, text := r.do("POST", "/images/create?fromSrc=-&repo=a/b&tag=2&changes=CMD+x&changes=ENV+a=b&platform=linux/arm64", "bytes")
	if status != 200 || h.Get("Content-Type") != "application/json" || text != `{"status":"sha256:1"}` {
		t.Errorf("%d %s %s", status, h.Get("Content-Type"), text)
	}
	o := r.images.imported
	if r.images.call != "import bytes" || o.Reference != "a/b:2" || len(o.Changes) != 2 || o.Message != "Imported from -" || o.Platform != "linux/arm64" {
		t.Errorf("%s %+v", r.images.call, o)
	}
	if r.do("POST", "/images/create?fromSrc=-", "a=b", "Content-Type: application/x-www-form-urlencoded"); r.images.call != "import a=b" {
		t.Errorf("a body of form type became %q", r.images.call)
	}
	r.images.lines = []string{"Loaded image: a:1", "Loaded image: b:1"}
	if _, _, text := r.do("POST", "/images/load?quiet=1", "x"); text != `{"stream":"Loaded image: a:1\n"}`+"\n"+`{"stream":"Loaded image: b:1\n"}` {
		t.Error(text)
	}
	r.images.err = fault.New(fault.Invalid, "no archive")
	if status, _, text := r.do("POST", "/images/load", "x"); status != 200 || !strings.HasSuffix(text, `{"errorDetail":{"message":"no archive"},"error":"no archive"}`) {
		t.Errorf("%d %s", status, text)
	}
	r.images.lines = nil
	r.want(400, "no archive", "POST", "/images/load", "x")
	r.want(400, "no archive", "POST", "/images/create?fromSrc=-", "x")
}

func TestWaitSendsItsHeadAtOnce(t *testing.T) {
	r := newRig(t)
	r.containers.wait = make(chan wire.WaitResponse, 1)
	resp, err := r.client.Post("http://tare/v1.41/containers/x/wait?condition=next-exit", "", nil)
	if err != nil { // the head has come although nothing has ended
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if r.containers.call != "wait x next-exit" {
		t.Error(r.containers.call)
	}
	r.containers.wait <- wire.WaitResponse{StatusCode: 7}
	if text, _ := io.ReadAll(resp.Body); strings.TrimSpace(string(text)) != `{"StatusCode":7}` {
		t.Errorf("%s", text)
	}
}

func TestLogs(t *testing.T) {
	r := newRig(t)
	r.containers.stream.Copy = func(_ context.Context, emit func(byte, []byte) error) error {
		return errors.Join(emit(1, []byte("out\n")), emit(2, []byte("err\n")))
	}
	const frames = "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err"
	for path, want := range map[string]string{
		"/v1.42": "application/vnd.docker.multiplexed-stream", "/v1.41": "application/vnd.docker.raw-stream",
	} {
		_, h, text := r.do("GET", path+"/containers/x/logs?stdout=1&stderr=1", "")
		if text != frames || h.Get("Content-Type") != want {
			t.Errorf("%s: %s %q", path, h.Get("Content-Type"), text)
		}
	}
	r.containers.stream.TTY = true
	if _, h, text := r.do("GET", "/containers/x/logs?stdout=1", ""); text != "out\nerr" || h.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("%s %q", h.Get("Content-Type"), text)
	}
}

func TestFollowedLinesComeAtOnce(t *testing.T) {
	r := newRig(t)
	r.containers.stream.TTY = true
	r.containers.stream.Copy = func(ctx context.Context, emit func(byte, []byte) error) error {
		err := emit(1, []byte("first\n"))
		<-ctx.Done()
		return err
	}
	resp, err := r.client.Get("http://tare/containers/x/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "first\n" || err != nil {
		t.Errorf("%q %v", line, err)
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	tag := func() {
		r.events.Publish(events.ImageEventType, events.ActionTag, events.Actor{ID: "sha256:9", Attributes: map[string]string{"name": "a"}})
	}
	r.events.Publish(events.ContainerEventType, events.ActionStart, events.Actor{ID: "c1", Attributes: map[string]string{"image": "a"}})
	tag()
	until := "&until=" + time.Now().Add(time.Second).Format("2006-01-02T15:04:05.000000000Z07:00")
	until = strings.ReplaceAll(until, "+", "%2B")

	_, h, text := r.do("GET", "/events?since=0&until="+time.Now().UTC().Format(time.RFC3339Nano), "")
	if h.Get("Content-Type") != "application/json" || strings.Count(text, "\n") != 1 || strings.Contains(text, `"status"`) {
		t.Errorf("%s %s", h.Get("Content-Type"), text)
	}
	_, _, text = r.do("GET", "/v1.51/events?since=0&until="+time.Now().UTC().Format(time.RFC3339Nano)+`&filters={"type":["container"]}`, "")
	if !strings.HasPrefix(text, `{"status":"start","id":"c1","from":"a","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"a"}},"scope":"local","time":`) || strings.Contains(text, "\n") {
		t.Error(text)
	}
	_, h, text = r.do("GET", "/events?since=0&until="+time.Now().UTC().Format(time.RFC3339Nano), "", "Accept: text/html, application/json-seq")
	if h.Get("Content-Type") != "application/json-seq" || !strings.HasPrefix(text, "\x1e{") {
		t.Errorf("%s %q", h.Get("Content-Type"), text)
	}
	r.want(400, "*", "GET", "/events?since=2000000000&until=1000000000", "")
	r.want(400, "invalid filter 'colour'", "GET", `/events?filters={"colour":["x"]}`, "")

	resp, err := r.client.Get(`http://tare/events?filters={"event":{"tag":true}}` + until)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	if past, err := in.ReadString('\n'); err != nil || !strings.Contains(past, "sha256:9") {
		t.Fatalf("%s %v", past, err)
	}
	tag()
	if live, err := in.ReadString('\n'); err != nil || !strings.Contains(live, "sha256:9") {
		t.Fatalf("%s %v", live, err)
	}
	resp.Body.Close()
	testutil.Eventually(t, 5*time.Second, "the subscription ends with its client", func() bool { return r.events.Subscribers() == 0 })
}

func TestInfo(t *testing.T) {
	r := newRig(t)
	get := func(path string) map[string]any {
		status, _, text := r.do("GET", path, "")
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil || status != 200 {
			t.Fatalf("%d %v %s", status, err, text)
		}
		return m
	}
	info := get("/info")
	for key, want := range map[string]any{
		"ID": "the-id", "Containers": 3.0, "ContainersRunning": 2.0, "ContainersStopped": 1.0, "Images": 4.0, "OSType": "linux",
		"DockerRootDir": "/data", "ServerVersion": "1.2.3", "DefaultRuntime": "tarerun", "CgroupDriver": "cgroupfs", "LoggingDriver": "json-file",
	} {
		if info[key] != want {
			t.Errorf("%s is %v, want %v", key, info[key], want)
		}
	}
	for _, key := range []string{"NCPU", "MemTotal", "KernelVersion", "OperatingSystem", "Architecture", "CgroupVersion", "SecurityOptions", "DriverStatus", "FirewallBackend", "Runtimes", "SystemTime"} {
		if v, ok := info[key]; !ok || v == nil || v == "" || v == 0.0 {
			t.Errorf("%s is %v", key, v)
		}
	}
	if info["Swarm"].(map[string]any)["LocalNodeState"] != "inactive" {
		t.Error(info["Swarm"])
	}
	old := get("/v1.41/info")
	if _, ok := old["FirewallBackend"]; ok || old["BridgeNfIptables"] != false || old["RuncCommit"] == nil {
		t.Errorf("1.41: %v", old)
	}
}
