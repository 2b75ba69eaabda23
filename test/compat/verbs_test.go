package compat

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

// The files in verbs/ are lines for a shell in which docker is, in turn: Docker's client
// with Docker's daemon, the same client with ours, and tare, called docker, with another of
// ours. What each prints, to either stream, and its exit code are to be the same, after
// names that nobody chose, times, sizes and addresses have been made so. A line that begins
// with two spaces goes on with the one before. A line is
//
//	[MARKS]COMMANDS
//
// The marks are for what differs: ! our daemon and % our client on purpose, as decision
// 045 has it: such a line fails when it no longer does. With * only the clients are
// compared, with - only the exit codes. Ports that begin with 18 are each column's own.

// TestVerbs has both clients and both daemons do the same.
func TestVerbs(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	place := sid.New(t)
	theirs := place.Programs(t, "docker")
	ours := t.TempDir()
	first, second := daemon.Start(t), daemon.Start(t)
	if err := os.Symlink(first.Program("tare"), filepath.Join(ours, "docker")); err != nil {
		t.Fatal(err)
	}
	first.ImportBusybox(t)
	second.ImportBusybox(t)
	archive, err := first.Command(t, "tare", "save", "busybox").Output()
	if err != nil {
		t.Fatal(err)
	}
	columns := []*column{
		{name: "Docker's client with its daemon", path: theirs, host: place.Dockerd(t), ports: "18"},
		{name: "Docker's client with our daemon", path: theirs, host: first.Host, ports: "28"},
		{name: "our client with our daemon", path: ours, host: second.Host, ports: "38"},
	}
	for _, c := range columns {
		c.dir, c.config = t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(c.dir, "busybox.tar"), archive, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, ready := range []string{"docker load -q -i busybox.tar", "docker rmi hello", "docker rmi hello"} { // ours begins with an image
		if a := columns[i].run(ready); a.code != 0 {
			t.Fatal(a)
		}
	}
	tables, err := filepath.Glob("verbs/*.txt")
	if err != nil || len(tables) == 0 {
		t.Fatal("there are no tables", err)
	}
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(table), ".txt"), func(t *testing.T) { compareVerbs(t, columns, verbLines(string(text))) })
	}
}

// verbLines are the lines of a table, without comments.
func verbLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "  "):
			lines[len(lines)-1] += "\n" + strings.TrimSpace(line)
		case strings.TrimSpace(line) != "" && line[0] != '#':
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// compareVerbs runs the lines in each column, all columns at once, and compares.
func compareVerbs(t *testing.T, columns []*column, lines []string) {
	t.Helper()
	said := make([][]printed, len(columns))
	var wait sync.WaitGroup
	for i, c := range columns {
		wait.Go(func() {
			begin := time.Now()
			for _, line := range lines {
				said[i] = append(said[i], c.run(strings.TrimLeft(line, "!%-*")))
			}
			t.Logf("%s took %v", c.name, time.Since(begin).Round(time.Second))
		})
	}
	wait.Wait()
	for i, line := range lines {
		mark := line[:len(line)-len(strings.TrimLeft(line, "!%-*"))]
		command := line[len(mark):]
		want, got, own := said[0][i], said[1][i], said[2][i]
		if strings.Contains(mark, "-") {
			want.out, want.err, got.out, got.err, own.out, own.err = "", "", "", "", "", ""
		}
		if strings.Contains(mark, "*") {
			want = got
		}
		checkVerb(t, strings.Contains(mark, "!"), command, "our daemon", got, want)
		checkVerb(t, strings.Contains(mark, "%"), command, "our client", own, got)
	}
}

func checkVerb(t *testing.T, meant bool, command, who string, got, want printed) {
	t.Helper()
	switch {
	case meant && got == want:
		t.Errorf("%s\n\tis answered by %s as by Docker's: %s", command, who, got)
	case !meant && got != want:
		t.Errorf("%s\n\t%s: %s\n\twant: %s", command, who, got, want)
	}
}

// printed is what a line left of itself.
type printed struct {
	code     int
	out, err string
}

func (p printed) String() string {
	return fmt.Sprintf("exit code %d\n\t\t%s\n\t\terrors: %s", p.code, strings.ReplaceAll(p.out, "\n", "\n\t\t"), strings.ReplaceAll(p.err, "\n", "\n\t\t"))
}

// column is a client with a daemon.
type column struct {
	name, path, host, dir, config string
	ports                         string // with what the host's ports begin
}

var ownPort = regexp.MustCompile(`\b18(\d\d\d)\b`)

// run runs a line in the column's directory.
func (c *column) run(line string) printed {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", ownPort.ReplaceAllString(line, c.ports+"$1"))
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PATH="+c.path+":"+os.Getenv("PATH"), "DOCKER_HOST="+c.host, "DOCKER_CONFIG="+c.config, "HOME="+c.dir, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return printed{cmd.ProcessState.ExitCode(), c.plain(out.String()), c.plain(errs.String())}
}

// chance is what differs in any two runs, and what stands for it.
var chance = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`/tmp/tare-(sid|TestVerbs)-\d+`), "ROOT"},
	{regexp.MustCompile(`\bSRun '`), "Run '"}, // Docker 28's slip
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?Z| ?[+-]\d\d:?\d\d)?( UTC)?`), "TIME"},
	{regexp.MustCompile(`Less than a second|About an? \w+|\b\d+ (second|minute|hour)s?\b`), "SPAN"},
	{regexp.MustCompile(`\b[\d.]+ ?([kMGT]|[KMGT]i)?B\b`), "SIZE"},
	{regexp.MustCompile(`\b[\d.]+%`), "PART"},
	{regexp.MustCompile(`\b(1[0-689]|1[1-9]\d|[2-9]\d|2\d\d)(\.\d+){3}\b`), "ADDRESS"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "MAC"},
	{regexp.MustCompile(`\b\d+(\.\d+)?ms\b`), "MS"},
	{regexp.MustCompile(`  +|\t`), "  "},
	{regexp.MustCompile(`(?m)[ \r]+$`), ""},
	{regexp.MustCompile(`: (tarerun|runc) create`), ": RUNTIME create"},
}

// plain is a text without what is the column's own or chance.
func (c *column) plain(text string) string {
	own := regexp.MustCompile(`\b` + c.ports + `(\d\d\d)\b`)
	text = own.ReplaceAllString(text, "18$1")
	text = strings.NewReplacer(c.dir, "DIR", c.config, "CONFIG", c.host, "HOST").Replace(text)
	for _, r := range chance {
		text = r.pattern.ReplaceAllString(text, r.as)
	}
	return text
}
