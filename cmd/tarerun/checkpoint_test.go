package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// newCriuBench is a bench whose commands find CRIU, with a directory for images.
func newCriuBench(t *testing.T, args ...string) (b *bench, images string) {
	t.Helper()
	t.Setenv("PATH", filepath.Dir(testutil.CRIU(t))+":"+os.Getenv("PATH"))
	b = newBench(t, args...)
	return b, filepath.Join(t.TempDir(), "images")
}

// must runs tarerun, which is to succeed.
func (b *bench) must(args ...string) string {
	b.t.Helper()
	out, code := b.run(args...)
	if code != 0 {
		b.t.Fatalf("%v: exit code %d: %s", args, code, out)
	}
	return out
}

// runInto is must with the container's output in a file of the caller's.
func (b *bench) runInto(out *os.File, args ...string) {
	b.t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", b.root}, args...)...)
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
	cmd.Dir = b.bundle
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		b.t.Fatal(args, err)
	}
}

// number reads a number that a container writes, -1 for none.
func number(name string) int {
	text, _ := os.ReadFile(name)
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}

// follows waits until a number has grown beyond n.
func follows(t *testing.T, name string, n int) int {
	t.Helper()
	now := -1
	testutil.Eventually(t, 20*time.Second, fmt.Sprintf("%s beyond %d", name, n), func() bool {
		now = number(name)
		return now > n
	})
	return now
}

// counter counts in a volume, with a pipe between two processes, a file that is
// open and has no name any more, and one in a file system of the container's own.
const counter = `exec 5>/gone; rm /gone; echo kept >/dev/shm/kept
count() { i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done; }
count | while read n; do echo $n >/vol/new; cat /vol/new >&5; cat /dev/shm/kept >/vol/kept; busybox mv /vol/new /vol/count; done`

func TestCheckpoint(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", counter)
	volume := t.TempDir()
	b.change(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}})
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/secret")
		limit := int64(100)
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	})
	etc := filepath.Join(b.bundle, "rootfs/etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	count := filepath.Join(volume, "count")
	b.must("run", "-d", b.id)
	n := follows(t, count, 3)

	b.must("checkpoint", "--leave-running", "--image-path", images, b.id)
	follows(t, count, n)
	images += "2"
	b.must("checkpoint", "--image-path", images, "--work-path", images+"-work", b.id)
	if _, err := os.Stat(images + "-work/dump.log"); err != nil {
		t.Error(err)
	}
	if out, code := b.run("state", b.id); code == 0 {
		t.Fatalf("it is there after its checkpoint: %s", out)
	}
	n = number(count)

	pidFile := filepath.Join(b.bundle, "pid")
	b.must("restore", "-d", "--image-path", images, "--pid-file", pidFile, b.id)
	if m := follows(t, count, n); m > n+500 {
		t.Errorf("it went on at %d after %d", m, n)
	}
	if number(pidFile) <= 1 || !strings.Contains(b.must("state", b.id), `"status": "running"`) {
		t.Errorf("pid %d, state %s", number(pidFile), b.must("state", b.id))
	}
	_ = os.Remove(filepath.Join(volume, "kept")) // not before: it may be open in the checkpoint
	testutil.Eventually(t, 10*time.Second, "the file in /dev/shm", func() bool {
		text, _ := os.ReadFile(filepath.Join(volume, "kept"))
		return string(text) == "kept\n"
	})
	kept := filepath.Join(b.bundle, "config.json")
	if err := os.Rename(kept, kept+".gone"); err != nil { // it concerns nobody any more
		t.Fatal(err)
	}
	if out := b.must("exec", b.id, "cat", "/etc/secret"); out != "" {
		t.Errorf("the masked file reads %q", out)
	}
	if err := os.Rename(kept+".gone", kept); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile("/sys/fs/cgroup/pids/" + b.id + "/pids.max"); err == nil && string(text) != "100\n" {
		t.Errorf("pids.max is %s", text)
	}
	// once more, of what was restored, and paused: it stays so until the end
	b.must("pause", b.id)
	b.must("checkpoint", "--leave-running", "--image-path", images+"4", b.id)
	if !strings.Contains(b.must("state", b.id), "paused") {
		t.Error("a checkpoint has unpaused it")
	}
	n = number(count)
	b.must("checkpoint", "--image-path", images+"3", b.id)
	b.must("restore", "-d", "--image-path", images+"3", b.id)
	follows(t, count, n)
}

// A restored container in the foreground gives its exit code, and its output goes
// to the new streams.
func TestRestoreForeground(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", "echo before; while [ ! -e /end ]; do sleep 0.02; done; echo after; exit 7")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b.runInto(w, "run", "-d", b.id)
	w.Close()
	b.must("checkpoint", "--image-path", images, b.id)
	if text, err := io.ReadAll(r); err != nil || string(text) != "before\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "rootfs/end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := b.run("restore", "--image-path", images, b.id)
	if code != 7 || out != "after\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

// A listener and a connection to it, inside the container.
func TestRestoreConnections(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", `busybox nc -l -p 77 -e sh -c 'while read n; do echo $n >/new; busybox mv /new /count; done' &
i=0; while ! busybox netstat -tln | busybox grep -q :77; do sleep 0.02; done
while :; do i=$((i+1)); echo $i; sleep 0.02; done | busybox nc 127.0.0.1 77`)
	count := filepath.Join(b.bundle, "rootfs/count")
	b.must("run", "-d", b.id)
	n := follows(t, count, 3)
	if out, code := b.run("checkpoint", "--image-path", images, b.id); code != 1 || !strings.Contains(out, "--tcp-established") {
		t.Fatalf("without --tcp-established: exit code %d, %s", code, out)
	}
	n = follows(t, count, n) // nothing has changed
	b.must("checkpoint", "--tcp-established", "--image-path", images, b.id)
	n = number(count)
	b.must("restore", "-d", "--tcp-established", "--image-path", images, b.id)
	follows(t, count, n)
}

// The terminal of a restored container arrives at the console socket.
func TestRestoreTerminal(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", "stty -echo 2>/dev/null; while read line; do echo got $line; done")
	b.change(func(s *specs.Spec) { s.Process.Terminal = true })
	path := filepath.Join(t.TempDir(), "console")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := make(chan *os.File, 1)
	go func() { first <- receiveTerminal(l) }()
	b.must("run", "-d", "--console-socket", path, b.id)
	terminal := <-first
	defer terminal.Close() // whose end would be a hang-up
	answers(t, terminal, "one")
	b.must("checkpoint", "--image-path", images, b.id)
	go func() { first <- receiveTerminal(l) }()
	b.must("restore", "-d", "--console-socket", path, "--image-path", images, b.id)
	terminal2 := <-first
	defer terminal2.Close()
	answers(t, terminal2, "two")
}

// receiveTerminal takes the terminal of one connection.
func receiveTerminal(l net.Listener) *os.File {
	conn, err := l.Accept()
	if err != nil {
		return nil
	}
	defer conn.Close()
	data, control := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(data, control)
	if err != nil {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 || unix.SetNonblock(fds[0], true) != nil {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "terminal")
}

// answers types a word and waits for what the container says to it.
func answers(t *testing.T, terminal *os.File, word string) {
	t.Helper()
	if terminal == nil {
		t.Fatal("no terminal came")
	}
	if err := terminal.SetDeadline(time.Now().Add(testutil.Patience(20 * time.Second))); err != nil {
		t.Fatal(err)
	}
	if _, err := terminal.WriteString(word + "\n"); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for buf := make([]byte, 256); !strings.Contains(said.String(), "got "+word); {
		n, err := terminal.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, said.String())
		}
		said.Write(buf[:n])
	}
}

func TestCheckpointRefused(t *testing.T) {
	b, images := newCriuBench(t, "sleep", "1000")
	refused := func(what string, args ...string) {
		t.Helper()
		if out, code := b.run(args...); code != 1 || !strings.Contains(out, what) {
			t.Errorf("%v: exit code %d, %s", args, code, out)
		}
	}
	refused("container does not exist", "checkpoint", "--image-path", images, b.id)
	refused("has no checkpoint", "restore", "-d", "--image-path", images, b.id)
	b.must("create", b.id)
	refused("Container cannot be checkpointed in created state", "checkpoint", "--image-path", images, b.id)
	b.must("start", b.id)
	refused("invalid manage-cgroups-mode", "checkpoint", "--manage-cgroups-mode", "none", "--image-path", images, b.id)
	refused("--parent-path must be relative", "checkpoint", "--parent-path", "/x", "--image-path", images, b.id)
	refused("is not supported", "checkpoint", "--empty-ns", "uts", "--image-path", images, b.id)
	refused("ADDRESS:PORT", "checkpoint", "--page-server", "here", "--image-path", images, b.id)
	b.must("exec", "-d", b.id, "sleep", "1001")
	refused("that was not started by its init", "checkpoint", "--image-path", images, b.id)
	b.must("kill", b.id, "KILL")
	testutil.Eventually(t, 10*time.Second, "the end", func() bool { return strings.Contains(b.must("state", b.id), "stopped") })
	refused("Container cannot be checkpointed in stopped state", "checkpoint", "--image-path", images, b.id)
	b.must("delete", b.id)
	t.Setenv("PATH", t.TempDir())
	b.must("run", "-d", b.id)
	refused("install criu", "checkpoint", "--image-path", images, b.id)
}

// Images that are broken give a sentence, and nothing is left (see newBench).
func TestRestoreBroken(t *testing.T) {
	b, images := newCriuBench(t, "sleep", "1000")
	b.must("run", "-d", b.id)
	b.must("checkpoint", "--image-path", images, b.id)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, name := range []string{"core-1.img", "pstree.img", "mm-1.img", "descriptors.json", "inventory.img"} {
		path := filepath.Join(images, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := b.run("restore", "-d", "--image-path", images, b.id); code != 1 || !strings.Contains(out, "criu failed: type RESTORE") && !strings.Contains(out, "cannot be read") {
			t.Errorf("%s: exit code %d, %s", name, code, out)
		}
		if out, code := b.run("state", b.id); code == 0 {
			t.Fatalf("%s: a container is left: %s", name, out)
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + b.id); len(left) > 0 {
			t.Errorf("%s: groups left: %v", name, left)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); !bytes.Equal(now, mounts) {
		t.Error("mounts are left")
	}
	b.must("restore", "-d", "--image-path", images, b.id)
}

// Control groups that a checkpoint names are no way to the host's: CRIU makes none
// but the container's own, and writes to no other's files.
func TestRestoreHostileGroups(t *testing.T) {
	b, images := newCriuBench(t, "sleep", "1000")
	b.must("run", "-d", b.id)
	b.must("checkpoint", "--image-path", images, b.id)
	path := filepath.Join(images, "cgroup.img")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(whole, []byte(b.id)) {
		t.Fatalf("CRIU does not note the group %s", b.id)
	}
	field := func(number int, value string) string {
		return string([]byte{byte(number<<3 | 2), byte(len(value))}) + value
	}
	with := func(image []byte, fields string) []byte { // more of the image's only message, whose size stands before it
		out := append(bytes.Clone(image), fields...)
		binary.LittleEndian.PutUint32(out[8:], uint32(len(out)-12))
		return out
	}
	freezer := []byte(field(2, field(1, "freezer")+"\x18\x00"))
	inFreezer := func(image []byte, groups string) []byte { // noted in the entry that is there, if there is one
		if rest := bytes.Replace(image, freezer, nil, 1); len(rest) < len(image) {
			image = rest
		}
		return with(image, field(2, field(1, "freezer")+groups))
	}
	more := func(groups string) []byte { return inFreezer(whole, groups) }
	renamed := func(to string) []byte { return bytes.ReplaceAll(whole, []byte(b.id), []byte(to)) }
	other := "x" + b.id[1:]
	group := func(name string, properties string) string {
		return field(2, field(1, name)+properties)
	}
	for _, c := range []struct {
		what  string
		image []byte
		says  string
	}{
		{"a group above", renamed("../" + b.id[3:]), "leads elsewhere"},
		{"a directory above", more(group("/../../"+other, "")), "leads elsewhere"},
		{"a file elsewhere", more(group("/"+b.id, field(3, field(1, "../notify_on_release")+field(2, "1")))), "leads elsewhere"},
		{"another group", renamed(other), ""},
		{"a group below another", inFreezer(renamed(other), group(other+"/made", "")), ""},
		{"a group below another, by a path", inFreezer(renamed(other), group("/"+other+"/made", "")), ""},
		{"processes elsewhere", with(more(group("/"+other+"/made", "")), field(1, "\x08\x63"+field(2, field(1, "freezer")+field(2, "/"+other)))), ""},
		{"the groups of a controller twice", with(renamed(other), field(2, field(1, "freezer")+group(other+"/made", ""))), "twice"},
		{"a group of a longer name", inFreezer(whole, group(b.id[:len(b.id)-1], "")), ""},
		{"another group beside", more(group("/"+other, field(3, field(1, "notify_on_release")+field(2, "1")))), ""},
	} {
		if err := os.WriteFile(path, c.image, 0o600); err != nil {
			t.Fatal(err)
		}
		out, code := b.run("restore", "-d", "--image-path", images, b.id)
		if c.says != "" && (code != 1 || !strings.Contains(out, c.says)) {
			t.Errorf("%s: exit code %d, %s", c.what, code, out)
		}
		if code == 0 { // the request's groups then, whatever the checkpoint says
			var state struct{ Pid int }
			if err := json.Unmarshal([]byte(b.must("state", b.id)), &state); err != nil {
				t.Fatal(err)
			}
			own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", state.Pid))
			if err != nil || !bytes.Contains(own, []byte("/"+b.id)) || bytes.Contains(own, []byte(other)) {
				t.Errorf("%s: the container is in %s (%v)", c.what, own, err)
			}
			b.must("delete", "--force", b.id)
		} else {
			t.Logf("%s: %s", c.what, out)
		}
		for _, name := range []string{b.id[3:], other, b.id} {
			for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/sys/fs/"} {
				if left, _ := filepath.Glob(pattern + name); len(left) > 0 {
					t.Errorf("%s: there is %v", c.what, left)
				}
			}
		}
	}
}

// What a container has made below its own groups, and is in, is made anew below those
// of the container that it becomes.
func TestRestoreNestedGroups(t *testing.T) {
	b, images := newCriuBench(t, "sleep", "1000")
	b.change(func(s *specs.Spec) {
		own := specs.LinuxNamespace{Type: specs.CgroupNamespace}
		if !slices.Contains(s.Linux.Namespaces, own) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, own)
		}
	})
	places := func() (pid int, text string) {
		t.Helper()
		var state struct{ Pid int }
		if err := json.Unmarshal([]byte(b.must("state", b.id)), &state); err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", state.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return state.Pid, string(own)
	}
	b.must("run", "-d", b.id)
	pid, _ := places()
	made := 0
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		groups, _ := filepath.Glob(pattern + b.id)
		for _, group := range groups {
			if strings.Contains(group, "cpuset") { // nobody can be in a new one
				continue
			}
			inner := group + "/inner"
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(inner+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
			made++
		}
	}
	_, before := places()
	if n := strings.Count(before, "/"+b.id+"/inner\n"); n != made || n == 0 {
		t.Fatalf("%d groups, and it is in %s", made, before)
	}
	b.must("checkpoint", "--image-path", images, b.id)
	b.must("restore", "-d", "--image-path", images, b.id)
	if _, now := places(); now != before {
		t.Errorf("it was in\n%s, and is in\n%s", before, now)
	}
}

// Memory is dumped before, and only what has changed since by the checkpoint.
func TestPreDump(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/new; busybox mv /new /count; sleep 0.02; done")
	count := filepath.Join(b.bundle, "rootfs/count")
	b.must("run", "-d", b.id)
	follows(t, count, 3)
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	out, code := b.run("checkpoint", "--pre-dump", "--image-path", images+"/first", b.id)
	if code != 0 && strings.Contains(out, "missing features: [MemTrack]") {
		t.Skip("this kernel does not track memory that is written")
	}
	if code != 0 {
		t.Fatal(out)
	}
	n := follows(t, count, number(count))
	b.must("checkpoint", "--parent-path", "../first", "--image-path", images+"/second", b.id)
	n = max(n, number(count))
	b.must("restore", "-d", "--image-path", images+"/second", b.id)
	follows(t, count, n)
}

// runc is asked the same, and answers with the same exit codes.
func TestCheckpointAsRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc")
	}
	b, images := newCriuBench(t, "sleep", "1000")
	root := t.TempDir()
	theirs := func(args ...string) (string, int) {
		cmd := exec.Command(runc, append([]string{"--root", root}, args...)...)
		cmd.Dir = b.bundle
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, c := range []struct{ args, words string }{
		{"checkpoint nothing", "does not exist"}, {"checkpoint", ""}, {"checkpoint a b", ""}, {"restore", ""},
		{"restore --image-path " + images + "/not", ""},
		{"checkpoint --nonsense x", ""},
	} {
		args := strings.Fields(c.args)
		out, code := b.run(args...)
		other, want := theirs(args...)
		if code != want || !strings.Contains(out, c.words) || !strings.Contains(other, c.words) {
			t.Errorf("%q: exit code %d, runc's %d: %s\n%s", c.args, code, want, out, other)
		}
	}
}

// The configuration says what a restored container may do, whatever it could do
// before.
func TestRestorePolicy(t *testing.T) {
	b, images := newCriuBench(t, "sh", "-c", "while :; do sleep 0.02; [ ! -e /try ] || { busybox rm /try; busybox mkdir /made 2>/said; }; done")
	filter := func(call string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{call}, Action: specs.ActErrno}}}
	}
	var first specs.Spec
	b.change(func(s *specs.Spec) {
		s.Process.NoNewPrivileges = false
		first = *s
	})
	b.must("run", "-d", b.id)
	b.must("checkpoint", "--image-path", images, b.id)
	refused := func(what string, change func(*specs.Spec)) {
		t.Helper()
		b.change(func(s *specs.Spec) {
			text, _ := json.Marshal(first)
			*s = specs.Spec{}
			if err := json.Unmarshal(text, s); err != nil {
				t.Fatal(err)
			}
			change(s)
		})
		if out, code := b.run("restore", "-d", "--image-path", images, b.id); code != 1 || !strings.Contains(out, what) {
			t.Errorf("exit code %d, %s instead of %s", code, out, what)
		}
	}
	refused("has the capabilities CAP_KILL,", func(s *specs.Spec) {
		caps := []string{"CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	})
	refused("(noNewPrivileges)", func(s *specs.Spec) { s.Process.NoNewPrivileges = true })
	refused("has no seccomp filter", func(s *specs.Spec) { s.Linux.Seccomp = filter("mkdir") })
	refused("sees /proc/version", func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version") })
	refused("may write to /bin", func(s *specs.Spec) { s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/bin") })
	refused("may write to its root", func(s *specs.Spec) { s.Root.Readonly = true })
	refused("mount /dev/shm has not the option ro", func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == "/dev/shm" {
				s.Mounts[i].Options = append(s.Mounts[i].Options, "ro")
			}
		}
	})
	refused("a user namespace of its own", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	})

	// Mounts beyond those of the configuration, and what is in one's place.
	b.change(func(s *specs.Spec) {
		*s = first
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/more", Type: "sysfs", Source: "sysfs"})
	})
	images += "m"
	b.must("run", "-d", b.id)
	b.must("checkpoint", "--image-path", images, b.id)
	refused("a mount on /more that the configuration does not have", func(*specs.Spec) {})
	for i, dir := range []string{t.TempDir(), memory(t)} {
		plain := first
		b.change(func(s *specs.Spec) {
			for _, place := range []string{"keep1", "keep2"} {
				source := filepath.Join(dir, place)
				if err := os.Mkdir(source, 0o755); err != nil {
					t.Fatal(err)
				}
				first.Mounts = append(slices.Clip(first.Mounts), specs.Mount{Destination: "/" + place, Type: "bind", Source: source, Options: []string{"bind"}})
			}
			*s = first
		})
		images += "b" + strconv.Itoa(i)
		b.must("run", "-d", b.id)
		b.must("checkpoint", "--image-path", images, b.id)
		swapMounts(t, images)
		refused("a mount on /keep2 that the configuration does not have", func(*specs.Spec) {})
		first = plain
	}

	// The filter that it began with is replaced by the one that is wanted.
	b.change(func(s *specs.Spec) { *s = first; s.Linux.Seccomp = filter("rmdir") })
	images += "2"
	b.must("run", "-d", b.id)
	b.must("checkpoint", "--image-path", images, b.id)
	b.change(func(s *specs.Spec) { s.Linux.Seccomp = filter("mkdir") })
	b.must("restore", "-d", "--image-path", images, b.id)
	root := filepath.Join(b.bundle, "rootfs")
	if err := os.WriteFile(filepath.Join(root, "try"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "a refusal", func() bool {
		text, _ := os.ReadFile(filepath.Join(root, "said"))
		return strings.Contains(string(text), "not permitted")
	})
	if _, err := os.Stat(filepath.Join(root, "made")); err == nil {
		t.Error("the old filter is in force")
	}
}

// memory is a directory in the host's memory.
func memory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// swapMounts has the images say that what is mounted on /keep2 is what is mounted on
// /keep1.
func swapMounts(t *testing.T, images string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(images, "mountpoints-*.img"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	image, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	// First the place is named, then what CRIU is to mount there.
	place, name := bytes.Index(image, []byte("/keep2")), bytes.LastIndex(image, []byte("/keep2"))
	if place == name {
		t.Fatal("the second bind mount has no name")
	}
	copy(image[name:], "/keep1")
	if err := os.WriteFile(names[0], image, 0o600); err != nil {
		t.Fatal(err)
	}
}
