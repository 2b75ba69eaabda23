package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/tarehq/tare/fault"
)

// dial sends a raw request and gives the connection with what came back.
func (r *rig) dial(request string) (net.Conn, *bufio.Reader) {
	r.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		r.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// head reads an answer's head as text.
func (r *rig) head(in *bufio.Reader) string {
	r.Helper()
	var out strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			r.Fatalf("after %q: %v", out.String(), err)
		}
		out.WriteString(line)
		if line == "\r\n" {
			return out.String()
		}
	}
}

// upcase is a session that answers in capitals until its client has nothing
// more to say, then says so.
func upcase(conn net.Conn, buffered []byte) {
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(buffered), conn))
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			io.WriteString(conn, "END\n")
			return
		}
		io.WriteString(conn, strings.ToUpper(line))
	}
}

func TestAttachUpgrades(t *testing.T) {
	for _, test := range []struct {
		path, contentType string
		tty               bool
	}{
		{"/v1.42/containers/x/attach", "application/vnd.docker.multiplexed-stream", false},
		{"/containers/x/attach", "application/vnd.docker.raw-stream", true},
		{"/v1.41/containers/x/attach", "application/vnd.docker.raw-stream", false},
	} {
		r := newRig(t)
		r.containers.tty, r.containers.serve = test.tty, upcase
		conn, in := r.dial("POST " + test.path + "?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nsent early\n")
		head := r.head(in)
		if !strings.HasPrefix(head, "HTTP/1.1 101 UPGRADED\r\nContent-Type: "+test.contentType+"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n") || !strings.Contains(head, "Api-Version: 1.56\r\n") {
			t.Errorf("%s: %q", test.path, head)
		}
		if line, err := in.ReadString('\n'); line != "SENT EARLY\n" {
			t.Errorf("%q %v", line, err)
		}
		fmt.Fprintf(conn, "later\n")
		if line, err := in.ReadString('\n'); line != "LATER\n" {
			t.Errorf("%q %v", line, err)
		}
		// Half-close: the input ends, the output goes on.
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(in); string(rest) != "END\n" || err != nil {
			t.Errorf("%q %v", rest, err)
		}
		if o := r.containers.attach; !o.Stdin || !o.Stdout || o.Stderr || !o.Stream || o.DetachKeys != "ctrl-a" {
			t.Errorf("%+v", o)
		}
	}
}

// What a client says in a body, as dockerode does, is no input.
func TestAttachSkipsTheBody(t *testing.T) {
	r := newRig(t)
	r.containers.serve = upcase
	_, in := r.dial("POST /containers/x/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 15\r\n\r\n" +
		"{\"stream\":true}input\n")
	r.head(in)
	if line, err := in.ReadString('\n'); line != "INPUT\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestAttachWithoutUpgrade(t *testing.T) {
	r := newRig(t)
	r.containers.serve = upcase
	conn, in := r.dial("POST /v1.45/containers/x/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if head := r.head(in); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n") {
		t.Errorf("%q", head)
	}
	fmt.Fprintf(conn, "x\n")
	if line, err := in.ReadString('\n'); line != "X\n" {
		t.Errorf("%q %v", line, err)
	}
}

// webSocket opens a websocket to the server, as a browser would.
func (r *rig) webSocket(path string) *websocket.Conn {
	r.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	config, err := websocket.NewConfig("ws://tare"+path, "http://tare")
	if err != nil {
		r.Fatal(err)
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		r.Fatal(err)
	}
	if err := ws.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.Fatal(err)
	}
	return ws
}

func TestAttachByWebSocket(t *testing.T) {
	for _, test := range []struct {
		path  string
		frame byte
		all   bool
	}{{"/v1.27", websocket.TextFrame, true}, {"/v1.28", websocket.BinaryFrame, true}, {"/v1.42", websocket.BinaryFrame, false}} {
		r := newRig(t)
		ended := make(chan struct{})
		r.containers.serve = func(conn net.Conn, buffered []byte) { upcase(conn, buffered); close(ended) }
		ws := r.webSocket(test.path + "/containers/x/attach/ws?stream=1&stdin=1&logs=1&detachKeys=ctrl-a")
		if _, err := io.WriteString(ws, "wor"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(ws, "ds\n"); err != nil {
			t.Fatal(err)
		}
		var got byte
		message := websocket.Codec{Unmarshal: func(data []byte, frame byte, v any) error { got, *v.(*string) = frame, string(data); return nil }}
		var text string
		if err := message.Receive(ws, &text); err != nil || text != "WORDS\n" || got != test.frame {
			t.Errorf("%s: %q of type %d, %v", test.path, text, got, err)
		}
		if o := r.containers.attach; !o.Raw || !o.Stdin || o.Stdout != test.all || o.Stderr != test.all || !o.Stream || !o.Logs || o.DetachKeys != "ctrl-a" {
			t.Errorf("%s: %+v", test.path, o)
		}
		// The client's goodbye ends the session.
		if err := ws.WriteClose(1000); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the session goes on", test.path)
		}
	}
	r := newRig(t)
	r.containers.serve = upcase
	r.want(400, "attach/ws is for websockets, use attach instead: the request asks for no upgrade to one", "GET", "/containers/x/attach/ws?stream=1", "")
	_, in := r.dial("GET /containers/x/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if head := r.head(in); !strings.HasPrefix(head, "HTTP/1.1 400 ") {
		t.Errorf("without a key: %q", head)
	}
	r.containers.err = fault.New(fault.NotFound, "No such container: x")
	r.want(404, "No such container: x", "GET", "/containers/x/attach/ws", "", "Connection: Upgrade", "Upgrade: websocket")
}

func TestAttachErrorsAreAnswers(t *testing.T) {
	r := newRig(t)
	r.containers.err = fault.New(fault.NotFound, "No such container: x")
	r.want(404, "No such container: x", "POST", "/containers/x/attach?stream=1", "", "Connection: Upgrade", "Upgrade: tcp")
	r.want(404, "No such container: x", "POST", "/exec/x/start", "{}", "Connection: Upgrade", "Upgrade: tcp")
}

func TestExecStart(t *testing.T) {
	r := newRig(t)
	r.containers.serve = func(conn net.Conn, buffered []byte) { io.WriteString(conn, "ran") }
	body := `{"Detach":false,"Tty":true,"ConsoleSize":[24,80]}`
	request := func(version, body string) string {
		return fmt.Sprintf("POST /%s/exec/e1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", version, len(body), body)
	}
	r.containers.tty = true
	_, in := r.dial(request("v1.42", body))
	if head := r.head(in); !strings.HasPrefix(head, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n") {
		t.Errorf("%q", head)
	}
	if out, _ := io.ReadAll(in); string(out) != "ran" {
		t.Errorf("%q", out)
	}
	if o := r.containers.execOpts; !o.TTY || o.ConsoleSize == nil || *o.ConsoleSize != [2]uint{24, 80} {
		t.Errorf("%+v", o)
	}
	_, in = r.dial(request("v1.41", body))
	r.head(in)
	if o := r.containers.execOpts; o.ConsoleSize != nil {
		t.Errorf("1.41: %+v", o)
	}

	// What is wrong before there is a stream is the answer.
	r.containers.err = fault.New(fault.Invalid, "unable to find user foo: no matching entries in passwd file")
	for _, body := range []string{`{}`, `{"Detach":true}`} {
		r.want(400, "unable to find user foo: no matching entries in passwd file", "POST", "/exec/e1/start", body, "Connection: Upgrade", "Upgrade: tcp")
	}
	r.containers.err = nil
	if status, _, text := r.do("POST", "/exec/e1/start", `{"Detach":true}`); status != 200 || text != "" {
		t.Errorf("%d %q", status, text)
	}
}

func TestExecStartsWithItsCreation(t *testing.T) {
	r := newRig(t)
	r.containers.serve = func(conn net.Conn, buffered []byte) { io.WriteString(conn, "ran") }
	const body = `{"Cmd":["true"]}`
	request := fmt.Sprintf("POST /v1.56/containers/x/exec?start=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_, in := r.dial(request)
	if head := r.head(in); !strings.HasPrefix(head, "HTTP/1.1 101 UPGRADED\r\n") || !strings.Contains(head, "\r\nExec-Id: e1\r\n") {
		t.Errorf("%q", head)
	}
	if out, _ := io.ReadAll(in); string(out) != "ran" || r.containers.call != "exec start e1" || !r.containers.execOpts.Exit {
		t.Errorf("%q, %s, %+v", out, r.containers.call, r.containers.execOpts)
	}

	// It does not where a plugin is to be asked about the start, nor for others' clients.
	r.want(201, "", "POST", "/containers/x/exec?start=1", body)
	r.authorizers.names = []string{"p"}
	r.want(201, "", "POST", "/containers/x/exec?start=1", body, "Connection: Upgrade", "Upgrade: tcp")
	if r.containers.call != "exec x true" {
		t.Error(r.containers.call)
	}
}

// FuzzBodies sends anything as path, query and body: the server answers, and
// never by a panic's 500.
func FuzzBodies(f *testing.F) {
	for _, seed := range [][3]string{
		{"/containers/create", "name=x&platform=linux", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind"}],"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}},"NetworkingConfig":{"EndpointsConfig":{"bridge":null}}}`},
		{"/v1.24/containers/create", "", `{"MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"x"},"Cmd":"a"}`},
		{"/containers/x/exec", "", `{"Cmd":["a"],"ConsoleSize":[1,2]}`},
		{"/v1.30/containers/x/stop", "t=3", ``},
		{"/images/create", "fromSrc=-&repo=a@b&changes=x", "tar"},
		{"/images/a/b/tag", "repo=x&tag=:", ""},
		{"/containers/x/resize", "h=-99999999999&w=1", ""},
		{"/auth", "filters={", "[]"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	s := (&rig{}).handler()
	f.Fuzz(func(t *testing.T, path, query, body string) {
		for _, method := range []string{"POST", "GET", "DELETE"} {
			r := httptest.NewRequest(method, "/", strings.NewReader(body))
			r.URL.Path, r.URL.RawQuery = path, query
			r.Header.Set("Content-Type", "application/json")
			if strings.HasSuffix(path, "/events") || strings.HasSuffix(path, "/wait") || strings.HasSuffix(path, "/logs") || strings.Contains(path, "panic") {
				continue // these last as long as their client, or panic by design
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError && strings.Contains(w.Body.String(), errPanicked.Error()) {
				t.Fatalf("%s %q?%q with %q panics", method, path, query, body)
			}
		}
	})
}
