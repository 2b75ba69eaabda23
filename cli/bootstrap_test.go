package cli_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// tools makes a directory with programs and takes it as the whole path.
func tools(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tar", "rm", "mkdir", "cat", "newuidmap"} {
		if path, err := exec.LookPath(name); err == nil {
			os.Symlink(path, filepath.Join(dir, name))
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the tools do")
	}
}

// keys makes a file that stands for an archive's keys.
func keys(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "keys.gpg")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// importing makes the fake take an archive, and tells whether it came whole.
func (f *fake) importing() (whole func() string) {
	got := make(chan string, 1)
	f.handle("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got <- string(text)
		lines(map[string]any{"status": "sha256:1"})(w, r)
	})
	return func() string {
		select {
		case text := <-got:
			return text
		default:
			return ""
		}
	}
}

func TestBootstrapByMmdebstrap(t *testing.T) {
	needRoot(t)
	key := keys(t)
	dir := tools(t, map[string]string{"mmdebstrap": `printf '%s\n' "$@" > "$0.args"; echo working >&2; printf tar`})
	f := newFake(t)
	f.env["SOURCE_DATE_EPOCH"] = "1700000000"
	whole := f.importing()
	r := f.call(nil, "image", "bootstrap", "--keyring", key, "--arch", "arm64", "--include", "a,b", "--variant", "apt", "--apt-option", `A "b"`, "debian:12")
	if r != (result{0, "sha256:1\n", "working\n"}) || whole() != "tar" {
		t.Errorf("%+v", r)
	}
	args, _ := os.ReadFile(filepath.Join(dir, "mmdebstrap.args"))
	want := "--format=tar\n--variant=apt\n--architectures=arm64\n--keyring=" + key + "\n" + `--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"` + "\n" +
		"--include=a\n--include=b\n--aptopt=A \"b\"\nbookworm\n-\n" +
		"deb http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian bookworm-updates main\n" +
		"deb http://deb.debian.org/debian-security bookworm-security main\n"
	if string(args) != want {
		t.Errorf("%s\nwant\n%s", args, want)
	}
	asked := f.asked()
	for _, want := range []string{"repo=debian&", "tag=bookworm", "platform=linux%2Farm64", "source-date-epoch=1700000000", "CMD+%5B%22bash%22%5D"} {
		if !strings.Contains(asked[len(asked)-1], want) {
			t.Errorf("%s has no %s", asked[len(asked)-1], want)
		}
	}
	f.call(nil, "image", "bootstrap", "-q", "--keyring", key, "-t", "reg.example:5000/base", "--mirror", "http://mirror/ubuntu",
		"--mirror", "deb [trusted=yes] http://other x y", "--arch", "amd64", "ubuntu:24.04")
	args, _ = os.ReadFile(filepath.Join(dir, "mmdebstrap.args"))
	if !strings.HasSuffix(string(args), "\nnoble\n-\ndeb http://mirror/ubuntu noble main universe\ndeb [trusted=yes] http://other x y\n") {
		t.Errorf("%s", args)
	}
	if asked = f.asked(); !strings.Contains(asked[len(asked)-1], "repo=reg.example%3A5000%2Fbase&source-date") {
		t.Error(asked[len(asked)-1])
	}
}

// A tool that fails makes no image: at once the daemon is not even asked, and in
// the midst of its output the archive does not end as a whole one does.
func TestBootstrapFails(t *testing.T) {
	needRoot(t)
	key := keys(t)
	for _, script := range []string{"echo no network >&2; exit 1", "printf half; echo no network >&2; exit 25"} {
		tools(t, map[string]string{"mmdebstrap": script})
		f := newFake(t)
		f.on("POST /images/create", 200, map[string]any{"status": "sha256:1"})
		r := f.call(nil, "image", "bootstrap", "-q", "--keyring", key, "debian:sid")
		if r.code != 1 || r.out != "" || !strings.Contains(r.err, "mmdebstrap failed: exit status ") || !strings.Contains(r.err, "no network") {
			t.Errorf("%s: %+v", script, r)
		}
		if asked := strings.Join(f.asked(), " "); !strings.Contains(script, "half") && strings.Contains(asked, "/images/create") {
			t.Errorf("%s: asked %v", script, asked)
		}
	}
}

func TestBootstrapByDebootstrap(t *testing.T) {
	needRoot(t)
	key := keys(t)
	f := newFake(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	dir := tools(t, map[string]string{"debootstrap": `printf '%s\n' "$@" > "$0.args"
for root; do case $root in */root) mkdir -p "$root/etc" "$root/var/lib/apt/lists"; echo h > "$root/etc/hostname"; echo os > "$root/etc/os-release"; echo x > "$root/var/lib/apt/lists/x_y" ;; esac; done`})
	whole := f.importing()
	if r := f.call(nil, "image", "bootstrap", "-q", "--keyring", key, "--include", "a,b", "--arch", runtime.GOARCH, "debian:bookworm"); r != (result{0, "sha256:1\n", ""}) {
		t.Errorf("%+v", r)
	}
	c := exec.Command("tar", "--list", "--verbose", "--utc", "--full-time")
	c.Stdin = strings.NewReader(whole())
	out, err := c.CombinedOutput()
	list := string(out)
	if err != nil || !strings.Contains(list, "2001-09-09 01:46:40 ./etc/os-release") || strings.Contains(list, "hostname") || strings.Contains(list, "x_y") {
		t.Errorf("%v\n%s", err, list)
	}
	args, _ := os.ReadFile(filepath.Join(dir, "debootstrap.args"))
	if text := string(args); !strings.Contains(text, "--variant=minbase\n--include=a,b\nbookworm\n"+temp) || !strings.HasSuffix(text, "/root\nhttp://deb.debian.org/debian\n") ||
		!strings.Contains(text, "--components=main\n") {
		t.Errorf("%s", text)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if r := f.call(nil, "image", "bootstrap", "--keyring", key, "--variant", "essential", "debian"); r.code != 1 ||
		r.err != "debootstrap has no variant \"essential\", only minbase, buildd and standard: install mmdebstrap\n" {
		t.Errorf("%+v", r)
	}
}

func TestBootstrapRefused(t *testing.T) {
	key := keys(t)
	tools(t, nil)
	f := newFake(t)
	for args, want := range map[string]string{
		"fedora:41":                             `"fedora:41" cannot be bootstrapped: name one of debian, ubuntu, such as debian:bookworm or ubuntu:noble`,
		"debian:../x":                           `invalid suite "../x": use a name such as bookworm`,
		"debian:-x":                             `invalid suite "-x": use a name such as bookworm`,
		"--arch z80 debian:bookworm":            `no architecture "z80" is known: use one of `,
		"--keyring /nosuch debian":              "stat /nosuch: no such file or directory",
		"--keyring " + key + " debian:bookworm": "neither mmdebstrap nor debootstrap is installed here: install one of them, such as by: apt-get install mmdebstrap",
		"--keyring " + key + " -t x: debian":    `invalid reference format: "x:"`,
	} {
		if r := f.call(nil, append([]string{"image", "bootstrap"}, strings.Fields(args)...)...); r.code != 1 || !strings.HasPrefix(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Error(asked)
	}
}
