package compat

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// same are command lines that print the same from Docker's client and from ours,
// and end alike. With ~ the texts of errors differ: they name types of Go, or are
// not the same in two versions of Docker's. What depends on the second in which it
// is called is left out.
const same = `
events --since 1h --until NOW --filter type=container --format {{.Type}}{{.Action}}{{.Actor.ID}}
events --since 1h --until NOW --filter container=web
events --since 1h --until NOW --format json
ps -a --no-trunc --format {{.ID}}|{{.Names}}|{{.Image}}|{{.Command}}|{{.CreatedAt}}|{{.Ports}}|{{.State}}|{{.Labels}}|{{.Label "one"}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}
ps -a -s --format {{.Names}}|{{.Size}}
ps --format table {{.Names}}\t{{.Image}}\t{{.Label "one"}}
ps -aq
ps -q --no-trunc --filter name=web
ps -ql
ps -qn 1
ps --filter nonsense=1
ps -a --format {{.Names | upper | json}}{{println}}{{title .Names}}{{pad .Names 1 2}}|{{truncate .Names 2}}|{{join (split .Labels ",") "/"}}|{{lower .Image}}
~ps --format {{.Nope}}
ps --format {{
images --format {{.Repository}}|{{.Tag}}|{{.ID}}|{{.CreatedAt}}|{{.Digest}}
images -q
images --no-trunc -q
image ls --digests --format {{.Digest}}
network ls
network ls --no-trunc -q
network ls --format json
network ls -f driver=bridge --format {{.Name}}{{.IPv4}}{{.IPv6}}{{.Internal}}{{.CreatedAt}}
network inspect bridge
network inspect -f {{.Driver}} bridge nope
volume ls
volume ls -q
volume ls --format json
volume inspect nope
inspect web
inspect --size web
inspect -f {{.State.Status}}{{json .Config.Labels}}{{.HostConfig.Binds}} web
inspect --type image busybox
inspect --type container busybox
inspect --type network host
inspect bridge
inspect nope web
inspect -f {{.Nope}} web
image inspect -f {{.Config.Cmd}} busybox
container inspect web
info -f {{.OSType}}{{.NCPU}}{{json .Plugins}}{{.ServerVersion}}{{json .Runtimes}}
version -f {{.Server.Version}}{{.Server.APIVersion}}{{.Server.Os}}
system df --format {{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}
system df --format json
port web
port web 80
port web 81
diff web
logs web
logs -n 1 -t web
history --no-trunc --format {{.ID}}{{.CreatedBy}}{{.Size}}{{.Comment}} busybox
wait ended ended
~start
start nope
start web nope
kill -s NOPE web
kill -s 0x web
rm nope
rm web
rm -f nope
~stop -t x web
attach ended
rmi nope
run --nope busybox
run --rm busybox false
info -f {{}}
~version -f {{}}
inspect -f {{}} web
run -a stdin -d busybox
run --name web busybox
run --network nope busybox
run -p 99999:80 busybox
run --memory x busybox
run --rm -w /x/y busybox pwd
run --rm --entrypoint echo busybox hi
run --rm -u nobodyx busybox
run --rm --cidfile /nope/x busybox true
run --rm --log-driver nope busybox true
create --name web busybox
exec web false
exec nope true
exec web nope
context inspect nope
`

// TestSameOutput asks one daemon by both clients.
func TestSameOutput(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("docker is not installed")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "web", "-p", "127.0.0.1:18080:80", "-p", "127.0.0.1:18053:53/udp", "--label", "one=1", "--label", "two=2",
		"-v", t.TempDir()+":/data", "busybox", "sh", "-c", "echo out; echo err >&2; touch /made; exec sleep 1000")
	if out, err := d.Try("run", "--name", "ended", "busybox", "sh", "-c", "exit 3"); err == nil {
		t.Fatal(out)
	}
	run := func(program string, args []string) (code int, out, errOut string) {
		var o, e bytes.Buffer
		c := d.Command(t, program, args...)
		c.Env = append(c.Env, "DOCKER_API_VERSION=1.50") // which both know
		c.Stdout, c.Stderr = &o, &e
		c.Run()
		ours := strings.NewReplacer("tare: ", "docker: ", "'tare ", "'docker ", "  tare ", "  docker ")
		return c.ProcessState.ExitCode(), o.String(), ours.Replace(e.String())
	}
	now := time.Now()
	lines := strings.ReplaceAll(strings.TrimSpace(same), "NOW", fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()))
	for _, line := range strings.Split(lines, "\n") {
		line, loose := strings.CutPrefix(line, "~")
		args := split(line)
		wantCode, wantOut, wantErr := run("docker", args)
		code, out, errOut := run("tare", args)
		if code != wantCode || out != wantOut {
			t.Errorf("%s: exit code %d\n%s\nDocker's client: %d\n%s", line, code, out, wantCode, wantOut)
		}
		if errOut != wantErr && !loose {
			t.Errorf("%s:\n%s\nDocker's client:\n%s", line, errOut, wantErr)
		}
	}
}

// split splits words apart at spaces outside of templates.
func split(line string) []string {
	var words []string
	depth, start := 0, 0
	for i := range len(line) {
		switch {
		case strings.HasPrefix(line[i:], "{{"):
			depth++
		case strings.HasPrefix(line[i:], "}}"):
			depth--
		case line[i] == ' ' && depth <= 0 && !strings.HasSuffix(line[:i], "--format table"):
			words = append(words, line[start:i])
			start = i + 1
		}
	}
	return append(words, line[start:])
}
