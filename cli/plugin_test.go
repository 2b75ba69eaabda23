package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// plug puts a plugin into a directory: it prints how it was called and which
// daemon it was given, or does what the rest of the script says.
func plug(t *testing.T, dir, name, rest string) {
	t.Helper()
	describe := `{"SchemaVersion":"0.1.0","Vendor":"Us","Version":"1","ShortDescription":"Shows what it is given"}`
	if strings.HasPrefix(rest, "{") {
		describe, rest = rest, ""
	}
	script := "#!/bin/sh\n[ \"$1\" = docker-cli-plugin-metadata ] && { echo '" + describe + "'; exit; }\n" + rest
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
}

const tell = `echo "$*"; echo $DOCKER_HOST $DOCKER_CONTEXT $DOCKER_TLS_VERIFY $DOCKER_TLS $DOCKER_CERT_PATH; cat; exit 7`

// started runs the program as a process whose environment names another daemon in
// each way, so far as env says nothing else.
func (f *fake) started(env []string, args ...string) result {
	c := f.process(args...)
	c.Env = append(c.Env, env...)
	c.Stdin = strings.NewReader("input\n")
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	c.Run()
	return result{c.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func TestPlugin(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(f.config, "cli-plugins")
	extra := filepath.Join(f.config, "extra")
	plug(t, dir, "docker-tell", tell)
	plug(t, dir, "docker-both", "echo docker")
	plug(t, dir, "tare-both", "echo tare")
	plug(t, dir, "docker-twice", "echo late")
	plug(t, extra, "docker-twice", "echo early")
	plug(t, dir, "docker-buildx", tell)
	plug(t, dir, "docker-schema", `{"SchemaVersion":"9","Vendor":"Us"}`)
	plug(t, dir, "docker-nobody", `{"SchemaVersion":"0.1.0"}`)
	plug(t, dir, "docker-dies", "kill -TERM $$")
	f.configure(`{"cliPluginsExtraDirs":["` + extra + `"]}`)
	if r := words(map[string]string{"DOCKER_CONFIG": f.config}, "context create far --docker host=tcp://far:1,skip-tls-verify=true"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if err := os.WriteFile(filepath.Join(f.config, "ca.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := []string{"DOCKER_HOST=unix:///other", "DOCKER_CONTEXT=far", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=/other"}
	for line, want := range map[string]result{
		"tell one --two":                {7, "tell one --two\n" + f.host + "\ninput\n", ""},
		"-H unix:///x tell":             {7, "tell\nunix:///x\ninput\n", ""},
		"-c far -D tell":                {7, "--debug tell\ntcp://far:1 far 1\ninput\n", ""},
		"-H tcp://h:1 tell":             {7, "tell\ntcp://h:1\ninput\n", ""},
		"-H tcp://h:1 --tlsverify tell": {7, "tell\ntcp://h:1 1 " + f.config + "\ninput\n", ""},
		"-H tcp://h:1 --tlsverify --tlscacert /y/my.pem tell": {7, "--tlscacert=/y/my.pem tell\ntcp://h:1 1\ninput\n", ""},
		"help tell":             {7, "tell --help\n" + f.host + "\ninput\n", ""},
		"build -t x .":          {7, "buildx build -t x .\n" + f.host + "\ninput\n", ""},
		"image build .":         {7, "buildx build .\n" + f.host + "\ninput\n", ""},
		"bake x":                {7, "buildx bake x\n" + f.host + "\ninput\n", ""},
		"builder prune":         {7, "buildx prune\n" + f.host + "\ninput\n", ""},
		"both":                  {0, "tare\n", ""},
		"twice":                 {0, "early\n", ""},
		"schema":                {1, "", "plugin " + dir + "/docker-schema: plugin SchemaVersion \"9\" is not valid, must be 0.1.0\n"},
		"nobody":                {1, "", "plugin " + dir + "/docker-nobody: plugin metadata does not define a vendor\n"},
		"compose up":            {1, "", "tare: 'tare compose' needs a plugin that is not installed: put the program docker-compose into " + dir + "\n"},
		"no-name":               {1, "", "tare: unknown command: tare no-name\n\nRun 'tare --help' for more information\n"},
		"../cli-plugins/x":      {1, "", "tare: unknown command: tare ../cli-plugins/x\n\nRun 'tare --help' for more information\n"},
		"-H a -c b tell":        {1, "", "conflicting options: cannot specify both --host and --context\n"},
		"--tlscacert /y tell":   {7, "tell\n" + f.host + "\ninput\n", ""},
		"__complete -- tell a ": {0, "", ""},
	} {
		if r := f.started(other, strings.Fields(line)...); r != want {
			t.Errorf("%s: %+v\nwant %+v", line, r, want)
		}
	}
	c := f.process("dies")
	c.Run()
	if status := c.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("what ended the plugin did not end the program: %v", c.ProcessState)
	}
	help := f.started(nil, "--help").out
	for _, want := range []string{"\n  tell*       Shows what it is given\n", "\nInvalid Plugins:\n  nobody      plugin "} {
		if !strings.Contains(help, want) {
			t.Errorf("%s\nlacks %q", help, want)
		}
	}
}

// A plugin under the name of a command is not run, nor looked for.
func TestPluginHidesNoCommand(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(f.config, "cli-plugins")
	f.on("GET /containers/json", 200, []any{})
	plug(t, dir, "docker-ps", tell)
	plug(t, dir, "docker-image", tell)
	plug(t, dir, "docker-tell", tell)
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ps", "image --help", "--version", "context ls", "container --help"} {
		if r := f.started(nil, strings.Fields(line)...); r.code != 0 {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("the directory was looked at: %d, %v", n, err)
	}
	if r := f.started(nil, "tell"); r.code != 7 {
		t.Errorf("%+v", r)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); n <= 0 {
		t.Errorf("a look at the directory is not seen: %v", err)
	}
}

func TestPluginCompletion(t *testing.T) {
	f := newFake(t)
	plug(t, filepath.Join(f.config, "cli-plugins"), "docker-tell", `[ "$1" = __complete ] && printf 'alpha\tthe first\nbeta\n:4\n' && echo "$2-$3-$4"`)
	if r := f.started(nil, "__complete", "--", "tell", "x", ""); r.out != "alpha\nbeta\ntell-x-\n" {
		t.Errorf("%+v", r)
	}
	if r := f.started(nil, "__complete", "--", "tel"); r.out != "tell\n" {
		t.Errorf("%+v", r)
	}
}

// A plugin that never stops describing itself takes neither the memory nor the
// command line's time.
func TestPluginWithoutEnd(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(f.config, "cli-plugins")
	plug(t, dir, "docker-endless", "")
	if err := os.WriteFile(filepath.Join(dir, "docker-endless"), []byte("#!/bin/sh\nexec yes\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := f.started(nil, "endless"); r.code == 0 || !strings.Contains(r.err, "docker-endless does not describe itself") {
		t.Errorf("%+v", r)
	}
}
