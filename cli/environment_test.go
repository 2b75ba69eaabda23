package cli_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDefaultPlatform has the variable name the platform wherever Docker's client
// asks it, and a flag say otherwise.
func TestDefaultPlatform(t *testing.T) {
	f := newFake(t)
	f.env["DOCKER_DEFAULT_PLATFORM"] = "linux/arm64"
	f.on("POST /containers/create", 201, map[string]any{"Id": "1"})
	f.handle("POST /images/create", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) })
	for line, want := range map[string]string{
		"create x":                           "linux/arm64",
		"run -d x":                           "linux/arm64",
		"create --platform linux/s390x x":    "linux/s390x",
		"pull x":                             "linux/arm64",
		"import -":                           "linux/arm64",
		"pull --platform linux/riscv64 -q x": "linux/riscv64",
	} {
		before := len(f.asked())
		f.call(strings.NewReader(""), strings.Fields(line)...)
		got := f.asked()[before:]
		if len(got) == 0 || !strings.Contains(strings.Join(got, " "), "platform="+strings.ReplaceAll(want, "/", "%2F")) {
			t.Errorf("%s asked %s, want %s", line, got, want)
		}
	}
}

// TestSSH reaches a daemon through a program called ssh: where the far end has no
// docker, tare answers.
func TestSSH(t *testing.T) {
	f := newFake(t)
	f.on("GET /version", 200, map[string]string{"Version": "far away"})
	f.handle("POST /containers/create", func(w http.ResponseWriter, _ *http.Request) { fail(w, 409, "taken") })
	dir := t.TempDir()
	for name, script := range map[string]string{
		"ssh":  "echo \"$*\" >" + dir + "/args\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec /bin/sh -c \"$*\"",
		"tare": "TARE_TEST_MAIN=1 TARE_HOST=" + f.host + " DOCKER_CONFIG=" + dir + " exec " + self(t) + " \"$@\"",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	env := map[string]string{"DOCKER_CONFIG": dir, "DOCKER_HOST": "ssh://me@far:2222" + strings.TrimPrefix(f.host, "unix://")}
	if r := words(env, "version -f {{.Server.Version}}"); r.out != "far away\n" {
		t.Errorf("%+v", r)
	}
	want := "-o ConnectTimeout=30 -T -l me -p 2222 -- far docker --host '" + f.host + "' system dial-stdio || tare --host '"
	if args, _ := os.ReadFile(dir + "/args"); !strings.HasPrefix(string(args), want) {
		t.Errorf("ssh %s", args)
	}
	env["DOCKER_HOST"] = "ssh://far"
	if r := words(env, "create x"); r.code != 1 || !strings.HasSuffix(r.err, "taken\n") {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(filepath.Join(dir, "tare")); err != nil {
		t.Fatal(err)
	}
	if r := words(env, "ps"); r.code != 1 || !strings.Contains(r.err, "has ended (exit status 127), make sure the URL is valid") || !strings.Contains(r.err, "tare: not found") {
		t.Errorf("%+v", r)
	}
	if r := words(env, "version -f {{.Server.Version}}"); r.code != 1 || !strings.Contains(r.err, "has ended") {
		t.Errorf("the template hides why there is no server: %+v", r)
	}
	t.Setenv("PATH", "/nowhere")
	if r := words(env, "ps"); r.code != 1 || !strings.Contains(r.err, `"ssh": executable file not found`) {
		t.Errorf("%+v", r)
	}
}
