package tare_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/tarehq/tare/"

// lattice says which way the arrows between the packages point. A line names a
// package (a trailing "/..." includes those below it), then "!" and what it may
// not import directly, then "#" and why. The first word of a ban is a path in
// this module, or with "+" before it one outside.
const lattice = `
internal/... ! fault reference content snapshot archive remote image volume network event logs container supervise build ocirun server client cli registry # holds no word of containers
network/files network/link network/ipam network/firewall network/firewalld network/publish ! image volume event logs container # mechanism: text, interfaces, addresses, rules
network/shape network/macvlan ! internal/plugin # only what speaks with plugins knows of them
fault ! * # the kinds of error are below everything
reference ! content snapshot archive remote image container network server client cli supervise ocirun event logs # names are text
content snapshot archive/... remote/... logs/... supervise/... ocirun/... ! image container network volume event server client cli # mechanisms know no noun
content snapshot archive/... remote/... logs/... supervise/... ocirun/... ! +github.com/moby/moby/api # mechanisms know no wire type
supervise logs/... event network volume image container/... server cmd/tared ! ocirun # the daemon never links the runtime, any other can take its place
event ! image container network volume # an event is told by the nouns, it knows none
container/record container/stream container/links container/listing ! image volume event supervise # what is known of a container knows nothing of who acts on it
container/create container/update container/users ! volume event snapshot # a request is judged before anything is looked at
container/mounts ! network supervise/keeper # what is mounted has no network
container/stats container/logbook container/session container/restart ! image network volume event # samples and logs need a record, and no image or network
image/catalog image/inventory image/hello ! event container network volume remote image/download # what is known of images knows nothing of who changes them or brings them
image network/... volume ! container # containers stand on images, networks and volumes
build/... ! server client cli ocirun # builds stand on all nouns
build build/launch build/lend ! +google.golang.org/grpc # gRPC is the front's
manifest ! image container network event server client cli # a list is made of what registries have, without a daemon
event network/... volume image container/... ! server client cli # nouns do not know who calls them
event network network/files network/firewall network/firewalld network/link network/macvlan network/publish network/remote network/shape volume image container/... supervise/... ocirun/... content snapshot archive/... logs/... ! +net/http +google.golang.org/grpc # HTTP stays in leaf packages
cli/... client ! server container image network event supervise ocirun content snapshot archive/compression remote logs +github.com/moby/moby/api # the client has its own small shapes: start-up is the product
registry registry/... ! image container network event server client cli snapshot archive logs supervise ocirun +github.com/moby/moby/api # the registry stands on blobs and the protocol alone
network/dns/... ! fault content snapshot archive remote image volume event logs container supervise build ocirun server client cli registry +github.com/moby/moby/api # the resolver knows names and addresses
supervise/... ! logs/driver logs/packed logs/forward # what is done with a log beside writing it is the daemon's
server/version ! image network volume event build supervise # what a version said is a function of what is said now
server/... ! client cli ocirun supervise content snapshot archive remote # the server speaks to nouns
`

// light lists programs that are executed by the thousand, and what they must
// not link, however deep.
var light = map[string][]string{
	"cmd/tare":           {"google.golang.org/grpc", "go.opentelemetry.io", "github.com/distribution/reference", "github.com/opencontainers/go-digest", "github.com/moby/moby", "github.com/mikelolasagasti/xz", "github.com/klauspost"},
	"cmd/tare-supervise": {"google.golang.org/grpc", "go.opentelemetry.io", "github.com/distribution/reference", "github.com/opencontainers/go-digest", "github.com/moby/moby", "net/http", "github.com/spf13/cobra", "github.com/mikelolasagasti/xz", "github.com/klauspost", "text/template", "net/url"},
	"cmd/tarerun":        {"google.golang.org/grpc", "go.opentelemetry.io", "github.com/distribution/reference", "github.com/opencontainers/go-digest", "github.com/moby/moby", "net/http", "net", "github.com/mikelolasagasti/xz"},
	"cmd/tare-dns":       {"google.golang.org/grpc", "go.opentelemetry.io", "github.com/distribution/reference", "github.com/opencontainers/go-digest", "github.com/moby/moby", "net/http", "github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/klauspost"},
	"cmd/tare-init":      {"net/http", "net"},
	"cmd/tared":          {"google.golang.org/grpc", "go.opentelemetry.io", module + "ocirun", "github.com/miekg/dns"},
}

type goPackage struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// covers tells whether pattern ("a/b" or "a/b/...") includes the path.
func covers(pattern, path string) bool {
	base, deep := strings.CutSuffix(pattern, "/...")
	return path == base || deep && strings.HasPrefix(path, base+"/")
}

func TestImportsPointDown(t *testing.T) {
	list := packages(t)
	used := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(lattice), "\n") {
		rule, why, _ := strings.Cut(line, "#")
		who, bans, _ := strings.Cut(rule, "!")
		for _, p := range list {
			path := strings.TrimPrefix(p.ImportPath, module)
			for _, pattern := range strings.Fields(who) {
				if !covers(pattern, path) {
					continue
				}
				used[pattern] = true
				for _, ban := range strings.Fields(bans) {
					if imported := violates(p, ban); imported != "" {
						t.Errorf("%s imports %s:%s", path, imported, why)
					}
				}
			}
		}
		for _, pattern := range strings.Fields(who) {
			if !used[pattern] {
				t.Errorf("the lattice names %s, which is no package", pattern)
			}
		}
	}
}

func violates(p goPackage, ban string) string {
	outside, foreign := strings.CutPrefix(ban, "+")
	for _, imported := range p.Imports {
		ours := strings.HasPrefix(imported, module)
		switch {
		case foreign && (imported == outside || strings.HasPrefix(imported, outside+"/")):
			return imported
		case !foreign && ours && (ban == "*" || covers(ban+"/...", strings.TrimPrefix(imported, module))):
			if !strings.HasPrefix(imported, p.ImportPath+"/") {
				return imported
			}
		}
	}
	return ""
}

func TestProgramsStayLight(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		bans, ok := light[strings.TrimPrefix(p.ImportPath, module)]
		if !ok {
			continue
		}
		seen++
		for _, dep := range p.Deps {
			for _, ban := range bans {
				if dep == ban || strings.HasPrefix(dep, ban+"/") {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
	if seen != len(light) {
		t.Errorf("%d of the %d programs were found", seen, len(light))
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && p.ImportPath != strings.TrimSuffix(module, "/") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// A walk that the kernel gave up is begun again, wherever one is made:
// openat2(2) is called by internal/openat, and by the children of ocirun, whose
// interpreter does the same.
func TestOneOpensBelow(t *testing.T) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte("unix.Openat2(")) && filepath.Dir(name) != "internal/openat" ||
			bytes.Contains(text, []byte("SYS_OPENAT2")) && filepath.Dir(name) != "ocirun" {
			t.Errorf("%s calls openat2 itself; openat.Open does it", name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
