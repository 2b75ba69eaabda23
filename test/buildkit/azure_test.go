package buildkit

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
)

// The account that Azurite, Microsoft's own server for tests, always has.
const (
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// azurite starts that server, and returns the address of the account.
func azurite(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("azurite-blob")
	if err != nil {
		t.Skip("needs azurite, which npm has")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	var said bytes.Buffer
	cmd := exec.Command(program, "--blobPort", port, "--location", t.TempDir(), "--skipApiVersionCheck", "--silent")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	testutil.Eventually(t, 30*time.Second, "azurite answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "http://127.0.0.1:" + port + "/" + azureAccount
}

// TestAzureCache writes a build's cache into Azure's storage and builds from it.
func TestAzureCache(t *testing.T) {
	address := azurite(t)
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY f /f\nRUN head -c 200000 /dev/urandom | sha256sum > /sum\n", "f": "f"})
	store := "type=azblob,account_url=" + address + ",account_name=" + azureAccount + ",container=caches,prefix=of/ours,name=one"
	build := func(key string, args ...string) (string, error) {
		return r.try(t, dir, append([]string{"buildx", "build", "--cache-from", store + ",secret_access_key=" + key}, append(args, ".")...)...)
	}
	text, err := build(azureKey, "--cache-to", store+",mode=max,secret_access_key="+azureKey, "-t", "first")
	if err != nil || strings.Contains(text, "CACHED") {
		t.Fatalf("%v\n%s", err, text)
	}
	if text, err = build(azureKey, "--cache-to", store+",mode=max,secret_access_key="+azureKey); err != nil || strings.Contains(text, "writing layer") {
		t.Errorf("%v\n%s", err, text)
	}
	sum := r.Tare(t, "run", "--rm", "first", "cat", "/sum")
	r.Tare(t, "builder", "prune", "-af")
	r.Tare(t, "image", "rm", "first")
	if text, err = build(azureKey, "-t", "second"); err != nil || strings.Count(text, "CACHED") != 2 {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := r.Tare(t, "run", "--rm", "second", "cat", "/sum"); got != sum {
		t.Errorf("the layer is another: %s, not %s", got, sum)
	}
	if text, err := build("d3Jvbmc=", "--no-cache"); err != nil || !strings.Contains(text, "of the container caches") {
		t.Errorf("%v\n%s", err, text)
	}
}
