package dockerfiles

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

// reproducible are Dockerfiles whose images are the same to the bit from both
// builders. The runtime's own directories are there before a step, as BuildKit
// leaves them in its layer (decision 041).
var reproducible = map[string]string{
	"copies":   "FROM busybox\nCOPY a /a/\nCOPY --chown=1000:1000 --chmod=640 a/file /owned\nENV A=b\nLABEL l=m\n",
	"workdirs": "FROM scratch\nWORKDIR /w/x\nCOPY . .\nADD a/file /z/\nUSER 5:6\nVOLUME /v\nEXPOSE 80\nCMD [\"/x\"]\n",
	"steps":    "FROM busybox AS one\nCOPY tree /\nRUN mkdir /d && echo x > /d/f && ln -s f /d/l && chmod 4750 /d/f\nRUN rm /d/l\nFROM busybox\nCOPY --from=one /d /d\nCOPY --link a /e/\n",
}

// TestReproducible compares digests of images whose times are all given.
func TestReproducible(t *testing.T) {
	testutil.RequireRoot(t)
	r := newRig(t)
	for name, text := range reproducible {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp(r.d.Dir, "reproducible")
			if err != nil {
				t.Fatal(err)
			}
			for file, what := range map[string]string{"Dockerfile": text, "a/file": "file", "a/sub/other": "other", "tree/proc/.keep": "", "tree/dev/.keep": "", "tree/sys/.keep": ""} {
				file = filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(what), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			ours, theirs := r.layout(t, r.d.Host, dir, "ours.tar"), r.layout(t, r.peer, dir, "theirs.tar")
			if ours.config != theirs.config {
				t.Errorf("the config is\n%s\nwant\n%s", ours.config, theirs.config)
			}
			if !slices.Equal(ours.layers, theirs.layers) {
				t.Errorf("the layers are %s, want %s", ours.layers, theirs.layers)
			}
		})
	}
}

// laid is what an OCI layout has of an image.
type laid struct {
	config string
	layers []string // what is in them, by its digest
}

func (r *rig) layout(t *testing.T, host, dir, name string) (l laid) {
	t.Helper()
	text := "docker buildx build --output type=oci,rewrite-timestamp=true,dest=../" + name + " ."
	if out, err := r.script(t, host, dir, text, "SOURCE_DATE_EPOCH=1600000000").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(filepath.Join(filepath.Dir(dir), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := map[string][]byte{}
	for files := tar.NewReader(f); ; {
		h, err := files.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			blobs[h.Name], err = io.ReadAll(files)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(digest string, v any) []byte {
		text := blobs["blobs/"+strings.ReplaceAll(digest, ":", "/")]
		if v != nil {
			if err := json.Unmarshal(text, v); err != nil {
				t.Fatalf("%s: %v", digest, err)
			}
		}
		return text
	}
	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	var manifest struct{ Config descriptor }
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(blobs["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%s: %v", blobs["index.json"], err)
	}
	blob(index.Manifests[0].Digest, &manifest)
	l.config = string(blob(manifest.Config.Digest, &config))
	l.layers = config.RootFS.DiffIDs
	return l
}
