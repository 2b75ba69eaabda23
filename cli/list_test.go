package cli_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func TestPs(t *testing.T) {
	f := newFake(t)
	created := time.Now().Add(-90 * time.Minute).Unix()
	f.on("GET /containers/json", 200, []map[string]any{{
		"Id": strings.Repeat("ab", 32), "Names": []string{"/web", "/other/link"}, "Image": "nginx@sha256:12", "ImageID": "sha256:99",
		"Command": "nginx -g 'daemon off;' and more", "Created": created, "State": "running", "Status": "Up 2 hours",
		"Labels": map[string]string{"b": "2", "a": "1"}, "SizeRw": 1500, "SizeRootFs": 1980000,
		"NetworkSettings": map[string]any{"Networks": map[string]any{"z": map[string]any{}, "bridge": nil}},
		"Mounts":          []map[string]any{{"Name": "a-volume-with-a-long-name", "Driver": "local"}, {"Source": "/srv"}},
		"Ports": []map[string]any{
			{"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 81, "Type": "tcp"}, {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 80, "Type": "tcp"},
			{"IP": "::", "PrivatePort": 443, "PublicPort": 8443, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}},
	}})
	for args, want := range map[string]string{
		"ps": "CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS       PORTS                                                         NAMES\n" +
			"abababababab   nginx     \"nginx -g 'daemon of…\"   2 hours ago   Up 2 hours   53/udp, 0.0.0.0:80-81->80-81/tcp, [::]:8443->443/tcp   web\n",
		"ps -q": "abababababab\n",
		"container ls --no-trunc --format {{.ID}}:{{.Names}}:{{.Image}}":                strings.Repeat("ab", 32) + ":web,other/link:nginx@sha256:12\n",
		"ps --format {{.Names|upper}}\\t{{.State}}":                                     "WEB\trunning\n",
		"ps --format {{.Labels}}|{{.Networks}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Size}}": "a=1,b=2|bridge,z|a-volume-with-…,/srv|1|1.5kB (virtual 1.98MB)\n",
	} {
		r := f.call(nil, strings.Split(args, " ")...)
		if squeeze(r.out) != squeeze(want) || r.code != 0 {
			t.Errorf("%s:\n%s%s\nwant\n%s", args, r.out, r.err, want)
		}
	}
	for format, want := range map[string]string{
		"table {{.Names}}\\t{{.Label \"com.x.some-label\"}}":  "NAMES     some label\nweb       \n",
		"{{json .Names}} {{title .State}} {{truncate .ID 3}}": "\"web\" Running aba\n",
		"{{join (split .Status \" \") \"-\"}}":                "Up-2-hours\n",
	} {
		if r := f.call(nil, "ps", "--format", format); r.out != want {
			t.Errorf("%s: %+v, want %q", format, r, want)
		}
	}
	if r := f.call(nil, "ps", "-q", "--format", "{{.Names}}"); !regexp.MustCompile(`^([0-9a-f]{12}\n)+$`).MatchString(r.out) || !strings.Contains(r.err, "Ignoring custom format") {
		t.Errorf("%+v", r)
	}
	f.call(nil, "ps", "-a", "-n", "3", "-s", "--filter", "name=a", "--filter", "Name=b")
	asked := f.asked()
	if got := asked[len(asked)-1]; got != "GET /containers/json?all=1&filters=%7B%22name%22%3A%7B%22a%22%3Atrue%2C%22b%22%3Atrue%7D%7D&limit=3&size=1" {
		t.Error(got)
	}
}

// squeeze makes runs of spaces one: columns are text/tabwriter's matter.
func squeeze(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

func TestImages(t *testing.T) {
	f := newFake(t)
	one, two := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	f.on("GET /images/json", 200, []map[string]any{
		{"Id": one, "Created": time.Now().Add(-49 * time.Hour).Unix(), "Size": 1982000, "SharedSize": -1, "Containers": -1,
			"RepoTags": []string{"a:1", "localhost:5000/b:2"}, "RepoDigests": []string{"a@sha256:d1", "c@sha256:d2"},
			"Manifests": []map[string]any{
				{"ID": "sha256:" + strings.Repeat("3", 64), "Available": true, "Kind": "image", "Size": map[string]any{"Content": 900000, "Total": 1982000},
					"ImageData": map[string]any{"Platform": map[string]any{"os": "linux", "architecture": "amd64"}, "Containers": []string{"c1"}}},
				{"ID": "sha256:" + strings.Repeat("4", 64), "Kind": "image", "Size": map[string]any{},
					"ImageData": map[string]any{"Platform": map[string]any{"os": "linux", "architecture": "arm64", "variant": "v8"}}},
				{"ID": "sha256:" + strings.Repeat("5", 64), "Kind": "attestation", "Size": map[string]any{"Content": 700, "Total": 700}},
			}},
		{"Id": two, "Created": 0, "Size": 5, "SharedSize": -1, "Containers": -1},
	})
	for args, want := range map[string]string{
		"images": "IMAGE ID DISK USAGE CONTENT SIZE EXTRA\na:1 111111111111 1.98MB 900kB U\n" +
			"c@d2 111111111111 1.98MB 900kB U\nlocalhost:5000/b:2 111111111111 1.98MB 900kB U\n",
		"images -a": "IMAGE ID DISK USAGE CONTENT SIZE EXTRA\na:1 111111111111 1.98MB 900kB U\n" +
			"c@d2 111111111111 1.98MB 900kB U\nlocalhost:5000/b:2 111111111111 1.98MB 900kB U\n<untagged> 222222222222 5B 0B\n",
		"images --tree": "IMAGE ID DISK USAGE CONTENT SIZE EXTRA\na:1\nlocalhost:5000/b:2\nc@d2 111111111111 1.98MB 900kB U\n" +
			"├─ linux/amd64 333333333333 1.98MB 900kB U\n└─ linux/arm64/v8 444444444444 0B 0B\n",
		"images --format table": "REPOSITORY TAG IMAGE ID CREATED SIZE\na 1 111111111111 2 days ago 1.98MB\n" +
			"localhost:5000/b 2 111111111111 2 days ago 1.98MB\nc <none> 111111111111 2 days ago 1.98MB\n",
		"images -a --no-trunc": "REPOSITORY TAG IMAGE ID CREATED SIZE\na 1 " + one + " 2 days ago 1.98MB\n" +
			"localhost:5000/b 2 " + one + " 2 days ago 1.98MB\nc <none> " + one + " 2 days ago 1.98MB\n<none> <none> " + two + " N/A 5B\n",
		"images --digests": "REPOSITORY TAG DIGEST IMAGE ID CREATED SIZE\na 1 sha256:d1 111111111111 2 days ago 1.98MB\n" +
			"localhost:5000/b 2 <none> 111111111111 2 days ago 1.98MB\nc <none> sha256:d2 111111111111 2 days ago 1.98MB\n",
		"image ls -q":                "111111111111\n111111111111\n111111111111\n",
		"images -q -f dangling=true": "111111111111\n111111111111\n111111111111\n222222222222\n",
		"images -a --format {{.Repository}}:{{.Tag}}@{{.Digest}}": "a:1@sha256:d1\nlocalhost:5000/b:2@<none>\nc:<none>@sha256:d2\n<none>:<none>@<none>\n",
	} {
		if r := f.call(nil, strings.Split(args, " ")...); squeeze(r.out) != want {
			t.Errorf("%s:\n%s%s\nwant\n%s", args, r.out, r.err, want)
		}
	}
	f.on("GET /images/json", 200, []map[string]any{{"Id": one, "Size": 5, "ContentSize": 3, "Containers": 1, "RepoTags": []string{"a:1"}, "RepoDigests": []string{}}})
	if r := f.call(nil, "images"); squeeze(r.out) != "IMAGE ID DISK USAGE CONTENT SIZE EXTRA\na:1 111111111111 5B 3B U\n" {
		t.Errorf("a brief list: %+v", r)
	}
	f.configure(`{"imagesFormat":"{{.ID}}"}`)
	if r := f.call(nil, "images"); r.out != "111111111111\n" {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "images", "--tree", "--digests"); r != (result{1, "", "--digests is not yet supported with --tree\n"}) {
		t.Errorf("%+v", r)
	}
}

// Only what is shown is asked for.
func TestWhatImagesAsksFor(t *testing.T) {
	f := newFake(t)
	var asked url.Values
	f.handle("GET /images/json", func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query()
		io.WriteString(w, "[]")
	})
	for args, want := range map[string]string{
		"images": "brief=1&manifests=1", "images --tree": "manifests=1", "images -q": "brief=1", "images --no-trunc": "brief=1",
		"images --digests": "", "images --format {{.Digest}}": "", "images --format json": "brief=1",
	} {
		if r := f.call(nil, strings.Split(args, " ")...); r.code != 0 || asked.Encode() != want {
			t.Errorf("%s asks for %s, %+v", args, asked.Encode(), r)
		}
	}
}

// On a terminal the list fits, however narrow it is.
func TestImagesOnATerminal(t *testing.T) {
	user, program := terminal(t)
	f := newFake(t)
	f.on("GET /images/json", 200, []map[string]any{{"Id": "sha256:" + strings.Repeat("1", 64), "Size": 5, "Containers": 2,
		"RepoTags": []string{"registry.example:5000/a/very/long/name/of/an/image:with-a-tag"}}})
	for _, columns := range []uint16{20, 40, 80, 200} {
		unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
		if r := f.callTerminal(program, "images", "--tree"); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		var seen []byte // a terminal passes on what was written in pieces of its own choice
		for buf := make([]byte, 4096); bytes.Count(seen, []byte("\r\n")) < 3; {
			n, err := user.Read(buf)
			if seen = append(seen, buf[:n]...); err != nil {
				t.Fatal(err)
			}
		}
		text := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(string(seen), "")
		lines := strings.Split(strings.TrimSpace(text), "\r\n")
		if len(lines) != 3 || strings.Contains(text, "DISK USAGE") != (columns >= 40) {
			t.Errorf("%d columns: %q", columns, text)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > int(columns) {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
	}
}

func TestInspect(t *testing.T) {
	f := newFake(t)
	f.on("GET /containers/web/json", 200, map[string]any{"Id": "c1", "State": map[string]any{"Running": true, "ExitCode": 0, "Pid": 12345678},
		"HostConfig": map[string]any{"NanoCpus": 1500000000, "Dns": []string{"1.1.1.1"}}, "Config": map[string]any{"Env": []string{"A=1", "B=<2>"}}})
	f.on("GET /images/img/json", 200, map[string]any{"Id": "sha256:1", "Os": "linux"})
	for format, want := range map[string]string{
		"{{.State.Running}} {{.State.Pid}}":                  "true 12345678\n",
		"{{.ID}} {{.HostConfig.NanoCPUs}}":                   "c1 1500000000\n",
		"{{if eq .State.ExitCode 0}}ok{{end}}":               "ok\n",
		"{{json .Config}}":                                   `{"Env":["A=1","B=\u003c2\u003e"]}` + "\n",
		"{{range .Config.Env}}{{println .}}{{end}}":          "A=1\nB=<2>\n\n",
		"{{join .HostConfig.Dns \",\"}} {{len .Config.Env}}": "1.1.1.1 2\n",
	} {
		if r := f.call(nil, "inspect", "-f", format, "web"); r.out != want || r.code != 0 {
			t.Errorf("%s: %+v, want %q", format, r, want)
		}
	}
	r := f.call(nil, "inspect", "img", "nope", "web")
	if r.code != 1 || r.err != "Error: No such object: nope\n" || !strings.HasPrefix(r.out, "[\n    {\n        \"Id\": \"sha256:1\",") || !strings.Contains(r.out, "\"NanoCpus\": 1500000000") {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "inspect", "-f", "{{.Foo}}", "web"); r.code != 1 || r.err != "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n" {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "inspect", "--type", "plugin", "x"); r.err != "--type plugin means plugins of Docker's daemon, which tared does not run\n" {
		t.Errorf("%+v", r)
	}
}

func TestImageStreams(t *testing.T) {
	f := newFake(t)
	f.on("POST /images/create", 200, map[string]any{"status": "sha256:1"})
	f.on("POST /images/load", 200, map[string]any{"stream": "Loaded image: a:1\n"})
	body := strings.Repeat("tar", 100000)
	if r := f.call(strings.NewReader(body), "import", "-c", "CMD a", "-", "x:1"); r != (result{0, "sha256:1\n", ""}) || string(f.body("POST /images/create")) != body {
		t.Errorf("%+v", r)
	}
	if r := f.call(strings.NewReader(body), "load"); r != (result{0, "Loaded image: a:1\n", ""}) || string(f.body("POST /images/load")) != body {
		t.Errorf("%+v", r)
	}
	f.on("POST /images/load", 200, map[string]any{"errorDetail": map[string]any{"message": "no space left on device"}})
	if r := f.call(strings.NewReader(body), "load"); r != (result{1, "", "no space left on device\n"}) {
		t.Errorf("%+v", r)
	}
}

func TestRemoveMany(t *testing.T) {
	f := newFake(t)
	f.on("DELETE /containers/a", 204, nil)
	f.on("DELETE /containers/c", 409, map[string]string{"message": "c is running"})
	r := f.call(nil, "rm", "-v", "a", "b", "c")
	if r.code != 1 || r.out != "a\n" || r.err != "Error response from daemon: page not found: DELETE /containers/b\nError response from daemon: c is running\n" {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "rm", "-f", "a", "b"); r.code != 0 || r.out != "a\n" {
		t.Errorf("%+v", r)
	}
}

func TestVersionTemplates(t *testing.T) {
	f := newFake(t)
	f.on("GET /version", 200, map[string]any{"Version": "1", "ApiVersion": "1.44"})
	for text, want := range map[string]string{"{{.Server.APIVersion}}": "1.44\n", "{{.Server.ApiVersion}}": "1.44\n"} {
		if r := f.call(nil, "version", "-f", text); r != (result{0, want, ""}) {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

func TestNetworksAndVolumes(t *testing.T) {
	f := newFake(t)
	f.on("GET /networks", 200, []map[string]any{
		{"Name": "zoo", "Id": "0123456789abcdef", "Driver": "bridge", "Scope": "local", "EnableIPv4": true, "EnableIPv6": true, "Internal": true,
			"Created": "2026-01-02T03:04:05.5Z", "Labels": map[string]string{"b": "2", "a": "1"}},
		{"Name": "ant", "Id": "fedcba9876543210", "Driver": "null", "Scope": "local"},
	})
	f.on("GET /volumes", 200, map[string]any{"Volumes": []map[string]any{
		{"Name": "two", "Driver": "local", "Mountpoint": "/m", "Scope": "local", "Labels": map[string]string{"a": "1"}},
		{"Name": "one", "Driver": "local", "UsageData": map[string]any{"Size": 2000, "RefCount": 3}},
	}, "Warnings": []string{"careful"}})
	f.on("GET /networks/zoo", 200, map[string]any{"Name": "zoo", "Id": "01", "IPAM": map[string]any{"Driver": "default"}})
	f.on("GET /volumes/two", 200, map[string]any{"Name": "two", "Mountpoint": "/m"})
	for line, want := range map[string]result{
		"network ls":                 {0, "NETWORK ID     NAME      DRIVER    SCOPE\nfedcba987654   ant       null      local\n0123456789ab   zoo       bridge    local\n", ""},
		"network list -q --no-trunc": {0, "fedcba9876543210\n0123456789abcdef\n", ""},
		"network ls --format {{.Name}}/{{.IPv4}}{{.IPv6}}{{.Internal}}/{{.Labels}}/{{.CreatedAt}}": {0, "ant/falsefalsefalse//\nzoo/truetruetrue/a=1,b=2/2026-01-02 03:04:05.5 +0000 UTC\n", ""},
		"volume ls":    {0, "DRIVER    VOLUME NAME\nlocal     one\nlocal     two\n", "WARNING: careful\n"},
		"volume ls -q": {0, "one\ntwo\n", "WARNING: careful\n"},
		"volume ls --format {{.Name}}{{.Links}}{{.Size}}{{.Mountpoint}}{{.Labels}}": {0, "one32kB\ntwoN/AN/A/ma=1\n", "WARNING: careful\n"},
		"volume pull r.io/a:1 one":                {1, "", "\"r.io/a:1\" is no name of a volume: the volume comes first, then the repository\n"},
		"volume push r.io/a:1 one":                {1, "", "\"r.io/a:1\" is no name of a volume: the volume comes first, then the repository\n"},
		"volume ls --cluster":                     {1, "", "--cluster needs a swarm, which tared cannot be part of\n"},
		"network inspect -f {{.IPAM.Driver}} zoo": {0, "default\n", ""},
		"inspect -f {{.Name}} zoo two":            {0, "zoo\ntwo\n", ""},
		"inspect --type network -f {{.Name}} zoo": {0, "zoo\n", ""},
		"inspect --type volume -f {{.Name}} two":  {0, "two\n", ""},
		"inspect -s -f {{.Name}} two":             {0, "two\n", "WARNING: --size ignored for volume\n"},
		"inspect --type secret x":                 {1, "", "--type secret needs a swarm, which tared cannot be part of\n"},
		"inspect --type zebra x":                  {1, "", "unknown type: \"zebra\": must be one of \"container\", \"image\", \"network\", \"volume\"\n"},
		"inspect -f {{.}} nothing":                {1, "\n", "Error: No such object: nothing\n"},
	} {
		if r := f.call(nil, strings.Fields(line)...); r != want {
			t.Errorf("%s: %+v\nwant %+v", line, r, want)
		}
	}
	f.call(nil, "network", "ls", "-f", "driver=bridge", "--filter", "name=x")
	asked := f.asked()
	if last, _ := url.QueryUnescape(asked[len(asked)-1]); last != `GET /networks?filters={"driver":{"bridge":true},"name":{"x":true}}` {
		t.Error(last)
	}
	f.configure(`{"networksFormat":"{{.Name}}!","volumesFormat":"{{.Name}}?"}`)
	if r := f.call(nil, "network", "ls"); r.out != "ant!\nzoo!\n" {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "volume", "ls"); r.out != "one?\ntwo?\n" {
		t.Errorf("%+v", r)
	}
}

func TestPsTellsOfABadTemplateWithoutContainers(t *testing.T) {
	f := newFake(t)
	f.on("GET /containers/json", 200, []any{})
	for text, want := range map[string]int{"{{.Nope}}": 1, "table {{.Names}}\t{{.Nope}}": 1, "table {{.Names}}": 0, "{{.Size}}": 0, "json": 0} {
		if r := f.call(nil, "ps", "--format", text); r.code != want {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

func TestWaitForSeveral(t *testing.T) {
	f := newFake(t)
	second := make(chan struct{})
	f.handle("POST /containers/a/wait", func(w http.ResponseWriter, _ *http.Request) {
		<-second // the other wait is there before this one is over
		io.WriteString(w, `{"StatusCode":1}`)
	})
	f.handle("POST /containers/b/wait", func(w http.ResponseWriter, _ *http.Request) {
		close(second)
		io.WriteString(w, `{"StatusCode":2}`)
	})
	if r := f.call(nil, "wait", "a", "b", "c"); r.code != 1 || r.out != "1\n2\n" || !strings.Contains(r.err, "page not found") {
		t.Errorf("%+v", r)
	}
}

func TestProxies(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/create", 201, map[string]any{"Id": "1"})
	f.configure(`{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"a,b"},"unix:///elsewhere":{"httpProxy":"http://no"}}}`)
	env := func(args ...string) []string {
		t.Helper()
		if r := f.call(nil, append([]string{"create"}, args...)...); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		var body struct{ Env []string }
		json.Unmarshal(f.body("POST /containers/create"), &body)
		return body.Env
	}
	if got, want := env("-e", "http_proxy=mine", "x"), []string{"http_proxy=mine", "HTTP_PROXY=http://p:1", "NO_PROXY=a,b", "no_proxy=a,b"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	f.configure(`{"proxies":{"default":{"httpProxy":"http://p:1"},"` + f.host + `":{"allProxy":"socks://q"}}}`)
	if got, want := env("x"), []string{"ALL_PROXY=socks://q", "all_proxy=socks://q"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
