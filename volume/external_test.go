package volume

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/internal/testutil"
)

// keeper is a plugin that answers everything, and notes what it is asked.
type keeper struct {
	mu    sync.Mutex
	calls []string
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, filepath.Ext(r.URL.Path))
	fmt.Fprint(w, `{"Implements": ["VolumeDriver"], "Mountpoint": "/"}`)
}

func (k *keeper) asked(method string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.calls, method)
}

func (k *keeper) serve(t *testing.T, socket string) *http.Server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: k}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return server
}

// A plugin that does not answer keeps no container's end waiting, and is told of it
// when it is there again.
func TestPluginThatIsAway(t *testing.T) {
	ctx, dir, k := t.Context(), t.TempDir(), &keeper{}
	socket := filepath.Join(dir, "keeper.sock")
	server := k.serve(t, socket)
	plugins := plugin.New(plugin.Dirs{Sockets: dir, Specs: []string{dir}})
	defer plugins.Close()
	s, err := Open(ctx, Config{DataRoot: dir, Plugins: plugins, Events: &event.Log{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, CreateRequest{Name: "data", Driver: "keeper"})
	if _, err := s.Mount(ctx, "data", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(ctx, "data", "c1"); err != nil {
		t.Errorf("the container's end: %v", err)
	}
	k.serve(t, socket)
	testutil.Eventually(t, 20*time.Second, "the plugin is told", func() bool { return k.asked(".Unmount") })
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if left := names(t, s.dir("data")); !slices.Equal(left, []string{recordName}) {
		t.Errorf("left: %q", left)
	}
}
