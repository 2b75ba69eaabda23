package compat

import (
	"net"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/registry"
	"github.com/tarehq/tare/test/served"
	"github.com/tarehq/tare/test/sid"
)

// TestBuildx runs the scripts in buildx/ with Debian's newest client and buildx as
// docker, and with something to fetch at $SERVER.
func TestBuildx(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	t.Setenv("PATH", sid.New(t).Programs(t, "docker")+":"+os.Getenv("PATH"))
	dir := t.TempDir()
	served.Repository(t, dir+"/git/project.git")
	server := "http://" + net.JoinHostPort("127.0.0.1", served.Serve(t, dir))
	hub := registry.Start(t, registry.Options{})
	daemon.Scripts(t, "buildx", func(env *testscript.Env) error {
		env.Setenv("SERVER", server)
		env.Setenv("SERVED", dir)
		env.Setenv("REGISTRY", hub.Host)
		return nil
	})
}
