package cli_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is a command line with the request, or the refusal, that Docker's own
// client 28.2 makes of it. Zero values are left out. Two differ on purpose: the
// order of variables is kept, and a malformed --ip is refused, not dropped. Those
// of rates and id maps are ours alone.
type golden struct {
	Args    []string        `json:"args"`
	Query   string          `json:"query,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
	Exit    int             `json:"exit,omitempty"`
	Error   string          `json:"error,omitempty"`
}

func TestCreateRequest(t *testing.T) {
	dir, err := filepath.Abs("testdata/create")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	t.Chdir(dir)
	t.Setenv("FROMENV", "taken")
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) { checkGolden(t, dir, file) })
	}
}

func checkGolden(t *testing.T, dir, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want, got golden
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	const key = "POST /containers/create"
	f.on(key, 201, map[string]any{"Id": "c1"})
	r := f.call(strings.NewReader(""), want.Args...)
	got.Args = want.Args
	if sent := f.body(key); sent != nil {
		got.Request = pruned(t, bytes.ReplaceAll(sent, []byte(dir), []byte("$PWD")))
		_, got.Query, _ = strings.Cut(f.asked()[0], "?")
	} else {
		got.Exit = r.code
		first, _, _ := strings.Cut(r.err, "\n")
		got.Error = strings.ReplaceAll(first, "tare", "docker")
	}
	if *update {
		out, _ := json.MarshalIndent(got, "", "\t")
		if err := os.WriteFile(file, append(out, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.Exit != want.Exit || got.Error != want.Error {
		t.Errorf("exit %d, %q\nwant %d, %q", got.Exit, got.Error, want.Exit, want.Error)
	}
	if a, b := query(t, got.Query), query(t, want.Query); !cmp.Equal(a, b) {
		t.Errorf("query: %s", cmp.Diff(b, a))
	}
	if a, b := decoded(t, got.Request), decoded(t, want.Request); !cmp.Equal(a, b) {
		t.Errorf("request: %s", cmp.Diff(b, a))
	}
}

func query(t *testing.T, s string) url.Values {
	v, err := url.ParseQuery(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func decoded(t *testing.T, text []byte) any {
	if len(text) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// pruned leaves out zero values, except in maps of the user's own keys and
// where absence means something else.
func pruned(t *testing.T, text []byte) json.RawMessage {
	out, err := json.Marshal(prune("", decoded(t, text)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func prune(name string, v any) any {
	switch name {
	case "ExposedPorts", "Volumes", "Labels", "Tmpfs", "Sysctls", "Annotations", "Options", "Config", "StorageOpt", "DriverOpts":
		return v
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = prune("", v[i])
		}
		return v
	case map[string]any:
		out := map[string]any{}
		for key, field := range v {
			field = prune(key, field)
			special := key == "Init" || key == "MaskedPaths" || key == "ReadonlyPaths"
			if field != nil && (special || !isZero(field)) {
				out[key] = field
			}
		}
		return out
	}
	return v
}

func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
