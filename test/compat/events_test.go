package compat

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestLookAtTheEnd inspects a container that removes itself, and one that is removed,
// when the event of its end comes, as Compose does: it is there still, and soon it is not.
func TestLookAtTheEnd(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", strings.TrimPrefix(d.Host, "unix://"))
	}}}
	defer client.CloseIdleConnections()
	get := func(path string) *http.Response {
		t.Helper()
		r, err := client.Get("http://x" + path)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	stream := get(`/events?filters={"event":{"die":true}}`)
	defer stream.Body.Close()
	dies := json.NewDecoder(stream.Body)
	look := func(id string) {
		t.Helper()
		var died events.Message
		if err := dies.Decode(&died); err != nil || died.Actor.ID != id {
			t.Fatalf("%+v %v", died, err)
		}
		inspect := get("/containers/" + id + "/json")
		defer inspect.Body.Close()
		var c container.InspectResponse
		if err := json.NewDecoder(inspect.Body).Decode(&c); err != nil || c.State == nil || c.State.Running {
			t.Errorf("%s %+v %v", inspect.Status, c.State, err)
		}
	}
	id := d.Tare(t, "run", "-d", "--rm", "busybox", "true")
	look(id)
	testutil.Eventually(t, 10*time.Second, "it is removed", func() bool {
		_, err := d.Try("inspect", id)
		return err != nil
	})
	id = d.Tare(t, "run", "-d", "busybox", "sleep", "1000")
	removed := make(chan error)
	go func() {
		_, err := d.Try("rm", "-f", id)
		removed <- err
	}()
	look(id)
	if err := <-removed; err != nil {
		t.Error(err)
	}
}
