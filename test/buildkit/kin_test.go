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
	text := func(r *rig, name string) string {
		build(r, "--output", "type=local,dest="+name, "--cache-from", "type=local,src=cache-"+name)
		out, err := exec.Command("cat", dir+"/"+name+"/sum", dir+"/"+name+"/random", dir+"/"+name+"/tree/x/sub/q").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	build(&theirs, "--cache-to", "type=local,dest=cache-theirs,mode=max", "--output", "type=local,dest=theirs")
	want := text(&theirs, "theirs")
	said := build(ours, "--cache-from", "type=local,src=cache-theirs", "--output", "type=local,dest=ours")
	t.Log(said)
	if n := strings.Count(said, "CACHED"); n < 7 {
		t.Errorf("%d steps were found:\n%s", n, said)
	}
	out, err := exec.Command("cat", dir+"/ours/sum", dir+"/ours/random", dir+"/ours/tree/x/sub/q").Output()
	if err != nil || string(out) != want {
		t.Errorf("%v: it is %q, theirs is %q", err, out, want)
	}
}
