package buildkit

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/sid"
)

// TestCacheOfBuildKit hands caches from Docker's own BuildKit to ours and the other way
// round: what BuildKit knows is found here, and neither is led astray by the other's.
func TestCacheOfBuildKit(t *testing.T) {
	place := sid.New(t)
	ours := newRig(t)
	ours.programs = place.Programs(t, "docker")
	theirs := *ours
	daemonOf := *ours.Daemon
	theirs.Daemon = &daemonOf
	theirs.Host = place.Dockerd(t)
	dir := directory(t, map[string]string{"a": "a", "tree/x/y": "y", "tree/x.z": "z", "tree/x/sub/q": "q", "Dockerfile": `FROM scratch AS base
COPY --chmod=755 busybox /bin/sh
COPY tree /tree
ENV A=b
FROM base AS made
RUN ["/bin/sh", "-c", "busybox() { /bin/sh \"$@\"; }; echo $RANDOM$RANDOM > /random"]
WORKDIR /work
COPY a tree/x.z ./
RUN --mount=type=bind,source=tree,target=/t ["/bin/sh", "-c", "read r < /random; read y < /t/x/y; echo $r $y > /sum"]
FROM base
COPY --from=made /sum /random /
`})
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(dir, "busybox")).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	build := func(r *rig, args ...string) string {
		return r.docker(t, dir, append([]string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1", "buildx", "build"}, append(args, ".")...)...)
	}
	files := func(name string) string {
		out, err := exec.Command("cat", dir+"/"+name+"/sum", dir+"/"+name+"/random", dir+"/"+name+"/tree/x/sub/q").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	found := func(said string, want int) {
		t.Helper()
		if n := strings.Count(said, "CACHED"); n != want {
			t.Errorf("%d steps were found, want %d:\n%s", n, want, said)
		}
	}
	build(&theirs, "--cache-to", "type=local,dest=cache,mode=max", "--output", "type=local,dest=theirs")
	found(build(ours, "--cache-from", "type=local,src=cache", "--output", "type=local,dest=ours"), 7)
	if got, want := files("ours"), files("theirs"); got != want {
		t.Errorf("it is %q, theirs is %q", got, want)
	}
	// An image that both have is the same base.
	write(t, dir, map[string]string{"On": "FROM example/base\nRUN [\"/bin/sh\", \"-c\", \"echo $RANDOM$RANDOM > /random\"]\nFROM scratch\nCOPY --from=0 /random /tree/x/sub/q /\n"})
	build(&theirs, "--target", "base", "-t", "example/base")
	theirs.docker(t, dir, "save", "-o", "base.tar", "example/base")
	ours.docker(t, dir, "load", "-i", "base.tar")
	build(&theirs, "-f", "On", "--cache-to", "type=local,dest=on,mode=max", "--output", "type=local,dest=on-theirs")
	found(build(ours, "-f", "On", "--cache-from", "type=local,src=on", "--output", "type=local,dest=on-ours"), 2)
	if out, err := exec.Command("diff", "-r", dir+"/on-theirs", dir+"/on-ours").CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
	// What is another file is made anew, and what stands on it; the rest is found.
	ours.Tare(t, "builder", "prune", "-af")
	write(t, dir, map[string]string{"a": "another"})
	found(build(ours, "--cache-from", "type=local,src=cache", "--output", "type=local,dest=ours"), 5)
	ours.Tare(t, "builder", "prune", "-af")
	build(ours, "--cache-to", "type=local,dest=back,mode=max", "--output", "type=local,dest=ours")
	theirs.docker(t, dir, "buildx", "prune", "-af")
	found(build(&theirs, "--cache-from", "type=local,src=back", "--output", "type=local,dest=again"), 7)
	if got, want := files("again"), files("ours"); got != want {
		t.Errorf("it is %q there, ours is %q", got, want)
	}
}
