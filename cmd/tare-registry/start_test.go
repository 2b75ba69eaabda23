package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote"
)

// TestMain lets start run this program as the registry.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestInTheBackground(t *testing.T) {
	state, root := filepath.Join(t.TempDir(), "state"), t.TempDir()
	command := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), &out, io.Discard, append(args, "--exec-root", state))
		return out.String(), err
	}
	if out, err := command("status"); !errors.Is(err, fault.NotFound) {
		t.Fatalf("%s, %v", out, err)
	}
	// A descriptor that is inherited does not live on in the background.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	started, err := command("start", "--root", root, "--addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer command("stop")
	unix.Close(pipe[1])
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	unix.Close(pipe[0])
	m := regexp.MustCompile(`^started: http://(\S+) \(process \d+, log \S+\)\n$`).FindStringSubmatch(started)
	if m == nil {
		t.Fatal(started)
	}
	r := &running{host: m[1]}
	repo := r.repository(t, "a", remote.Credentials{})
	if err := push(t.Context(), repo, "layer", "v1"); err != nil {
		t.Error(err)
	}
	for verb, before := range map[string]string{"status": "running: ", "start": "is running already: "} {
		if out, err := command(verb); err != nil || out != before+strings.TrimPrefix(started, "started: ") {
			t.Errorf("%s: %s, %v", verb, out, err)
		}
	}
	if out, err := command("stop"); err != nil || out != "stopped\n" {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := command("stop"); !errors.Is(err, fault.NotFound) {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := command("start", "--root", root, "--addr", "192.0.2.1:5000"); err == nil || !strings.HasPrefix(err.Error(), "cannot listen on 192.0.2.1:5000") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := command("start", "--root", root); !errors.Is(err, fault.Forbidden) {
		t.Errorf("a directory that everybody writes to: %v", err)
	}
}
