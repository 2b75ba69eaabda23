package cli_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// container makes the fake run one container: serve is its process.
func (f *fake) container(code int, serve func(c net.Conn, r io.Reader)) {
	started, ended := make(chan struct{}), make(chan struct{})
	f.on("POST /containers/create", 201, map[string]any{"Id": "c1", "Warnings": []string{"careful"}})
	f.handle("POST /containers/c1/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-ended:
			w.Write([]byte(`{"StatusCode":` + string(rune('0'+code)) + `}`))
		case <-r.Context().Done():
		}
	})
	f.handle("POST /containers/c1/attach", func(w http.ResponseWriter, _ *http.Request) {
		hijack(f.t, w, func(c net.Conn, r io.Reader) {
			<-started
			serve(c, r)
			close(ended)
		})
	})
	f.handle("POST /containers/c1/start", func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		w.WriteHeader(204)
	})
}

func TestRunForeground(t *testing.T) {
	f := newFake(t)
	f.container(3, func(c net.Conn, r io.Reader) {
		in, _ := io.ReadAll(r) // until the client closes its half
		frame(c, 1, "out "+string(in))
		frame(c, 2, "err\n")
		frame(c, 1, "more\n")
	})
	r := f.call(strings.NewReader("typed\n"), "run", "-i", "--rm", "img", "cmd")
	want := result{3, "out typed\nmore\n", "WARNING: careful\nerr\n"}
	if r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	asked := f.asked()
	slices.Sort(asked[1:3])
	if diff := cmp.Diff([]string{"POST /containers/create", "POST /containers/c1/attach?stderr=1&stdin=1&stdout=1&stream=1",
		"POST /containers/c1/wait?condition=removed", "POST /containers/c1/start"}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestRunNegotiates(t *testing.T) {
	f := newFake(t)
	f.version = "1.41"
	f.container(0, func(c net.Conn, _ io.Reader) { frame(c, 1, "hi\n") })
	if r := f.call(nil, "run", "img"); r.code != 0 || r.out != "hi\n" {
		t.Errorf("%+v", r)
	}
}

func TestRunWithInputAlone(t *testing.T) {
	f := newFake(t)
	end := make(chan struct{})
	f.container(7, func(c net.Conn, r io.Reader) { io.ReadAll(r); <-end }) // goes on after its input
	r := f.call(strings.NewReader("typed"), "run", "-i", "-a", "stdin", "img")
	close(end)
	if r != (result{0, "c1\n", "WARNING: careful\n"}) {
		t.Errorf("%+v", r)
	}
}

func TestRunDetached(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/create", 201, map[string]any{"Id": "c1"})
	f.on("POST /containers/c1/start", 204, nil)
	file := filepath.Join(t.TempDir(), "cid")
	if r := f.call(nil, "run", "-d", "--cidfile", file, "img"); r != (result{0, "c1\n", ""}) {
		t.Errorf("%+v", r)
	}
	if id, _ := os.ReadFile(file); string(id) != "c1" {
		t.Errorf("the file holds %q", id)
	}
	if r := f.call(nil, "run", "-d", "--cidfile", file, "img"); r.code != 125 || !strings.Contains(r.err, "container ID file found") {
		t.Errorf("%+v", r)
	}
}

func TestRunErrors(t *testing.T) {
	start := "failed to create task for container: failed to create shim task: OCI runtime create failed: tarerun create failed: unable to start container process: error during container init: exec: "
	for name, c := range map[string]struct {
		status  int
		message string
		code    int
	}{
		"not found":  {400, start + `"foo": executable file not found in $PATH`, 127},
		"no file":    {400, start + `"/foo": stat /foo: no such file or directory`, 127},
		"permission": {400, start + `"/foo": permission denied`, 126},
		"directory":  {400, start + `"/etc": is a directory`, 126},
		"port":       {500, "driver failed programming external connectivity: address already in use", 125},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.on("POST /containers/create", 201, map[string]any{"Id": "c1"})
			f.on("POST /containers/c1/wait", 200, map[string]any{"StatusCode": 0})
			f.handle("POST /containers/c1/attach", func(w http.ResponseWriter, _ *http.Request) {
				hijack(t, w, func(_ net.Conn, r io.Reader) { io.ReadAll(r) })
			})
			f.handle("POST /containers/c1/start", func(w http.ResponseWriter, _ *http.Request) { fail(w, c.status, c.message) })
			for _, args := range [][]string{{"run", "img"}, {"run", "-d", "img"}, {"run", "--rm", "img"}} {
				want := "tare: Error response from daemon: " + c.message + "\n\nRun 'tare run --help' for more information\n"
				if r := f.call(nil, args...); r.code != c.code || r.err != want {
					t.Errorf("%q: %+v", args, r)
				}
			}
		})
	}
}

// A daemon that does not know when it was built shows no empty line.
func TestVersionWithoutBuildTime(t *testing.T) {
	f := newFake(t)
	engine := map[string]string{"ApiVersion": "1.56", "BuildTime": ""}
	f.on("GET /version", 200, map[string]any{"Components": []map[string]any{{"Name": "Engine", "Version": "1", "Details": engine}}})
	if r := f.call(nil, "version"); r.code != 0 || !strings.Contains(r.out, "Engine") || strings.Contains(r.out, "Built") {
		t.Errorf("%+v", r)
	}
	engine["BuildTime"] = "2026-11-26T22:08:07Z"
	f.on("GET /version", 200, map[string]any{"Components": []map[string]any{{"Name": "Engine", "Version": "1", "Details": engine}}})
	if r := f.call(nil, "version"); !strings.Contains(r.out, "Built:            Thu Nov 26 22:08:07 2026") {
		t.Errorf("%+v", r)
	}
}

func TestRunMissingImage(t *testing.T) {
	f := newFake(t)
	f.handle("POST /containers/create", func(w http.ResponseWriter, _ *http.Request) { fail(w, 404, "No such image: x:latest") })
	f.handle("POST /images/create", func(w http.ResponseWriter, _ *http.Request) { fail(w, 501, "pulling is not supported yet") })
	want := "Unable to find image 'x:latest' locally\ntare: Error response from daemon: pulling is not supported yet\n\nRun 'tare run --help' for more information\n"
	if r := f.call(nil, "run", "x"); r != (result{125, "", want}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "run", "--pull", "never", "x"); r.code != 125 || strings.Contains(r.err, "Unable") {
		t.Errorf("%+v", r)
	}
	if got := f.asked()[1]; got != "POST /images/create?fromImage=docker.io%2Flibrary%2Fx&tag=latest" {
		t.Error(got)
	}
}

// What cannot be is refused before the daemon is asked.
func TestRefusedHere(t *testing.T) {
	f := newFake(t)
	for want, args := range map[string][]string{
		`"foo:" is not a valid repository/tag: invalid reference format`: {"tag", "x", "foo:"},
		"failed to save image: invalid output path: ":                    {"save", "-o", "/nosuch/x.tar", "x"},
		"must be a file, not a directory":                                {"save", "-o", f.t.TempDir(), "x"},
	} {
		if r := f.call(nil, args...); r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Errorf("asked %q", asked)
	}
}

func TestExec(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/web/exec", 201, map[string]any{"Id": "e1"})
	f.on("GET /exec/e1/json", 200, map[string]any{"ID": "e1", "ExitCode": 7})
	f.handle("POST /exec/e1/start", func(w http.ResponseWriter, _ *http.Request) {
		hijack(t, w, func(c net.Conn, r io.Reader) {
			in, _ := io.ReadAll(r)
			frame(c, 1, string(in))
			frame(c, 2, "e")
		})
	})
	if r := f.call(strings.NewReader("in"), "exec", "-i", "-e", "A=1", "web", "cat", "-n"); r != (result{7, "in", "e"}) {
		t.Errorf("%+v", r)
	}
	body := string(f.body("POST /containers/web/exec"))
	if !strings.Contains(body, `"Cmd":["cat","-n"]`) || !strings.Contains(body, `"Env":["A=1"]`) || !strings.Contains(body, `"AttachStdin":true`) {
		t.Error(body)
	}
	f.handle("POST /exec/e1/start", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, 400, `exec: "nope": executable file not found in $PATH`)
	})
	if r := f.call(nil, "exec", "web", "nope"); r.code != 127 || r.out != "" {
		t.Errorf("%+v", r)
	}
}

// TestDetach types the detach keys on a terminal: the program ends at once and
// leaves the container alone.
func TestDetach(t *testing.T) {
	user, program := terminal(t)
	f := newFake(t)
	before := echo(t, program)
	gone := make(chan string, 1)
	f.container(0, func(c net.Conn, r io.Reader) {
		io.WriteString(c, "prompt")
		buf := make([]byte, 16)
		got := ""
		for !strings.HasSuffix(got, "\x10\x11") {
			n, err := r.Read(buf)
			if err != nil {
				break
			}
			got += string(buf[:n])
		}
		gone <- got
		c.Close()
		<-t.Context().Done() // the container goes on
	})
	f.on("POST /containers/c1/resize", 200, nil)
	done := make(chan result, 1)
	go func() { done <- f.callTerminal(program, "run", "-it", "img") }()
	read(t, user, "prompt")
	io.WriteString(user, "ls\x10\x11")
	select {
	case r := <-done:
		if r.code != 0 {
			t.Errorf("%+v", r)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the program goes on after the detach keys")
	}
	if got := <-gone; got != "ls\x10\x11" {
		t.Errorf("the daemon got %q", got)
	}
	if echo(t, program) != before {
		t.Error("the terminal was not restored")
	}
}

func TestTerminalIsNeeded(t *testing.T) {
	f := newFake(t)
	if r := f.call(strings.NewReader(""), "run", "-it", "img"); r != (result{1, "", "the input device is not a TTY\n"}) {
		t.Errorf("%+v", r)
	}
	if len(f.asked()) != 0 {
		t.Error("the daemon was asked")
	}
}

func TestStartAttached(t *testing.T) {
	f := newFake(t)
	f.container(4, func(c net.Conn, _ io.Reader) { frame(c, 1, "x\n") })
	f.on("GET /containers/web/json", 200, map[string]any{"Id": "c1", "Config": map[string]any{}})
	if r := f.call(nil, "start", "-a", "web"); r != (result{4, "x\n", ""}) {
		t.Errorf("%+v", r)
	}
	if got := f.asked(); !slices.Contains(got, "POST /containers/c1/wait?condition=next-exit") {
		t.Error(got)
	}
}

func TestAttach(t *testing.T) {
	f := newFake(t)
	f.container(5, func(c net.Conn, r io.Reader) { io.ReadAll(r); frame(c, 2, "bye\n") })
	f.call(nil, "start", "c1")
	state := map[string]any{"Id": "c1", "Config": map[string]any{"OpenStdin": true}, "State": map[string]any{"Running": true}}
	f.on("GET /containers/web/json", 200, state)
	f.on("GET /containers/c1/json", 200, state)
	if r := f.call(strings.NewReader("x"), "attach", "web"); r != (result{5, "", "bye\n"}) {
		t.Errorf("%+v", r)
	}
	state["State"] = map[string]any{"Running": false}
	if r := f.call(nil, "attach", "web"); r.code != 1 || !strings.Contains(r.err, "cannot attach to a stopped container") {
		t.Errorf("%+v", r)
	}
}

func TestAttachAfterTheEnd(t *testing.T) {
	f := newFake(t)
	var ended atomic.Bool
	f.handle("GET /containers/web/json", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Id":"c1","State":{"Running":true}}`)
	})
	f.handle("GET /containers/c1/json", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"Id":"c1","State":{"Running":%v}}`, !ended.Load())
	})
	f.on("POST /containers/c1/wait", 200, map[string]int{"StatusCode": 4})
	f.handle("POST /containers/c1/attach", func(w http.ResponseWriter, _ *http.Request) {
		ended.Store(true) // between the two
		hijack(t, w, func(_ net.Conn, r io.Reader) { io.Copy(io.Discard, r) })
	})
	if r := f.call(nil, "attach", "web"); r != (result{4, "", ""}) {
		t.Errorf("%+v", r)
	}
}

func TestStopAllAtOnce(t *testing.T) {
	f := newFake(t)
	var arrived sync.WaitGroup
	arrived.Add(3)
	for _, name := range []string{"a", "b", "c"} {
		f.handle("POST /containers/"+name+"/stop", func(w http.ResponseWriter, _ *http.Request) {
			arrived.Done()
			arrived.Wait() // for the others
			w.WriteHeader(204)
		})
	}
	if r := f.call(nil, "stop", "a", "b", "c", "d"); r.code != 1 || r.out != "a\nb\nc\n" || !strings.Contains(r.err, "POST /containers/d/stop") {
		t.Errorf("%+v", r)
	}
}

// A daemon that can starts the exec with its creation, and tells how it ended
// behind the output: nothing else is asked.
func TestExecAtOnce(t *testing.T) {
	f := newFake(t)
	f.handle("POST /containers/web/exec", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("start") != "1" {
			t.Error(r.URL)
		}
		hijack(t, w, func(c net.Conn, _ io.Reader) {
			frame(c, 1, "out")
			frame(c, 4, "\x00\x00\x00\x89")
		})
	})
	if r := f.call(nil, "exec", "web", "sh"); r != (result{137, "out", ""}) {
		t.Errorf("%+v", r)
	}
	if asked := f.asked(); len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
}
