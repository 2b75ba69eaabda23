package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestOutputIsWhole compares what run, start -a, exec and logs print with what the
// process wrote, of many at once and by each client that is there. With TARE_SOAK
// set there are three thousand, on a machine that has more to do than it can.
func TestOutputIsWhole(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "long", "--network", "none", "busybox", "sleep", "100000")
	clients := []string{d.Program("tare")}
	if docker, err := exec.LookPath("docker"); err == nil {
		clients = append(clients, docker)
	}
	rounds := 2 * len(clients) * len(outputs)
	if os.Getenv("TARE_SOAK") != "" {
		rounds = 3000
		for range 2 * runtime.NumCPU() {
			d.Tare(t, "run", "-d", "--network", "none", "busybox", "sh", "-c", "while :; do :; done")
		}
	}
	var next atomic.Int64
	all(t, 16, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= rounds {
				return nil
			}
			o := outputs[i/len(clients)%len(outputs)]
			if err := o.check(d, clients[i%len(clients)]); err != nil {
				t.Error(err)
			}
		}
	})
}

// large is what pipes and sockets do not hold.
var large = strings.Repeat("0123456789abcdef\n", 1<<16)

const writeLarge = "yes 0123456789abcdef | head -n 65536"

// outputs are commands with what they are to print.
var outputs = []outputCase{
	{args: "run --rm", script: "echo $$; echo err >&2", out: "1\n", err: "err\n"},
	{args: "run --rm -t", script: "echo $$", out: "1\r\n"},
	{args: "run --rm -i", script: "cat; echo err >&2", in: "input", out: "input", err: "err\n"},
	{args: "run --rm", script: writeLarge, out: large},
	{args: "run --rm -t", script: writeLarge, out: strings.ReplaceAll(large, "\n", "\r\n")},
	{args: "run --rm -i", script: "cat", in: large, out: large},
	{args: "create", script: "echo $$; echo err >&2", out: "1\n", err: "err\n"},
	{args: "exec", script: "echo out; echo err >&2", out: "out\n", err: "err\n"},
	{args: "exec -t", script: "echo out", out: "out\r\n"},
	{args: "exec -i", script: "cat", in: large, out: large},
}

type outputCase struct{ args, script, in, out, err string }

// check has a client do it. A container that is created is started with its
// streams, twice, and its log is read as soon as it has ended.
func (o outputCase) check(d *daemon.Daemon, client string) error {
	args := strings.Fields(o.args)
	switch args[0] {
	case "exec":
		return o.compare(d, client, append(args, "long", "sh", "-c", o.script)...)
	case "run":
		return o.compare(d, client, append(args, "--network", "none", "busybox", "sh", "-c", o.script)...)
	}
	name := fmt.Sprintf("output-%x", rand.Uint64())
	if _, err := d.Try("create", "--name", name, "--network", "none", "busybox", "sh", "-c", o.script); err != nil {
		return err
	}
	if err := o.compare(d, client, "start", "-a", name); err != nil {
		return err
	}
	if err := o.compare(d, client, "logs", name); err != nil {
		return err
	}
	if err := o.compare(d, client, "start", "-a", name); err != nil {
		return err
	}
	_, err := d.Try("rm", "-f", name)
	return err
}

// compare runs the client.
func (o outputCase) compare(d *daemon.Daemon, client string, args ...string) error {
	cmd := exec.Command(client, args...)
	cmd.Env = d.Env()
	if o.in != "" {
		cmd.Stdin = strings.NewReader(o.in)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil || out.String() != o.out || errOut.String() != o.err {
		return fmt.Errorf("%s %s: %w; %d bytes of %d came, and %q of %q", client, strings.Join(args, " "), err, out.Len(), len(o.out), tail(errOut.String()), o.err)
	}
	return nil
}

func tail(s string) string { return s[max(0, len(s)-200):] }
