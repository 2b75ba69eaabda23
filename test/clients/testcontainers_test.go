package clients

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	testcontainers "github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/wait"
)

// A service of a test, as people write it: files put in before the start, waits
// for its log, its port, an answer over HTTP, a command and its health.
func TestTestcontainers(t *testing.T) {
	ctx := t.Context()
	c, err := testcontainers.Run(ctx, "busybox",
		testcontainers.WithExposedPorts("80/tcp"),
		testcontainers.WithEnv(map[string]string{"GREETING": "hello"}),
		testcontainers.WithLabels(map[string]string{"of": "a test"}),
		testcontainers.WithTmpfs(map[string]string{"/scratch": "rw,size=1m"}),
		testcontainers.WithFiles(testcontainers.ContainerFile{Reader: strings.NewReader("it works\n"), ContainerFilePath: "/www/index.html", FileMode: 0o644}),
		testcontainers.WithCmd("sh", "-c", "echo $GREETING is ready; exec httpd -f -h /www"),
		testcontainers.WithConfigModifier(func(c *container.Config) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"}, Interval: 100 * time.Millisecond}
		}),
		testcontainers.WithWaitStrategy(wait.ForLog("hello is ready"), wait.ForListeningPort("80/tcp"), wait.ForHTTP("/").WithPort("80/tcp"),
			wait.ForExec([]string{"test", "-d", "/scratch"}), wait.ForHealthCheck()))
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	address, err := c.PortEndpoint(ctx, "80/tcp", "http")
	if err != nil {
		t.Fatal(err)
	}
	if body := get(t, address); body != "it works\n" {
		t.Errorf("it answers %q", body)
	}

	code, out, err := c.Exec(ctx, []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, exec.Multiplexed())
	if err != nil || code != 3 {
		t.Errorf("exec: %d, %v", code, err)
	}
	if text, err := io.ReadAll(out); err != nil || string(text) != "out\nerr\n" {
		t.Errorf("exec says %q, %v", text, err)
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("copied"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyDirToContainer(ctx, dir, "/www/"+filepath.Base(dir), 0o755); err != nil {
		t.Error(err)
	}
	if err := c.CopyToContainer(ctx, []byte("from memory"), "/www/memory", 0o600); err != nil {
		t.Error(err)
	}
	back, err := c.CopyFileFromContainer(ctx, "/www/memory")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if text, err := io.ReadAll(back); err != nil || string(text) != "from memory" {
		t.Errorf("copied back: %q, %v", text, err)
	}
	if body := get(t, address+"/"+filepath.Base(dir)+"/page"); body != "copied" {
		t.Errorf("a copied directory's file is %q", body)
	}

	logs, err := c.Logs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	if text, err := io.ReadAll(logs); err != nil || !bytes.Contains(text, []byte("hello is ready")) {
		t.Errorf("logs: %q, %v", text, err)
	}
	brief := time.Millisecond
	if err := c.Stop(ctx, &brief); err != nil {
		t.Error(err)
	}
	if state, err := c.State(ctx); err != nil || state.Running {
		t.Errorf("after stop: %+v, %v", state, err)
	}
	if err := c.Start(ctx); err != nil {
		t.Error(err)
	}
}

// A command that runs to its end, with its output.
func TestTestcontainersExit(t *testing.T) {
	c, err := testcontainers.Run(t.Context(), "busybox", testcontainers.WithCmd("sh", "-c", "echo said; exit 4"),
		testcontainers.WithWaitStrategy(wait.ForExit()))
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	state, err := c.State(t.Context())
	if err != nil || state.ExitCode != 4 {
		t.Errorf("it ended as %+v, %v", state, err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
