package cli_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
)

func TestUsageErrors(t *testing.T) {
	f := newFake(t)
	for args, want := range map[string]result{
		"run --foo img":     {125, "", "unknown flag: --foo\n\nUsage:  tare run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'tare run --help' for more information\n"},
		"ps -Z":             {125, "", "unknown shorthand flag: 'Z' in -Z\n\nUsage:  tare ps [OPTIONS]\n\nRun 'tare ps --help' for more information\n"},
		"run":               {1, "", "tare: 'tare run' requires at least 1 argument\n\nUsage:  tare run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'tare run --help' for more information\n"},
		"container ls x":    {1, "", "tare: 'tare container ls' accepts no arguments\n\nUsage:  tare container ls [OPTIONS]\n\nRun 'tare container ls --help' for more information\n"},
		"frobnicate":        {1, "", "tare: unknown command: tare frobnicate\n\nRun 'tare --help' for more information\n"},
		"image frob":        {1, "", "tare: unknown command: tare image frob\n\nUsage:  tare image COMMAND\n\nRun 'tare image --help' for more information\n"},
		"swarm init":        {1, "", "tare: 'tare swarm' needs a swarm, which tared cannot be part of\n"},
		"--nope ps":         {125, "", "unknown flag: --nope\n\nUsage:  tare [OPTIONS] COMMAND [ARG...]\n\nRun 'tare --help' for more information\n"},
		"-H ssh://u:p@h ps": {1, "", "unable to parse docker host `ssh://u:p@h`: plain-text password is not supported: use a key\n"},
		"-H ssh://-oX ps":   {1, "", "unable to parse docker host `ssh://-oX`: a host starts with no dash\n"},
		"-H a -c b ps":      {1, "", "conflicting options: cannot specify both --host and --context\n"},
		"-l loud ps":        {1, "", "unable to parse logging level: loud\n"},
		"-H unix:///no ps":  {1, "", "cannot connect to the daemon at unix:///no: is it running?\n"},
		"run -v x:/y --bad": {125, "", "unknown flag: --bad\n\nUsage:  tare run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'tare run --help' for more information\n"},
	} {
		if r := f.call(nil, strings.Fields(args)...); r != want {
			t.Errorf("%s: %+v\nwant %+v", args, r, want)
		}
	}
}

func TestDaemonIsNotRunning(t *testing.T) {
	var errOut strings.Builder
	dir := t.TempDir()
	env := map[string]string{"TARE_HOST": "unix://" + filepath.Join(dir, "s"), "DOCKER_HOST": "tcp://never", "DOCKER_CONFIG": dir}
	s := &command.Session{Err: &errOut, Getenv: func(name string) string { return env[name] }}
	if code := cli.Main(t.Context(), s, []string{"ps"}); code != 1 || errOut.String() != "cannot connect to the daemon at "+env["TARE_HOST"]+": is it running?\n" {
		t.Errorf("%d %q", code, errOut.String())
	}
}

// TestHelp builds every command, by all its names, and asks for its help.
func TestHelp(t *testing.T) {
	f := newFake(t)
	root := f.call(nil, "--help")
	if root.code != 0 || !strings.Contains(root.out, "Usage:  tare [OPTIONS] COMMAND") {
		t.Fatalf("%+v", root)
	}
	names := strings.Fields(f.call(nil, "__complete", "--", "").out)
	if len(names) < 28 {
		t.Fatalf("%d commands", len(names))
	}
	for _, name := range names {
		r := f.call(nil, name, "--help")
		if r.code != 0 || !strings.HasPrefix(r.out, "Usage:  tare") {
			t.Errorf("%s: %+v", name, r)
		}
		if slices.Contains([]string{"container", "image", "manifest", "system"}, name) {
			for _, verb := range strings.Fields(f.call(nil, "__complete", "--", name, "").out) {
				if r := f.call(nil, name, verb, "--help"); r.code != 0 || !strings.HasPrefix(r.out, "Usage:  tare "+name+" "+verb) {
					t.Errorf("%s %s: %+v", name, verb, r)
				}
			}
		}
	}
	if len(f.asked()) != 0 {
		t.Errorf("help asked the daemon: %v", f.asked())
	}
}

func TestCompletion(t *testing.T) {
	f := newFake(t)
	f.configure(`{"auths":{"reg.example":{},"https://index.docker.io/v1/":{}},"credHelpers":{"reg.example":"x"}}`)
	f.on("GET /containers/json", 200, []map[string]any{{"Id": "1", "Names": []string{"/web"}}, {"Id": "2", "Names": []string{"/db"}}})
	f.on("GET /images/json", 200, []map[string]any{{"Id": "1", "RepoTags": []string{"nginx:latest"}}})
	for words, want := range map[string]string{
		"ru":             "run\n",
		"stop w":         "web\n",
		"push ng":        "nginx\nnginx:latest\n",
		"commit w":       "web\n",
		"commit web n":   "",
		"logout r":       "reg.example\n",
		"image pru":      "prune\n",
		"container st":   "start\nstats\nstop\n",
		"run --pub":      "--publish\n--publish-all\n",
		"run -it ng":     "nginx\nnginx:latest\n",
		"run --name w":   "",
		"run --pull al":  "always\n",
		"-c d":           "default\n",
		"run img l":      "",
		"exec web l":     "",
		"completion z":   "zsh\n",
		"-H unix:///x p": "pause\nport\nps\npull\npush\n",
	} {
		args := append([]string{"__complete", "--"}, strings.Fields(words)...)
		if r := f.call(nil, args...); r.out != want || r.code != 0 {
			t.Errorf("%s: %+v, want %q", words, r, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := f.call(nil, "completion", shell)
		if script.code != 0 || script.out == "" {
			t.Errorf("%s: %+v", shell, script)
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		check := exec.Command(shell, "-n")
		check.Stdin = strings.NewReader(script.out)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}
