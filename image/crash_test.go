package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// A process that is killed at any point of a pull leaves a store in which every
// blob is what its digest says and every name leads to all of its image, and
// nothing else that the next process does not collect. The process is this
// program.
func TestPullIsKilled(t *testing.T) {
	testutil.RequireRoot(t)
	if root := os.Getenv("TARE_TEST_PULL"); root != "" {
		_, tr := transfers(t, root)
		err := tr.Pull(context.Background(), os.Getenv("TARE_TEST_IMAGE"), PullOptions{}, func(p Progress) { fmt.Println("progress", p.Status) })
		fmt.Println("pulled", err)
		return
	}
	l := newLiar(t)
	var layers []ocispec.Descriptor
	for i := range 4 {
		layers = append(layers, l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i), 300_000)})))
	}
	l.image("1", layers...)
	ref := l.host + "/a:1"
	root := t.TempDir()
	f := open(t, root)
	before := f.shape(t)
	f.layers.Close()
	for after := 0; ; after++ {
		killed := pullUntil(t, root, ref, after)
		f := open(t, root)
		f.intact(t)
		got, err := f.Catalog.Resolve(t.Context(), ref)
		if err == nil {
			if _, err := f.Catalog.Unpacked(t.Context(), got); err != nil {
				t.Error(err)
			}
			if _, err := f.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, fault.NotFound) || !killed {
			t.Errorf("after %d steps: %v", after, err)
		}
		if _, err := f.content.DropPartials(0); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, f.shape(t)); diff != "" {
			t.Errorf("after %d steps: %s", after, diff)
		}
		f.layers.Close()
		if !killed {
			return
		}
	}
}

// pullUntil has a process pull and kills it after some steps of progress, and
// tells whether it lived as long.
func pullUntil(t *testing.T, root, ref string, steps int) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPullIsKilled$")
	cmd.Env = append(os.Environ(), "TARE_TEST_PULL="+root, "TARE_TEST_IMAGE="+ref)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "progress ") {
			if steps--; steps < 0 {
				cmd.Process.Kill()
				return true
			}
		} else if strings.HasPrefix(lines.Text(), "pulled ") && lines.Text() != "pulled <nil>" {
			t.Error(lines.Text())
		}
	}
	return false
}

// intact checks each blob against its name.
func (f fixture) intact(t testing.TB) {
	t.Helper()
	paths := slices.DeleteFunc(f.shape(t), func(p string) bool { return !strings.Contains(p, "/content/blobs/sha256/") })
	for _, p := range paths {
		blob, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		sum := digest.SHA256.Digester()
		if _, err := io.Copy(sum.Hash(), blob); err != nil || !strings.HasSuffix(p, sum.Digest().Encoded()) {
			t.Errorf("%s is %s, %v", p, sum.Digest(), err)
		}
		blob.Close()
	}
}
