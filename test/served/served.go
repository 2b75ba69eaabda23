// Package served is what builds fetch in tests: files and git repositories over
// HTTP.
package served

import (
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Serve is what a build can fetch: the files of a directory at /, and its bare
// repositories by git's own server at /git/. It listens on all addresses.
func Serve(t testing.TB, dir string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.Handle("/git/", &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"), Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + dir + "/git", "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Repository makes a bare repository of a few commits at the path, with a tag, a
// branch, a directory and a link.
func Repository(t testing.TB, path string) {
	t.Helper()
	cmd := exec.Command("sh", "-eu", "-c", `
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main "$1"
cd "$1"
mkdir sub
echo one >file
echo sub >sub/file
printf '#!/bin/sh\necho tool\n' >sub/tool
printf 'FROM busybox\nCOPY sub /sub\n' >Dockerfile
chmod 755 sub/tool
ln -s sub/tool link
git add .
git commit -qm one
git tag v1
git checkout -qb next
echo two >file
git commit -qam two
git checkout -q main
git clone -q --bare . "$2"
git -C "$2" config uploadpack.allowAnySHA1InWant true`, "sh", t.TempDir(), path)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git: %v\n%s", err, out)
	}
}
