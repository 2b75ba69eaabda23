package dockerfiles

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// bare is the image without what is in the layers of its base, which other
// machines have in another version.
func (s *saved) bare(base []string) *saved {
	b := *s
	b.Layers = slices.Clone(s.Layers)
	for i, id := range s.ids {
		if slices.Contains(base, id) {
			b.Layers[i] = nil
		}
	}
	return &b
}

func (s *saved) write(path string) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// TestGolden compares with what BuildKit answered when the golden files were
// written.
func TestGolden(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	var known []string
	if err := json.Unmarshal([]byte(d.Tare(t, "image", "inspect", "--format", "{{json .RootFS.Layers}}", "busybox")), &known); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(t.Context(), d.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	compared := 0
	for _, e := range examples(t) {
		golden, ok := e.read(t, "golden")
		if !ok {
			continue
		}
		compared++
		t.Run(e.name, func(t *testing.T) {
			var want saved
			if err := json.Unmarshal([]byte(golden), &want); err != nil {
				t.Fatal(err)
			}
			tree, err := fsutil.NewFS(e.checkout(t) + "/context")
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attributes(t, e.lines(t, "flags")),
				LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
				Exports:     []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": e.image()}}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := d.Command(t, "tare", "save", e.image())
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got, err := readSaved(bytes.NewReader(out), known...)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range got.bare(known).differences(&want, 0, nil) {
				t.Error(line)
			}
		})
	}
	if compared < 8 {
		t.Errorf("%d cases have an answer of BuildKit's", compared)
	}
}

// attributes are what the flags of buildx ask the front end for.
func attributes(t *testing.T, flags []string) map[string]string {
	t.Helper()
	attrs := map[string]string{}
	for _, line := range flags {
		flag, value, _ := strings.Cut(line, " ")
		name, arg, _ := strings.Cut(value, "=")
		switch flag {
		case "--build-arg", "--label":
			attrs[strings.TrimPrefix(flag, "--")+":"+name] = arg
		case "--target":
			attrs["target"] = value
		default:
			t.Fatalf("%s is no flag of a case with an answer of BuildKit's", flag)
		}
	}
	return attrs
}
