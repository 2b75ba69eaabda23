package cli_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSearch(t *testing.T) {
	f := newFake(t)
	f.configure(`{"auths":{"reg.example":{"auth":"YTpi"}}}`)
	f.on("GET /images/search", 200, []map[string]any{
		{"star_count": 10, "is_official": true, "name": "x", "description": "a long description that goes on and on\nand has more than forty-five characters"},
		{"star_count": 3, "name": "me/x"}})
	const head = "NAME      DESCRIPTION                                     STARS     OFFICIAL\n"
	for args, want := range map[string]string{
		"search x": head + "x         a long description that goes on and on and h…   10        [OK]\nme/x                                                      3         \n",
		"search --format {{.Name}}={{.StarCount}} x": "x=10\nme/x=3\n",
		"search --format json x": `{"Description":"a long description that goes on and on and h…","IsOfficial":"true","Name":"x","StarCount":"10"}` + "\n" +
			`{"Description":"","IsOfficial":"false","Name":"me/x","StarCount":"3"}` + "\n",
		"search --no-trunc --format {{.Description}} x": "a long description that goes on and on and has more than forty-five characters\n\n",
	} {
		if r := f.call(nil, strings.Fields(args)...); r != (result{0, want, ""}) {
			t.Errorf("%s: %+v\nwant %q", args, r, want)
		}
	}
	f.call(nil, "search", "--limit", "5", "-f", "is-official=true", "reg.example/x")
	asked := f.asked()
	if got := asked[len(asked)-1]; got != "GET /images/search?filters=%7B%22is-official%22%3A%7B%22true%22%3Atrue%7D%7D&limit=5&term=reg.example%2Fx" {
		t.Error(got)
	}
	if got := f.auth("GET /images/search"); got != `{"username":"a","password":"b","serveraddress":"reg.example"}` {
		t.Error(got)
	}
}

func TestCommitDiffExport(t *testing.T) {
	f := newFake(t)
	f.on("POST /commit", 201, map[string]any{"Id": "sha256:7"})
	f.on("GET /containers/web/changes", 200, []map[string]any{{"Path": "/a", "Kind": 0}, {"Path": "/b", "Kind": 1}, {"Path": "/c", "Kind": 2}})
	f.handle("GET /containers/web/export", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "tar") })
	f.handle("GET /containers/cut/export", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "tar")
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "x.tar")
	for args, want := range map[string]result{
		"commit -a me -m msg -c CMD[\"a\"] -c USER=x -p=false web rr:t": {0, "sha256:7\n", ""},
		"commit web reg.example/x":                                      {0, "sha256:7\n", ""},
		"container commit --squash web":                                 {0, "sha256:7\n", ""},
		"commit --no-pause web":                                         {0, "sha256:7\n", ""},
		"commit web RR":                                                 {1, "", "invalid reference format: repository name (library/RR) must be lowercase\n"},
		"diff web":                                                      {0, "C /a\nA /b\nD /c\n", ""},
		"export web":                                                    {0, "tar", ""},
		"export -o " + file + " web":                                    {0, "", ""},
		"export -o /nosuch/x web":                                       {1, "", "failed to export container: invalid output path: stat /nosuch: no such file or directory\n"},
	} {
		if r := f.call(nil, strings.Fields(args)...); r != want {
			t.Errorf("%s: %+v\nwant %+v", args, r, want)
		}
	}
	asked := strings.Join(f.asked(), "\n") + "\n"
	for _, want := range []string{"POST /commit?author=me&changes=CMD%5B%22a%22%5D&changes=USER%3Dx&comment=msg&container=web&pause=0&repo=docker.io%2Flibrary%2Frr&tag=t\n",
		"POST /commit?container=web&repo=reg.example%2Fx\n", "POST /commit?container=web&squash=1\n", "POST /commit?container=web&pause=0\n"} {
		if !strings.Contains(asked, want) {
			t.Errorf("%q was not asked:\n%s", want, asked)
		}
	}
	if r := f.call(nil, "diff", ""); r != (result{1, "", "Container name cannot be empty\n"}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "export", "-o", filepath.Join(dir, "y.tar"), "cut"); r.code != 1 {
		t.Errorf("%+v", r)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, "*")); len(list) != 1 {
		t.Errorf("a broken export leaves %v", list)
	}
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if text, err := os.ReadFile(file); err != nil || string(text) != "tar" || len(hidden) > 0 {
		t.Errorf("%q %v %v", text, err, hidden)
	}
}

// pruning makes the fake remove one of each kind.
func (f *fake) pruning() {
	f.on("POST /containers/prune", 200, map[string]any{"ContainersDeleted": []string{"abab"}, "SpaceReclaimed": 212})
	f.on("POST /networks/prune", 200, map[string]any{"NetworksDeleted": []string{"n1"}})
	f.on("POST /volumes/prune", 200, map[string]any{"VolumesDeleted": []string{"v2"}, "SpaceReclaimed": 34000})
	f.on("POST /images/prune", 200, map[string]any{"ImagesDeleted": []map[string]string{{"Untagged": "a:1"}, {"Deleted": "sha256:1"}}, "SpaceReclaimed": 1234567})
	f.on("POST /build/prune", 200, map[string]any{"CachesDeleted": []string{"bc1", "bc2"}, "SpaceReclaimed": 777000})
}

func TestPrune(t *testing.T) {
	const (
		containers = "Deleted Containers:\nabab\n\n"
		networks   = "Deleted Networks:\nn1\n\n"
		images     = "Deleted Images:\nuntagged: a:1\ndeleted: sha256:1\n\n"
		caches     = "Deleted build cache objects:\nbc1\nbc2\n\n"
		warned     = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
		sure       = "Are you sure you want to continue? [y/N] "
	)
	for args, want := range map[string]struct {
		answer, out string
		asked       []string
	}{
		"container prune": {"y\n", "WARNING! This will remove all stopped containers.\n" + sure + containers + "Total reclaimed space: 212B\n", []string{"POST /containers/prune"}},
		"image prune":     {"", "WARNING! This will remove all dangling images.\n" + sure, nil},
		"image prune -a":  {"no\n", "WARNING! This will remove all images without at least one container associated to them.\n" + sure, nil},
		"image prune -f":  {"", images + "Total reclaimed space: 1.235MB\n", []string{"POST /images/prune?filters=%7B%22dangling%22%3A%7B%22true%22%3Atrue%7D%7D"}},
		"image prune -af --filter label=x": {"", images + "Total reclaimed space: 1.235MB\n",
			[]string{"POST /images/prune?filters=%7B%22dangling%22%3A%7B%22false%22%3Atrue%7D%2C%22label%22%3A%7B%22x%22%3Atrue%7D%7D"}},
		"system prune": {"Y\n", warned + "  - all dangling images\n  - unused build cache\n\n" + sure + containers + networks + images + caches + "Total reclaimed space: 2.012MB\n",
			[]string{"POST /containers/prune", "POST /networks/prune", "POST /images/prune?filters=%7B%22dangling%22%3A%7B%22true%22%3Atrue%7D%7D", "POST /build/prune"}},
		"system prune -a --volumes -f": {"", containers + networks + "Deleted Volumes:\nv2\n\n" + images + caches + "Total reclaimed space: 2.046MB\n",
			[]string{"POST /containers/prune", "POST /networks/prune", "POST /volumes/prune", "POST /images/prune?filters=%7B%22dangling%22%3A%7B%22false%22%3Atrue%7D%7D", "POST /build/prune?all=1"}},
		"system prune -a --volumes --filter label=b": {"\n", warned + "  - all anonymous volumes not used by at least one container\n" +
			"  - all images without at least one container associated to them\n  - all build cache\n\n  Items to be pruned will be filtered with:\n  - label=b\n\n" + sure, nil},
	} {
		f := newFake(t)
		f.pruning()
		r := f.call(strings.NewReader(want.answer), strings.Fields(args)...)
		if r != (result{0, want.out, ""}) {
			t.Errorf("%s: %+v\nwant %q", args, r, want.out)
		}
		if got := strings.Join(f.asked(), " "); got != strings.Join(want.asked, " ") {
			t.Errorf("%s asked %s", args, got)
		}
	}
}

// What a daemon does not have does not keep the rest from going, and a failure
// ends it.
func TestSystemPruneOfADaemonWithLess(t *testing.T) {
	f := newFake(t)
	f.pruning()
	f.handle("POST /build/prune", func(w http.ResponseWriter, _ *http.Request) { fail(w, 501, "building is not supported yet") })
	f.handle("POST /networks/prune", func(w http.ResponseWriter, _ *http.Request) { fail(w, 501, "no networks") })
	r := f.call(nil, "system", "prune", "-f")
	if r.code != 0 || !strings.HasSuffix(r.out, "deleted: sha256:1\n\nTotal reclaimed space: 1.235MB\n") ||
		r.err != "WARNING: unused networks are left alone: Error response from daemon: no networks\n"+
			"WARNING: build caches are left alone: Error response from daemon: building is not supported yet\n" {
		t.Errorf("%+v", r)
	}
	f.handle("POST /networks/prune", func(w http.ResponseWriter, _ *http.Request) { fail(w, 409, "a prune operation is already running") })
	if r := f.call(nil, "system", "prune", "-f"); r.code != 1 || r.err != "Error response from daemon: a prune operation is already running\n" {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "system", "prune", "-f", "--volumes", "--filter", "until=1h"); r != (result{1, "", "ERROR: The \"until\" filter is not supported with \"--volumes\"\n"}) {
		t.Errorf("%+v", r)
	}
	f.configure(`{"pruneFilters":["label!=keep","label=x"]}`)
	f.call(nil, "container", "prune", "-f", "--filter", "label=keep")
	asked := f.asked()
	if got := asked[len(asked)-1]; got != "POST /containers/prune?filters=%7B%22label%22%3A%7B%22keep%22%3Atrue%2C%22x%22%3Atrue%7D%7D" {
		t.Error(got)
	}
}

func TestSystemDf(t *testing.T) {
	now := time.Now()
	one := "sha256:" + strings.Repeat("1", 64)
	images := []map[string]any{
		{"Id": one, "Created": now.Add(-49 * time.Hour).Unix(), "Size": 1982000, "SharedSize": 1000000, "Containers": 1, "RepoTags": []string{"a:1", "localhost:5000/b:2"}},
		{"Id": "sha256:" + strings.Repeat("2", 64), "Created": 0, "Size": 5, "SharedSize": 0, "Containers": 0}}
	containers := []map[string]any{{"Id": strings.Repeat("ab", 32), "Names": []string{"/web"}, "Image": "a:1", "ImageID": one, "Command": "sh",
		"Created": now.Add(-2 * time.Hour).Unix(), "State": "exited", "Status": "Exited (0) 2 hours ago", "SizeRw": 1500, "SizeRootFs": 1980000,
		"Mounts": []map[string]any{{"Name": "v1", "Driver": "local"}}}}
	volumes := []map[string]any{{"Name": "v1", "Driver": "local", "UsageData": map[string]any{"RefCount": 1, "Size": 12000}},
		{"Name": "v2", "Driver": "local", "UsageData": map[string]any{"RefCount": 0, "Size": 34000}}}
	cache := []map[string]any{{"ID": "bc1xxxxxxxxxxxxxxx", "Type": "regular", "Description": "RUN x", "Size": 777000, "UsageCount": 3,
		"CreatedAt": now.Add(-5 * time.Hour).Format(time.RFC3339), "LastUsedAt": now.Add(-2 * time.Hour).Format(time.RFC3339)}}
	old := map[string]any{"LayersSize": 1982005, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache}
	new := map[string]any{
		"ImageUsage":      map[string]any{"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 1000005, "TotalSize": 1982005, "Items": images},
		"ContainerUsage":  map[string]any{"TotalCount": 1, "Reclaimable": 1500, "TotalSize": 1500, "Items": containers},
		"VolumeUsage":     map[string]any{"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 34000, "TotalSize": 46000, "Items": volumes},
		"BuildCacheUsage": map[string]any{"TotalCount": 1, "Reclaimable": 777000, "TotalSize": 777000, "Items": cache}}
	for name, answer := range map[string]any{"before 1.52": old, "1.52": new} {
		f := newFake(t)
		f.on("GET /system/df", 200, answer)
		for args, want := range map[string]string{
			"system df": "TYPE TOTAL ACTIVE SIZE RECLAIMABLE\nImages 2 1 1.982MB 1MB (50%)\nContainers 1 0 1.5kB 1.5kB (100%)\n" +
				"Local Volumes 2 1 46kB 34kB (73%)\nBuild Cache 1 0 777kB 777kB\n",
			"system df -v": "Images space usage:\n\nREPOSITORY TAG IMAGE ID CREATED SIZE SHARED SIZE UNIQUE SIZE CONTAINERS\na 1 111111111111 2 days ago 1.98MB 1MB 982kB 1\n" +
				"<none> <none> 222222222222 N/A 5B 0B 5B 0\n\nContainers space usage:\n\nCONTAINER ID IMAGE COMMAND LOCAL VOLUMES SIZE CREATED STATUS NAMES\n" +
				"abababababab a:1 \"sh\" 1 1.5kB 2 hours ago Exited (0) 2 hours ago web\n\nLocal Volumes space usage:\n\nVOLUME NAME LINKS SIZE\nv1 1 12kB\nv2 0 34kB\n\n" +
				"Build cache usage: 777kB\n\nCACHE ID CACHE TYPE SIZE CREATED LAST USED USAGE SHARED\nbc1xxxxxxxxx regular 777kB 5 hours ago 2 hours ago 3 false\n",
			"system df --format {{.Type}}|{{.Active}}|{{.Reclaimable}}": "Images|1|1MB (50%)\nContainers|0|1.5kB (100%)\nLocal Volumes|1|34kB (73%)\nBuild Cache|0|777kB\n",
			"system df -v --format {{.Volumes|len}}":                    "2",
		} {
			if r := f.call(nil, strings.Split(args, " ")...); squeeze(r.out) != want || r.code != 0 || r.err != "" {
				t.Errorf("%s, %s: %+v\nwant %q", name, args, r, want)
			}
		}
	}
}

func TestImageAddresses(t *testing.T) {
	f := newFake(t)
	f.handle("POST /images/create", lines(map[string]any{"status": "Downloading from https://h/x.tar"},
		map[string]any{"status": "Importing", "progressDetail": detail{"current": 1, "total": 2}}, map[string]any{"status": "sha256:1"}))
	f.handle("GET /images/get", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "tar") })
	f.on("GET /images/x/json", 200, map[string]any{"Id": "sha256:1"})
	f.handle("POST /images/load", lines(map[string]any{"stream": "Loaded image: a:1\n"}))
	for args, want := range map[string]struct {
		result
		asked string
	}{
		"import -c CMD=a -m hi --platform linux/arm64 https://h/x.tar r/x:1": {result{0, "Downloading from https://h/x.tar\nsha256:1\n", ""},
			"POST /images/create?changes=CMD%3Da&fromSrc=https%3A%2F%2Fh%2Fx.tar&message=hi&platform=linux%2Farm64&repo=r%2Fx&tag=1"},
		"save --platform linux/amd64 --platform arm64 --compression zstd x y": {result{0, "tar", ""},
			"GET /images/get?compression=zstd&names=x&names=y&platform=%7B%22architecture%22%3A%22amd64%22%2C%22os%22%3A%22linux%22%7D&platform=%7B%22architecture%22%3A%22arm64%22%2C%22os%22%3A%22linux%22%7D"},
		"image inspect -f {{.Id}} --platform linux/arm64 x": {result{0, "sha256:1\n", ""},
			"GET /images/x/json?platform=%7B%22architecture%22%3A%22arm64%22%2C%22os%22%3A%22linux%22%7D"},
		"load --platform linux/arm/v7": {result{0, "Loaded image: a:1\n", ""},
			"POST /images/load?platform=%7B%22architecture%22%3A%22arm%22%2C%22os%22%3A%22linux%22%2C%22variant%22%3A%22v7%22%7D"},
		"load --platform linux/bad/x/y": {result{1, "", "invalid platform: \"linux/bad/x/y\": cannot parse platform specifier: use os[/arch[/variant]]\n"}, ""},
	} {
		before := len(f.asked())
		if r := f.call(strings.NewReader("tar"), strings.Fields(args)...); r != want.result {
			t.Errorf("%s: %+v", args, r)
		}
		got := ""
		for _, line := range f.asked()[before:] {
			if !strings.Contains(line, "_ping") {
				got += line
			}
		}
		if got != want.asked {
			t.Errorf("%s asked %s", args, got)
		}
	}
}

// info tells which registries are reached in another way, and says nothing of
// others.
func TestInfoRegistries(t *testing.T) {
	f := newFake(t)
	f.on("GET /info", 200, map[string]any{"RegistryConfig": map[string]any{
		"InsecureRegistryCIDRs": []string{"127.0.0.0/8"}, "Mirrors": []string{"https://mirror.example/"},
		"IndexConfigs": map[string]any{"docker.io": map[string]any{"Secure": true}, "reg.example:5000": map[string]any{"Secure": false}},
	}})
	const want = " Insecure Registries:\n  reg.example:5000\n  127.0.0.0/8\n Registry Mirrors:\n  https://mirror.example/\n Live Restore"
	if r := f.call(nil, "info"); r.code != 0 || !strings.Contains(r.out, want) {
		t.Errorf("%+v", r)
	}
	f.on("GET /info", 200, map[string]any{})
	if r := f.call(nil, "info"); r.code != 0 || strings.Contains(r.out, "Regist") {
		t.Errorf("%+v", r)
	}
}

// Tare's daemon tells what logs take, and can clear them.
func TestLogSpace(t *testing.T) {
	f := newFake(t)
	f.on("GET /system/df", 200, map[string]any{"LogUsage": map[string]any{"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 12, "TotalSize": 42,
		"Items": []map[string]any{{"ID": "c", "Name": "web", "Driver": "local", "Running": true, "Size": 30}}}})
	f.on("DELETE /containers/web/logs", 204, nil)
	if r := f.call(nil, "system", "df"); !strings.HasSuffix(squeeze(r.out), "\nContainer Logs 2 1 42B 12B (28%)\n") {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "system", "df", "-v"); !strings.HasSuffix(squeeze(r.out), "\n\nContainer logs space usage:\n\nCONTAINER LOG DRIVER SIZE\nweb local 30B\n") {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "logs", "--clear", "web"); r != (result{}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "logs", "--clear", "gone"); r.code != 1 {
		t.Errorf("%+v", r)
	}
}
