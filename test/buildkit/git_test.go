package buildkit

import (
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"

	"github.com/tarehq/tare/test/served"
)

// hostile makes bare repositories below dir: "hostile.git", with links and
// submodules that lead out of it, a branch for each; what a submodule would run
// makes the file ran. "project.git" is a plain one.
func hostile(t *testing.T, dir, ran string) {
	t.Helper()
	served.Repository(t, dir+"/project.git")
	cmd := exec.Command("sh", "-eu", "-c", `
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main "$1"
cd "$1"
mkdir -p sub/deep
echo sub >sub/file
printf 'FROM scratch\nARG U\nADD $U /added\nCOPY sub /sub\n' >Dockerfile
ln -s /etc etc
ln -s ../../.. up
ln -s .git git
ln -s sub inner
git add .
git commit -qm one
module() { # branch, URL
	git checkout -qb "$1" main
	printf '[submodule "m"]\n\tpath = m\n\turl = %s\n\tupdate = %s\n' "$2" "$3" >.gitmodules
	git update-index --add --cacheinfo 160000,$(git -C "$4/project.git" rev-parse main),m
	git add .gitmodules
	git commit -qm "$1"
}
module relative ../project.git checkout "$2"
module file "file://$2/project.git" checkout "$2"
module path "$2/project.git" checkout "$2"
module ext "ext::sh -c 'touch $3'" checkout "$2"
module option "--upload-pack=touch $3" checkout "$2"
module command ../project.git "!touch $3" "$2"
git clone -q --bare . "$2/hostile.git"`, "sh", t.TempDir(), dir, ran)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git: %v\n%s", err, out)
	}
}

// TestHostileGit builds of repositories that lead elsewhere: by what is asked for
// of them, by links, by submodules.
func TestHostileGit(t *testing.T) {
	_, c := builder(t)
	dir, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	hostile(t, dir+"/git", ran)
	server := net.JoinHostPort("127.0.0.1", served.Serve(t, dir))
	// A client of its own making cleans nothing.
	fetch := func(t *testing.T, remote, ref, subdir string) (string, error) {
		attrs := map[string]string{pb.AttrFullRemoteURL: remote, pb.AttrKeepGitDir: "true"}
		def, err := llb.NewState(llb.NewSource("git://example.org/x#"+ref+":"+subdir, attrs, llb.Constraints{}).Output()).Marshal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		_, err = c.Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil)
		return out, err
	}
	for name, x := range map[string]struct{ ref, subdir, want string }{
		"climb from sub":    {"main", "sub/../../../../sub", "has no directory"},
		"link to /etc":      {"main", "etc", "has no directory"},
		"link up":           {"main", "up", "has no directory"},
		"through link up":   {"main", "up/etc", "has no directory"},
		"git's own":         {"main", ".git", "has no directory"},
		"git's hooks":       {"main", ".git/hooks", "has no directory"},
		"link to git's":     {"main", "git", "has no directory"},
		"file":              {"main", "sub/file", "has no directory"},
		"option":            {"--upload-pack=touch " + ran, "", "invalid git reference"},
		"short option":      {"-h", "", "invalid git reference"},
		"refspec":           {"main:refs/heads/x", "", "has no directory"},
		"forced":            {"+main", "", "does not contain ref"},
		"no such":           {"nosuch", "", "does not contain ref nosuch"},
		"submodule file":    {"file", "", "transport 'file' not allowed"},
		"submodule path":    {"path", "", "transport 'file' not allowed"},
		"submodule ext":     {"ext", "", "not allowed"},
		"submodule option":  {"option", "", "git submodule"},
		"submodule command": {"command", "", "git submodule"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := fetch(t, "http://"+server+"/git/hostile.git", x.ref, x.subdir)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				list, _ := os.ReadDir(out)
				t.Errorf("%v, want %q: %v", err, x.want, list)
			}
		})
	}
	for name, x := range map[string]struct{ ref, subdir, file string }{
		"climb":      {"main", "../../..", "sub/file"},
		"inner link": {"main", "inner", "file"}, "submodule": {"relative", "", "m/sub/file"}, "in submodule": {"relative", "m/sub", "file"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := fetch(t, "http://"+server+"/git/hostile.git", x.ref, x.subdir)
			if text, _ := os.ReadFile(filepath.Join(out, x.file)); err != nil || string(text) != "sub\n" {
				t.Errorf("%v %q", err, text)
			}
		})
	}
	for _, remote := range []string{"ext::sh -c 'touch " + ran + "'", "file://" + dir + "/git/project.git", "ssh://-oProxyCommand=touch%20" + ran + "/x"} {
		if _, err := fetch(t, remote, "main", ""); err == nil {
			t.Errorf("%s was fetched", remote)
		}
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("a program was run")
	}
	t.Run("password", func(t *testing.T) {
		out, err := fetch(t, "http://user:hidden@"+server+"/git/hostile.git", "relative", "")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(out + "/.git/config"); err != nil || !strings.Contains(string(text), server) {
			t.Errorf("git's configuration: %v %s", err, text)
		}
		unknown(t, out, "hidden")
	})
	t.Run("provenance", func(t *testing.T) {
		if err := os.WriteFile(dir+"/file", []byte("served"), 0o644); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		attrs := map[string]string{"context": "http://user:hidden@" + server + "/git/hostile.git#main", "build-arg:U": "http://user:hidden@" + server + "/file", "attest:provenance": "mode=max"}
		if _, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, Exports: []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(out + "/provenance.json"); err != nil || !strings.Contains(string(text), server+"/git/hostile.git") || !strings.Contains(string(text), server+"/file") {
			t.Errorf("its provenance: %v %s", err, text)
		}
		unknown(t, out, "hidden")
	})
}

// unknown fails if a file below dir has the text.
func unknown(t *testing.T, dir, secret string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), secret) {
			t.Errorf("%s has %s", strings.TrimPrefix(path, dir), secret)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestGitAddress has all forms of a git address as what ADD fetches and as the context.
func TestGitAddress(t *testing.T) {
	_, c := builder(t)
	dir := t.TempDir()
	repository := dir + "/git/project.git"
	served.Repository(t, repository)
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", repository}, args...)...)
		cmd.Env = append(os.Environ(), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("tag", "-a", "-m", "annotated", "noted", "next")
	git("tag", "both", "next") // a branch and a tag of one name
	git("branch", "both", "main")
	one, two, noted := git("rev-parse", "main"), git("rev-parse", "next"), git("rev-parse", "noted")
	base := "http://" + net.JoinHostPort("127.0.0.1", served.Serve(t, dir)) + "/git/project.git"
	build := func(attrs map[string]string, file string) (string, error) {
		out := t.TempDir()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, LocalMounts: files(t, map[string]string{"Dockerfile": file}),
			Exports: []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil)
		return out, err
	}
	for _, x := range []struct{ flags, suffix, file, want string }{
		{"", "", "file", "one\n"}, {"", "#", "file", "one\n"}, {"", "#next", "file", "two\n"}, {"", "#refs/heads/next", "file", "two\n"}, {"", "#heads/next", "file", "two\n"},
		{"", "#v1", "file", "one\n"}, {"", "#tags/v1", "file", "one\n"}, {"", "#" + two, "file", "two\n"}, {"", "#noted", "file", "two\n"},
		{"", "#both", "file", "one\n"}, {"", "?tag=both", "file", "two\n"}, {"", "?branch=both", "file", "one\n"},
		{"", "#next:sub", "file", "sub\n"}, {"", "#:sub", "file", "sub\n"}, {"", "?ref=next&subdir=sub", "file", "sub\n"}, {"", "?subdir=sub", "tool", "#!/bin/sh\necho tool\n"},
		{"", "?ref=next&checksum=" + two, "file", "two\n"}, {"", "?ref=next&commit=" + two[:12], "file", "two\n"}, {"", "?ref=noted&checksum=" + noted, "file", "two\n"}, {"", "?ref=noted&checksum=" + two, "file", "two\n"},
		{"", "?ref=gone&fetch-by-commit=true&checksum=" + one, "file", "one\n"}, {"", "?checksum=" + two + "&fetch-by-commit", "file", "two\n"},
		{"--checksum=" + one + " ", "#main", "file", "one\n"}, {"--checksum=" + two[:8] + " ", "?branch=next", "file", "two\n"}, {"", "?keep-git-dir=true&ref=main", ".git/HEAD", one + "\n"},
		{"", "?submodules=false", "file", "one\n"},
		{"--checksum=" + one + " ", "#next", "", "expected checksum to match " + one + ", got " + two}, {"", "?ref=next&checksum=" + one, "", "expected checksum to match " + one},
		{"", "?ref=noted&checksum=" + one, "", "got " + noted + " or " + two}, {"", "#" + two + "?x=y", "", "invalid"},
		{"", "?ref=next&fetch-by-commit=true", "", "checksum"}, {"", "?ref=next&fetch-by-commit=true&checksum=" + two[:12], "", "full commit SHA"},
		{"", "?ref=a&tag=b", "", "ref conflicts"}, {"", "?tag=a&branch=b", "", "branch conflicts with tag"}, {"", "?nonsense=1", "", `unexpected query "nonsense"`}, {"", "?ref=gone", "", "does not contain ref gone"},
	} {
		t.Run("ADD "+x.flags+x.suffix, func(t *testing.T) {
			out, err := build(map[string]string{}, "FROM scratch\nADD "+x.flags+base+x.suffix+" /\n")
			if x.file == "" {
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("%v, want %s", err, x.want)
				}
				return
			}
			if text, _ := os.ReadFile(filepath.Join(out, x.file)); err != nil || string(text) != x.want {
				t.Errorf("%v, %q", err, text)
			}
		})
	}
	for suffix, want := range map[string]string{"#next": "two\n", "?ref=next&checksum=" + two: "two\n", "#main": "one\n"} {
		t.Run("named "+suffix, func(t *testing.T) {
			out, err := build(map[string]string{"context:more": base + suffix}, "FROM scratch\nCOPY --from=more file /copied\n")
			if text, _ := os.ReadFile(out + "/copied"); err != nil || string(text) != want {
				t.Errorf("%v, %q", err, text)
			}
		})
	}
	for suffix, want := range map[string]string{"#next": "", "?branch=next&checksum=" + two: "", "?branch=next&checksum=" + one: "expected checksum to match", "#next:sub": "no such file"} {
		t.Run("context "+suffix, func(t *testing.T) {
			out, err := build(map[string]string{"context": base + suffix}, "FROM scratch\n")
			if want != "" {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
				return
			}
			if text, _ := os.ReadFile(out + "/sub/file"); err != nil || string(text) != "sub\n" { // by the Dockerfile that is there
				t.Errorf("%v, %q", err, text)
			}
		})
	}
}

// TestMovingBranch has a branch move just when it is fetched: it is asked for again.
func TestMovingBranch(t *testing.T) {
	_, c := builder(t)
	dir := t.TempDir()
	served.Repository(t, dir+"/git/project.git")
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", served.Serve(t, dir))}
	through, asked := httputil.NewSingleHostReverseProxy(target), 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info/refs") {
			if asked++; asked == 2 { // the fetch begins
				if out, err := exec.Command("git", "-C", dir+"/git/project.git", "update-ref", "refs/heads/main", "refs/heads/next").CombinedOutput(); err != nil {
					t.Errorf("%v %s", err, out)
				}
			}
		}
		through.ServeHTTP(w, r)
	}))
	defer server.Close()
	def, err := llb.NewState(llb.NewSource("git://example.org/x#main", map[string]string{pb.AttrFullRemoteURL: server.URL + "/git/project.git"}, llb.Constraints{}).Output()).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	_, err = c.Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil)
	if text, _ := os.ReadFile(out + "/file"); err != nil || string(text) != "two\n" || asked != 4 {
		t.Errorf("%v, %q, asked %d times", err, text, asked)
	}
}
