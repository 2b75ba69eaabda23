package cli_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/cli"
)

// lines answers with the messages of a stream.
func lines(messages ...map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		e := json.NewEncoder(w)
		for _, m := range messages {
			e.Encode(m)
		}
	}
}

type detail map[string]int64

var pulled = lines(map[string]any{"status": "Pulling from library/x", "id": "latest"},
	map[string]any{"status": "Pulling fs layer", "progressDetail": detail{}, "id": "aaaaaaaaaaaa"},
	map[string]any{"status": "Downloading", "progressDetail": detail{"current": 100, "total": 1000}, "progress": "[=> ]", "id": "aaaaaaaaaaaa"},
	map[string]any{"status": "Pull complete", "progressDetail": detail{}, "id": "aaaaaaaaaaaa"},
	map[string]any{"status": "Digest: sha256:d"}, map[string]any{"status": "Status: Downloaded newer image for x:latest"})

const pulledText = "latest: Pulling from library/x\naaaaaaaaaaaa: Pulling fs layer\naaaaaaaaaaaa: Pull complete\n" +
	"Digest: sha256:d\nStatus: Downloaded newer image for x:latest\n"

// The texts, codes and requests are those that Docker's client 28.2 gives for the
// same answers.
func TestPull(t *testing.T) {
	digest := "sha256:" + strings.Repeat("d", 64)
	for args, want := range map[string]struct {
		result
		asked string
	}{
		"pull x":                                 {result{0, "Using default tag: latest\n" + pulledText + "docker.io/library/x:latest\n", ""}, "fromImage=docker.io%2Flibrary%2Fx&tag=latest"},
		"pull x:1":                               {result{0, pulledText + "docker.io/library/x:1\n", ""}, "fromImage=docker.io%2Flibrary%2Fx&tag=1"},
		"image pull -q reg.example/x":            {result{0, "reg.example/x:latest\n", ""}, "fromImage=reg.example%2Fx&tag=latest"},
		"pull --disable-content-trust=false x:1": {result{0, pulledText + "docker.io/library/x:1\n", ""}, "fromImage=docker.io%2Flibrary%2Fx&tag=1"},
		"pull -a x":                              {result{0, pulledText + "docker.io/library/x\n", ""}, "fromImage=docker.io%2Flibrary%2Fx"},
		"pull --platform Linux/ARM64 x:1":        {result{0, pulledText + "docker.io/library/x:1\n", ""}, "fromImage=docker.io%2Flibrary%2Fx&platform=linux%2Farm64&tag=1"},
		"pull x@" + digest:                       {result{0, pulledText + "docker.io/library/x@" + digest + "\n", ""}, "fromImage=docker.io%2Flibrary%2Fx&tag=sha256%3A" + digest[7:]},
		"pull -a x:1":                            {result{1, "", "tag can't be used with --all-tags/-a\n"}, ""},
		"pull UPPER":                             {result{1, "", "invalid reference format: repository name (library/UPPER) must be lowercase\n"}, ""},
	} {
		f := newFake(t)
		f.handle("POST /images/create", pulled)
		if r := f.call(nil, strings.Fields(args)...); r != want.result {
			t.Errorf("%s: %+v\nwant %+v", args, r, want.result)
		}
		asked := strings.TrimPrefix(strings.Join(f.asked(), " "), "POST /images/create?")
		if asked != want.asked {
			t.Errorf("%s asked %s", args, asked)
		}
		if auth := f.auth("POST /images/create"); want.asked != "" && auth != "{}" {
			t.Errorf("%s: %q", args, auth)
		}
	}
}

func TestPullFails(t *testing.T) {
	f := newFake(t)
	const denied = "pull access denied for x, repository does not exist or may require 'docker login'"
	f.handle("POST /images/create", func(w http.ResponseWriter, _ *http.Request) { fail(w, 404, denied) })
	if r := f.call(nil, "pull", "x:1"); r != (result{1, "", "Error response from daemon: " + denied + "\n"}) {
		t.Errorf("%+v", r)
	}
	f.handle("POST /images/create", lines(map[string]any{"status": "Pulling from library/x", "id": "1"},
		map[string]any{"errorDetail": map[string]any{"message": "unexpected EOF"}, "error": "unexpected EOF"}))
	if r := f.call(nil, "pull", "x:1"); r != (result{1, "1: Pulling from library/x\n", "unexpected EOF\n"}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "run", "--pull", "always", "x:1"); r.code != 125 || r.out != "" ||
		r.err != "1: Pulling from library/x\ntare: unexpected EOF\n\nRun 'tare run --help' for more information\n" {
		t.Errorf("%+v", r)
	}
}

// A missing image is pulled once, on stderr; stdout has the container's ID.
func TestCreatePulls(t *testing.T) {
	for args, want := range map[string]result{
		"create x":                        {0, "c1\n", "Unable to find image 'x:latest' locally\n" + pulledText},
		"create -q x":                     {0, "c1\n", ""},
		"create --pull always x":          {0, "c1\n", pulledText},
		"run -d --platform linux/arm64 x": {0, "c1\n", "Unable to find image 'x:latest' locally\n" + pulledText},
		"create --pull never x":           {1, "", "Error response from daemon: No such image: x:latest\n"},
	} {
		f := newFake(t)
		here, missing := false, "No such image: x:latest"
		if strings.Contains(args, "platform") { // another platform's is there
			missing = "image with reference x:latest was found but does not provide the specified platform (linux/arm64)"
		}
		f.handle("POST /images/create", func(w http.ResponseWriter, r *http.Request) { here = true; pulled(w, r) })
		f.handle("POST /containers/create", func(w http.ResponseWriter, _ *http.Request) {
			if !here {
				fail(w, 404, missing)
				return
			}
			w.WriteHeader(201)
			io.WriteString(w, `{"Id":"c1"}`)
		})
		f.on("POST /containers/c1/start", 204, nil)
		if r := f.call(nil, strings.Fields(args)...); r != want {
			t.Errorf("%s: %+v\nwant %+v", args, r, want)
		}
		if strings.Contains(args, "platform") && !strings.Contains(strings.Join(f.asked(), " "), "platform=linux%2Farm64&tag=latest") {
			t.Error(f.asked())
		}
	}
}

func TestPush(t *testing.T) {
	digest := "sha256:" + strings.Repeat("e", 64)
	const text = "The push refers to repository [localhost:5000/x]\na: Preparing\na: Pushed\nlatest: digest: sha256:e size: 528\n"
	const onePlatform = "\n Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.\n" +
		"         Other components, like attestations, will not be included.\n         To push the complete multi-platform image, remove the --platform flag.\n\n"
	for args, want := range map[string]struct {
		result
		asked string
	}{
		"push localhost:5000/x":                                            {result{0, "Using default tag: latest\n" + text, ""}, "tag=latest"},
		"push -q localhost:5000/x:1":                                       {result{0, "localhost:5000/x:1\n", ""}, "tag=1"},
		"image push -a localhost:5000/x":                                   {result{0, text, ""}, ""},
		"push --platform linux/arm64 localhost:5000/x:1":                   {result{0, onePlatform + text, ""}, "platform=%7B%22architecture%22%3A%22arm64%22%2C%22os%22%3A%22linux%22%7D&tag=1"},
		"push --compression zstd --compression-level 3 localhost:5000/x:1": {result{0, text, ""}, "compression=zstd&compression-level=3&tag=1"},
		"push --compression none localhost:5000/x:1":                       {result{0, text, ""}, "compression=none&tag=1"},
		"push --compression lzma localhost:5000/x":                         {result{1, "", "invalid --compression \"lzma\": must be one of \"gzip\", \"zstd\" or \"none\"\n"}, "-"},
		"push --compression gzip --compression-level 10 localhost:5000/x":  {result{1, "", "invalid --compression-level 10: gzip takes 1 to 9\n"}, "-"},
		"push --compression-level 1 localhost:5000/x":                      {result{1, "", "--compression-level needs --compression gzip or zstd\n"}, "-"},
		"push --platform a//b localhost:5000/x":                            {result{1, "", "invalid platform: \"a//b\": cannot parse platform specifier: use os[/arch[/variant]]\n"}, "-"},
	} {
		f := newFake(t)
		f.handle("POST /images/localhost:5000/x/push", lines(map[string]any{"status": "The push refers to repository [localhost:5000/x]"},
			map[string]any{"status": "Preparing", "progressDetail": detail{}, "id": "a"}, map[string]any{"status": "Pushing", "progressDetail": detail{"current": 1}, "id": "a"},
			map[string]any{"status": "Pushed", "progressDetail": detail{}, "id": "a"}, map[string]any{"status": "latest: digest: sha256:e size: 528"},
			map[string]any{"progressDetail": detail{}, "aux": map[string]any{"Tag": "latest", "Digest": digest, "Size": 528}}))
		if r := f.call(nil, strings.Fields(args)...); r != want.result {
			t.Errorf("%s: %+v\nwant %+v", args, r, want.result)
		}
		asked := strings.Join(f.asked(), " ")
		if want.asked == "-" && asked != "" || want.asked != "-" && asked != strings.TrimSuffix("POST /images/localhost:5000/x/push?"+want.asked, "?") {
			t.Errorf("%s asked %s", args, asked)
		}
	}
}

// TestMain lets the tests run this program as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("TARE_TEST_MAIN") == "1" {
		f := &fake{host: os.Getenv("TARE_HOST"), config: os.Getenv("DOCKER_CONFIG")}
		s := f.session(os.Stdin, os.Stdout, os.Stderr)
		s.Program = os.Args[0]
		os.Exit(cli.Main(context.Background(), s, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// process starts the program as a process.
func (f *fake) process(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), "TARE_TEST_MAIN=1", "TARE_HOST="+f.host, "DOCKER_CONFIG="+f.config)
	return c
}

// An interrupted pull ends at once, with the code of a program that the signal
// killed, and so does its request.
func TestPullInterrupted(t *testing.T) {
	for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		f := newFake(t)
		asked, gone := make(chan struct{}), make(chan struct{})
		f.handle("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
			lines(map[string]any{"status": "Pulling from library/x", "id": "1"})(w, r)
			w.(http.Flusher).Flush()
			close(asked)
			<-r.Context().Done()
			close(gone)
		})
		c := f.process("pull", "x:1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		c.Process.Signal(signal)
		c.Wait()
		if got := c.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: exit code %d, want %d", signal, got, code)
		}
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Error("the request goes on")
		}
	}
}
