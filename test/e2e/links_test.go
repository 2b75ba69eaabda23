package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

const linkedDockerfile = `FROM busybox
COPY . /a
COPY one /b/
COPY --chown=5:6 two /c/
RUN mkdir -p /d/sub && echo old > /d/sub/few && ln -s d /e
COPY . /e/
`

// linkedBuilds builds what COPY links from the shelf.
type linkedBuilds struct {
	*testing.T
	d   *daemon.Daemon
	ctx string
}

// TestLinkedCopies has files of a context linked into layers, and changes them on
// every side: no side sees the others' changes.
func TestLinkedCopies(t *testing.T) {
	testutil.RequireRoot(t)
	b := &linkedBuilds{t, daemon.Start(t), t.TempDir()}
	b.d.ImportBusybox(t)
	b.write("Dockerfile", []byte(linkedDockerfile), 0o644)
	for _, name := range []string{"one", "two", "sub/three", "x"} {
		b.write(name, bytes.Repeat([]byte(name), 100_000), 0o750)
	}
	b.write("sub/few", []byte("few"), 0o640)
	if err := os.Link(filepath.Join(b.ctx, "x"), filepath.Join(b.ctx, "y")); err != nil {
		t.Fatal(err)
	}
	b.build("1", "v1")
	shelf := b.inode("sources/*/tree/one")
	if len(b.files("layers/*/fs/a/one")) != 1 || b.inode("layers/*/fs/a/one") != shelf {
		t.Errorf("the file was not linked: %v", b.files("layers/*/fs/a/one"))
	}
	if b.inode("layers/*/fs/b/one") == shelf {
		t.Error("two names of one image are one file")
	}
	if b.inode("layers/*/fs/a/x") == b.inode("sources/*/tree/x") || b.inode("layers/*/fs/a/x") != b.inode("layers/*/fs/a/y") {
		t.Error("the client's hard links are not as they were")
	}
	if b.inode("layers/*/fs/a/sub/few") != b.inode("sources/*/tree/sub/few") {
		t.Error("the small file was not linked")
	}
	if text := b.d.Tare(t, "run", "--rm", "v1", "cat", "/d/sub/few"); text != "few" {
		t.Errorf("the file that was there has become %q", text)
	}
	b.inTheWay()
	b.golden()
	b.changed()
}

// inTheWay has a directory where a file is to come.
func (b *linkedBuilds) inTheWay() {
	b.Helper()
	file := filepath.Join(b.T.TempDir(), "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM busybox\nRUN mkdir -p /a/sub/few\nCOPY . /a\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	out, err := b.d.Command(b.T, "tare", "build", "-f", file, b.ctx).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("cannot replace to directory")) {
		b.Errorf("a file took the place of a directory: %v: %s", err, out)
	}
}

// golden has layers made by links, or by us with another owner and mode, and by copies.
func (b *linkedBuilds) golden() {
	b.Helper()
	for i, line := range []string{"COPY --chown=0:0 . /", "COPY . /", "COPY --chown=7:8 --chmod=4640 . /", "COPY --chmod=711 two /"} {
		b.write("Scratch", []byte("FROM scratch\n"+line+"\nCMD x\n"), 0o644)
		layers := map[string]string{}
		for _, kit := range []string{"1", "0"} { // with 0 the context comes as an archive
			b.build(kit, "golden"+kit, "--no-cache", "-f", filepath.Join(b.ctx, "Scratch"))
			layers[kit] = b.d.Tare(b.T, "image", "inspect", "--format", "{{json .RootFS.Layers}}", "golden"+kit)
			if i == 0 && kit == "1" && b.inode("layers/*/fs/two") != b.inode("sources/*/tree/two") {
				b.Error("the file was not linked to a layer on nothing, by whom it belongs to anyway")
			}
		}
		if layers["0"] != layers["1"] {
			b.Errorf("%s: by links the layers are %s, by copies %s", line, layers["1"], layers["0"])
		}
		b.d.Tare(b.T, "rmi", "golden0", "golden1")
	}
	if err := os.Remove(filepath.Join(b.ctx, "Scratch")); err != nil {
		b.Fatal(err)
	}
}

// look shows all that an image's files are.
func (b *linkedBuilds) look(image string) string {
	return b.d.Tare(b.T, "run", "--rm", image, "sh", "-c", "find /a /b /c -type f | sort | xargs stat -c '%n %a %u:%g %s %Y'; find /a /b /c -type f | sort | xargs sha256sum")
}

// changed changes the files in a container, in the context and on the shelf.
func (b *linkedBuilds) changed() {
	was := b.look("v1")
	b.d.Tare(b.T, "run", "--rm", "v1", "sh", "-c", "cp /a/one /b/one && echo more >> /a/one && chmod 600 /a/two && touch /a/x && rm /a/sub/three")
	b.same("v1", was)
	if text, err := os.ReadFile(b.files("sources/*/tree/one")[0]); err != nil || !bytes.Equal(text, bytes.Repeat([]byte("one"), 100_000)) {
		b.Errorf("a container changed the shelf: %v", err)
	}
	b.write("one", bytes.Repeat([]byte("ONE"), 100_000), 0o750)
	for _, err := range []error{
		os.Chmod(filepath.Join(b.ctx, "two"), 0o701), os.Chtimes(filepath.Join(b.ctx, "sub/three"), time.Time{}, time.Unix(1e9, 0)),
		os.Link(filepath.Join(b.ctx, "sub/three"), filepath.Join(b.ctx, "z")),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.build("1", "v2")
	b.same("v1", was)
	is := b.look("v2")
	if !strings.Contains(is, "/a/two 701 ") || !strings.Contains(is, " 1000000000\n") || is == was {
		b.Errorf("what changed did not come: %s", is)
	}
	b.d.Tare(b.T, "rmi", "v1")
	b.build("1", "v3", "--no-cache")
	b.same("v3", is)
	b.d.Tare(b.T, "builder", "prune", "-af")
	if left := b.files("sources/*/tree/one"); len(left) > 0 {
		b.Errorf("the shelf still has %v", left)
	}
	b.same("v2", is)
}

func (b *linkedBuilds) same(image, was string) {
	b.Helper()
	if is := b.look(image); is != was {
		b.Errorf("%s changed from\n%s to\n%s", image, was, is)
	}
}

func (b *linkedBuilds) write(name string, text []byte, mode os.FileMode) {
	b.Helper()
	name = filepath.Join(b.ctx, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.Fatal(err)
	}
	when := time.Unix(1_700_000_000+int64(len(text)+int(text[0])), 0) // an archive has whole seconds
	if err := os.WriteFile(name, text, mode); err != nil {
		b.Fatal(err)
	}
	if err := os.Chtimes(name, when, when); err != nil {
		b.Fatal(err)
	}
}

func (b *linkedBuilds) build(buildkit, tag string, more ...string) {
	b.Helper()
	for _, dir := range []string{b.ctx, filepath.Join(b.ctx, "sub")} {
		if err := os.Chtimes(dir, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			b.Fatal(err)
		}
	}
	c := b.d.Command(b.T, "tare", append([]string{"build", "-t", tag, b.ctx}, more...)...)
	c.Env = append(c.Environ(), "DOCKER_BUILDKIT="+buildkit)
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("the build failed: %v: %s", err, out)
	}
}

// files lists what a pattern fits at any depth of the daemon's directory.
func (b *linkedBuilds) files(pattern string) (list []string) {
	b.Helper()
	for _, above := range []string{"data", "data/*", "data/*/*"} {
		names, err := filepath.Glob(filepath.Join(b.d.Dir, above, pattern))
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, names...)
	}
	return list
}

func (b *linkedBuilds) inode(pattern string) uint64 {
	b.Helper()
	names := b.files(pattern)
	if len(names) == 0 {
		b.Fatalf("there is no %s", pattern)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(names[0], &st); err != nil {
		b.Fatal(err)
	}
	return st.Ino
}
