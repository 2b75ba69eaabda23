package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
)

// completing is a daemon with names to complete, and a directory with this program as
// tare and as docker.
func completing(t *testing.T) (f *fake, dir string) {
	t.Helper()
	f = newFake(t)
	f.on("GET /containers/json", 200, []map[string]any{{"Id": "1", "Names": []string{"/web"}}, {"Id": "2", "Names": []string{"/worker"}},
		{"Id": "3", "Names": []string{"/$(touch evil)", "/x y", "/x'\"z", "/x\nline"}}})
	f.on("GET /images/json", 200, []map[string]any{{"Id": "1", "RepoTags": []string{"nginx:latest", "near/by:2"}}})
	f.on("GET /networks", 200, []map[string]any{{"Name": "bridge"}, {"Name": "backend"}})
	f.on("GET /info", 200, map[string]any{
		"Plugins":  map[string]any{"Log": []string{"json-file", "journald", "syslog"}, "Volume": []string{"local"}, "Network": []string{"bridge", "macvlan"}},
		"Runtimes": map[string]any{"tarerun": map[string]any{}, "crun": map[string]any{}},
	})
	f.on("GET /volumes", 200, map[string]any{"Volumes": []map[string]any{{"Name": "data"}, {"Name": "dust"}}})
	dir = t.TempDir()
	for _, name := range []string{"tare", "docker"} {
		script := "#!/bin/bash\nexec -a " + name + " " + self(t) + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if r := words(map[string]string{"DOCKER_CONFIG": f.config}, "context create faraway --docker host=unix:///x"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	return f, dir
}

// in is a shell's process with this program in its path.
func (f *fake) in(t *testing.T, dir, shell string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("%s is not installed", shell)
	}
	c := exec.Command(path, args...)
	c.Dir = dir
	c.Env = append(f.process().Env, "PATH="+dir+":"+os.Getenv("PATH"), "TARE_COMPLETION_TEST=1", "HOME="+dir, "ZDOTDIR="+dir)
	return c
}

// completed are lines and their candidates as whole words, in order.
var completed = [][2]string{
	{"tare conte", "context"}, {"tare network c", "connect create"}, {"tare network connect ba", "backend"}, {"tare network connect x we", "web"},
	{"tare ps --no", "--no-trunc"}, {"tare stop w", "web worker"}, {"tare rm -f wo", "worker"}, {"tare run --rm n", "near/by:2 nginx nginx:latest"},
	{"tare run --network b", "backend bridge"}, {"tare run --network=ba", "--network=backend"}, {"tare run --network container:wo", "container:worker"},
	{"tare image rm near/by:", "near/by:2"}, {"tare network create -d mac", "macvlan"}, {"tare run --log-driver j", "journald json-file"},
	{"tare run --runtime c", "crun"}, {"tare update --restart on", "on-failure"}, {"tare volume rm d", "data dust"}, {"tare volume inspect da", "data"},
	{"tare logs we", "web"}, {"tare inspect --type v", "volume"}, {"tare --context far", "faraway"}, {"tare run --log-opt max-s", "max-size="},
	{"docker volume rm du", "dust"},
}

// TestFishCompletes has fish itself complete command lines.
func TestFishCompletes(t *testing.T) {
	f, dir := completing(t)
	args := []string{"--no-config", "-c", `tare completion fish | source
docker completion fish | source
for line in $argv
	echo (complete -C $line | string replace -r '\t.*' '')
end`}
	for _, c := range completed {
		args = append(args, c[0])
	}
	out, err := f.in(t, dir, "fish", args...).CombinedOutput()
	checkCompleted(t, string(out), err)
	if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
		t.Error("a container's name was executed")
	}
}

func checkCompleted(t *testing.T, out string, err error) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != len(completed) {
		t.Fatalf("%v: %s", err, out)
	}
	for i, c := range completed {
		if lines[i] != c[1] {
			t.Errorf("%s: %q; want %q", c[0], lines[i], c[1])
		}
	}
}

// zshAtTab is what an interactive zsh begins with. At a tab it completes; compadd, which all
// completions end in, notes what is offered, and control-G tells it.
const zshAtTab = `PROMPT=
setopt no_beep no_auto_list no_list_ambiguous
autoload -Uz compinit
compinit -u -D
source <(tare completion zsh)
source <(docker completion zsh)
typeset -ga offered
compadd() {
	local -a now
	builtin compadd -A now "$@"
	offered+=("${now[@]}")
	builtin compadd "$@"
}
tell() {
	print -r -- "<<${(j: :)${(ou)offered}}>>"
	offered=()
	BUFFER=
}
zle -N tell
bindkey '^G' tell
bindkey '^I' complete-word
print ready
`

// TestZshCompletes has an interactive zsh, at a terminal of its own, complete command lines.
func TestZshCompletes(t *testing.T) {
	f, dir := completing(t)
	if err := os.WriteFile(filepath.Join(dir, ".zshrc"), []byte(zshAtTab), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "-c", `zmodload zsh/zpty
zpty inner zsh -d -i
zpty -r -m inner out '*ready*'
for line in "$@"; do
	zpty -w -n inner "$line"$'\t\a'
	zpty -r -m inner out '*<<*>>*' || exit 9
	out=${out##*<<}
	print -r -- "${out%%>>*}"
done
zpty -d inner`, "zsh"}
	for _, c := range completed {
		args = append(args, c[0])
	}
	c := f.in(t, dir, "zsh", args...)
	late := time.AfterFunc(testutil.Patience(30*time.Second), func() { _ = c.Process.Kill() })
	defer late.Stop()
	out, err := c.CombinedOutput()
	checkCompleted(t, string(out), err)
}

// TestBashCompletes has bash itself complete command lines.
func TestBashCompletes(t *testing.T) {
	f, dir := completing(t)
	// What bash does at a tab, without its terminal: it parts words at = and :, and
	// puts a candidate into the place of the last part.
	const tab = `source <(tare completion bash)
complete -p tare >/dev/null || exit 9
read -ra COMP_WORDS <<<"$(sed 's/[=:]/ & /g' <<<"$1")"
[ "${1% }" = "$1" ] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$1 COMP_POINT=${#1}
$(complete -p tare | sed 's/.*-F \([^ ]*\).*/\1/') tare "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"tare conte":                           "context",
		"tare network ":                        "connect create disconnect exposure inspect ls prune rm rules",
		"tare network connect ba":              "backend",
		"tare network connect x we":            "web",
		"tare network create b":                "",
		"tare ps --no":                         "--no-trunc",
		"tare stop w":                          "web worker",
		"tare rm -f wo":                        "worker",
		"tare rm -f $":                         `\$\(touch\ evil\)`,
		"tare rm -f x":                         `x\ y x\'\"z`,
		"tare run --rm n":                      "near/by:2 nginx nginx:latest",
		"tare run --network b":                 "backend bridge",
		"tare run --network=ba":                "backend",
		"tare run --network=":                  "backend bridge container:",
		"tare run --network cont":              "container:",
		"tare run --network container:wo":      "worker",
		"tare image rm near/by:":               "2",
		"tare --log-level=d":                   "debug",
		"tare network create --config-from ba": "backend",
		"tare network create -d mac":           "macvlan",
		"tare volume create -d l":              "local",
		"tare run --log-driver j":              "journald json-file",
		"tare run --log-driver=no":             "none",
		"tare run --log-opt max-s":             "max-size=",
		"tare run --log-opt max-size=1":        "",
		"tare run --runtime ":                  "crun tarerun",
		"tare run --volume-driver ":            "local",
		"tare run --restart un":                "unless-stopped",
		"tare update --restart on":             "on-failure",
		"tare create --pull m":                 "missing",
		"tare run --ipc ":                      "container: host none private shareable",
		"tare run --ipc container:we":          "web",
		"tare run --pid=container:we":          "web",
		"tare run --pid h":                     "host",
		"tare run --cap-add CAP_NET_":          "CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW",
		"tare run --cap-add A":                 "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE",
		"tare run --cap-drop NET_R":            "NET_RAW",
		"tare run --security-opt ":             "apparmor= label= no-new-privileges seccomp= systempaths= writable-cgroups",
		"tare run --security-opt seccomp=":     "builtin unconfined",
		"tare run --security-opt=label=d":      "disable",
		"tare run --security-opt label=us":     "user:",
		"tare kill -s TER":                     "TERM",
		"tare run --stop-signal SIGUS":         "SIGUSR1 SIGUSR2",
		"tare run -e TARE_COMPLETI":            "TARE_COMPLETION_TEST",
		"tare run -v d":                        "data dust",
		"tare run --volumes-from we":           "web",
		"tare network inspect br":              "bridge",
		"tare volume inspect da":               "data",
		"tare inspect da":                      "data",
		"tare image rm near":                   "near/by:2",
		"tare -c f":                            "faraway",
		"tare --context far":                   "faraway",
		"tare -D context use ":                 "default faraway",
		"tare --log-level d":                   "debug",
		"tare inspect --type ":                 "container image network volume",
		"tare run --userns ":                   "auto host",
		"tare nonsense ":                       "",
	} {
		out, err := f.in(t, dir, "bash", "--norc", "-c", tab, "bash", line).CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
		t.Error("a container's name was executed")
	}
	docker := f.process("completion", "bash")
	docker.Args[0] = "/usr/bin/docker"
	if out, err := docker.Output(); err != nil || !strings.Contains(string(out), "\ncomplete -F _tare docker\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// self is the path of the program that the tests are.
func self(t *testing.T) string {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCalledDocker(t *testing.T) {
	f := newFake(t)
	f.on("GET /containers/json", 200, []any{})
	for name, want := range map[string]string{"docker": "Docker version ", "/opt/bin/docker": "Docker version ", "tare": "Tare version ", "/docker/tare": "Tare version "} {
		c := f.process("--version")
		c.Args[0] = name
		if out, err := c.Output(); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
	c := f.process("cp", "x")
	c.Args[0] = "docker"
	if out, err := c.CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "docker: 'docker cp' requires 2 arguments") || strings.Contains(string(out), "tare") {
		t.Errorf("%v: %s", err, out)
	}
	c = f.process("ps", "-q")
	c.Args[0] = "docker"
	if out, err := c.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v: %s", err, out)
	}
}
