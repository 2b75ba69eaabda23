package compat

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

// The files in words/ are requests that both daemons answer alike: by the same
// status, the same type of content, and the same words if it is a refusal, else the
// same keys with values of the same types. A line is
//
//	[MARK][@VERSION] [NAME=]METHOD PATH [BODY | <FILE]
//
// NAME keeps the answer's Id for later lines, as $NAME. The mark ~ has ours go on
// where Docker's words end, = compares the values too, - only the status, and ! is for what
// differs on purpose, as decision 045 has it: such a line fails when it no longer does.
// A container named bad is removed when the next one is made.

// TestWords asks our daemon and Docker's the same.
func TestWords(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	place := sid.New(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	archive, err := d.Command(t, "tare", "save", "busybox").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/image.tar", archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(daemon.Busybox(t), dir+"/tree.tar"); err != nil {
		t.Fatal(err)
	}
	for name, entries := range archives {
		if err := os.WriteFile(dir+"/"+name+".tar", packed(t, entries), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	theirs := &asker{host: place.Dockerd(t), files: dir, kept: map[string]string{}}
	ours := &asker{host: d.Host, files: dir, kept: map[string]string{}}
	if a, err := theirs.ask("POST /images/load <image.tar"); err != nil || a.status != 200 {
		t.Fatal(a, err)
	}
	tables, err := filepath.Glob("words/*.txt")
	if err != nil || len(tables) == 0 {
		t.Fatal("there are no tables", err)
	}
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(table), ".txt"), func(t *testing.T) {
			for line := range strings.Lines(string(text)) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					compare(t, line, ours, theirs)
				}
			}
		})
	}
}

// archives are sent whole whether they are read or not.
var archives = map[string][]tar.Header{
	"small": {{Name: "file", Mode: 0o644, Size: 4}},
	"older": {link("tmp/before", "/etc"), link("tmp/rel", "real"), {Name: "tmp/real/", Typeflag: tar.TypeDir, Mode: 0o755}},
	"links": {link("l", "/etc/sub"), {Name: "l/through", Mode: 0o644}, {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, link("in", "/d"),
		{Name: "in/through", Mode: 0o644}, link("twice", "l"), {Name: "twice/again", Mode: 0o644}, {Name: "rel/through", Mode: 0o644}},
	"climbs":    {link("up", "../etc"), {Name: "up/climbed", Mode: 0o644}},
	"hardlinks": {link("to", "/etc"), {Name: "hard", Linkname: "to/passwd", Typeflag: tar.TypeLink, Mode: 0o644}},
	"before":    {{Name: "before/through", Mode: 0o644}},
}

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}
}

func packed(t *testing.T, entries []tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("text")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compare has both answer a line.
func compare(t *testing.T, line string, ours, theirs *asker) {
	t.Helper()
	request := strings.TrimLeft(line, "~=-!")
	mark := line[:len(line)-len(request)]
	if strings.Contains(request, "create?name=bad") {
		for _, k := range []*asker{ours, theirs} {
			if _, err := k.ask("DELETE /containers/bad?force=1&v=1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var a answer
	var err error
	done := make(chan struct{})
	go func() { defer close(done); a, err = ours.ask(request) }()
	want, errTheirs := theirs.ask(request)
	<-done
	if err != nil || errTheirs != nil {
		t.Errorf("%s: %v\nDocker's daemon: %v", line, err, errTheirs)
		return
	}
	differences := a.differ(want, mark)
	switch {
	case mark == "!" && differences == nil:
		t.Errorf("%s: is answered as by Docker's daemon", line)
	case mark != "!" && differences != nil:
		t.Errorf("%s\n\t%s", line, strings.Join(differences, "\n\t"))
	}
}

// answer is what a daemon says, and what is the same in the words of two daemons.
type answer struct {
	status int
	kind   string
	words  string
	values map[string]string // of each path in the answer's JSON; for ends that are not text, their types
	types  map[string]string
}

// asker asks one daemon.
type asker struct {
	host, files string
	kept        map[string]string
}

var (
	// differs is what is not the same in the words of two daemons.
	// Which of two names of an address, or of any address, Docker meets first is chance.
	differs     = regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b|\d+ms|\([ab]:|Bind for (0\.0\.0\.0|::):`)
	linePattern = regexp.MustCompile(`^(?:@(\S+) )?(?:(\w+)=)?([A-Z]+) (\S+)(?: (.*))?$`)
	escaped     = strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "[", "%5B", "]", "%5D")
)

func (k *asker) ask(line string) (a answer, err error) {
	part := linePattern.FindStringSubmatch(os.Expand(line, func(name string) string { return k.kept[name] }))
	if part == nil {
		return a, fmt.Errorf("is no line of the table")
	}
	version, name, method, path, text := part[1], part[2], part[3], part[4], part[5]
	kind, body := "application/json", io.Reader(strings.NewReader(text))
	if file, ok := strings.CutPrefix(text, "<"); ok {
		data, err := os.ReadFile(filepath.Join(k.files, file))
		if err != nil {
			return a, err
		}
		kind, body = "application/x-tar", bytes.NewReader(data)
	}
	switch version {
	case "":
		path = "/v1.51" + path
	case "none":
	default:
		path = "/v" + version + path
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://daemon"+escaped.Replace(path), body)
	if err != nil {
		return a, err
	}
	if text != "" {
		r.Header.Set("Content-Type", kind)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(k.host, "unix://"))
	}}}
	resp, err := client.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.read(resp, data)
	if name != "" {
		var made struct{ ID string }
		_ = json.Unmarshal(data, &made)
		k.kept[name] = made.ID
	}
	return a, nil
}

// read makes an answer of what came: of a stream of objects, of all of them.
func (a *answer) read(resp *http.Response, data []byte) {
	a.status, a.kind = resp.StatusCode, resp.Header.Get("Content-Type")
	a.values, a.types = map[string]string{}, map[string]string{}
	if a.kind != "application/json" {
		if a.status >= 400 {
			a.words = string(data)
		}
		return
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var v any
		if err := dec.Decode(&v); err == io.EOF {
			break
		} else if err != nil {
			a.words = string(data)
			break
		}
		if refusal, ok := v.(map[string]any); ok && a.status >= 400 {
			a.words, _ = refusal["message"].(string)
		}
		a.flatten("", v)
	}
	a.words = differs.ReplaceAllString(strings.ReplaceAll(a.words, ": tarerun create", ": runc create"), "ID")
}

// flatten notes a value's parts by their paths.
func (a *answer) flatten(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		a.types[path] = "object"
		for key, part := range v {
			a.flatten(path+"."+differs.ReplaceAllString(key, "ID"), part)
		}
	case []any:
		a.types[path] = "array"
		for _, part := range v {
			a.flatten(path+"[]", part)
		}
	case nil:
		if a.types[path] == "" {
			a.types[path] = "null"
		}
	default:
		a.types[path] = fmt.Sprintf("%T", v)
		a.values[path] += differs.ReplaceAllString(fmt.Sprint(v), "ID") + " "
	}
}

// differ says what is not as wanted.
func (a answer) differ(want answer, mark string) (list []string) {
	note := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if a.status != want.status && !(a.status == 400 && want.status == 500 && mark != "!") { // whose fault it is, Docker often does not say
		note("status %d, want %d", a.status, want.status)
	}
	if mark == "-" {
		return list
	}
	if a.words != want.words && !(mark == "~" && strings.HasPrefix(a.words, want.words)) {
		note("%q, want\n\t%q", a.words, want.words)
	}
	if a.kind != want.kind {
		note("content %q, want %q", a.kind, want.kind)
	}
	if mark == "~" || a.status >= 400 {
		return list
	}
	list = append(list, differing(a.types, want.types)...)
	if mark == "=" {
		list = append(list, differing(a.values, want.values)...)
	}
	return list
}

// own are the keys, of one daemon alone, that decision 045 tells of.
var own = regexp.MustCompile(`\.annotations\b|^\.LogUsage|\.memory_stats\.stats\.|\.os_type$|^\.Runtimes|^\.Containerd\b|\.SizeRw$|\.Ports\[\]\.IP$|\.Manifests\[\]\.|^\.InitCommit\.Expected$`)

// differing says which of two maps' rows differ.
func differing(got, want map[string]string) (list []string) {
	keys := slices.Collect(maps.Keys(got))
	for key := range want {
		if _, both := got[key]; !both {
			keys = append(keys, key)
		}
	}
	for _, key := range slices.Sorted(slices.Values(keys)) {
		if got[key] != want[key] && !own.MatchString(key) {
			list = append(list, fmt.Sprintf("%s: %q, want %q", key, got[key], want[key]))
		}
	}
	return list
}
