package e2e

import (
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

func openSocket(t *testing.T, d *daemon.Daemon, path string) *websocket.Conn {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(d.Host, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	config, err := websocket.NewConfig("ws://tare"+path, "http://tare")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return ws
}

// expect reads until the text has come.
func expect(t *testing.T, from io.Reader, text string) {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), text) {
		n, err := from.Read(buf)
		if got.Write(buf[:n]); err != nil {
			t.Fatalf("%q is not in %q: %v", text, got.String(), err)
		}
	}
}

// sessions is how many are opened of the kinds that end without a word.
const sessions = 10

// TestWebSocket attaches as a browser does: to a container before its start, to one
// that runs, with what it has said before, and leaves by the detach keys, by a
// goodbye and with the container's end.
func TestWebSocket(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	goroutines := func() int {
		n, err := strconv.Atoi(d.Tare(t, "info", "--format", "{{.NGoroutines}}"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	d.Tare(t, "create", "--name", "plain", "-i", "busybox", "sh", "-c", "echo out; echo err >&2; cat; echo end")
	before := goroutines()
	ws := openSocket(t, d, "/containers/plain/attach/ws?stream=1&stdin=1&stdout=1&stderr=1")
	d.Tare(t, "start", "plain")
	expect(t, ws, "err\n") // raw, without heads of frames
	io.WriteString(ws, "typed\n")
	expect(t, ws, "typed\n")
	again := openSocket(t, d, "/containers/plain/attach/ws?stream=1&logs=1&stdout=1")
	expect(t, again, "out\ntyped\n")
	d.Tare(t, "stop", "-t", "0", "plain")
	for _, ws := range []*websocket.Conn{ws, again} {
		if rest, err := io.ReadAll(ws); err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}

	d.Tare(t, "run", "-dit", "--name", "terminal", "busybox", "sh")
	ws = openSocket(t, d, "/containers/terminal/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,x")
	io.WriteString(ws, "echo $((6*7))\n")
	expect(t, ws, "42")
	io.WriteString(ws, "\x18x")
	if _, err := io.ReadAll(ws); err != nil {
		t.Error(err)
	}
	for range sessions {
		ws = openSocket(t, d, "/containers/terminal/attach/ws?stream=1&stdout=1")
		if err := ws.Close(); err != nil {
			t.Error(err)
		}
		openSocket(t, d, "/containers/terminal/attach/ws?stream=1&stdin=1&stdout=1") // and it stays, without a word
	}
	if state := d.Tare(t, "inspect", "--format", "{{.State.Status}}", "terminal"); state != "running" {
		t.Errorf("the container is %s", state)
	}
	d.Tare(t, "rm", "-f", "terminal", "plain")
	// A daemon has some more or fewer by itself, for what it keeps ready.
	testutil.Eventually(t, 30*time.Second, "nothing of the sessions is left", func() bool { return goroutines() < before+sessions })
}
