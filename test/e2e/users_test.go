package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// users is a daemon whose containers may have IDs of their own.
type users struct {
	*daemon.Daemon
	t *testing.T
}

// withUsers starts a daemon that reads the text as subuid(5) and subgid(5).
func withUsers(t *testing.T, ids string, flags ...string) users {
	t.Helper()
	testutil.RequireRoot(t)
	d := daemon.New(t, flags...)
	for _, file := range []string{"subuid", "subgid"} {
		d.Cover("/etc/"+file, write(t, filepath.Join(d.Dir, file), ids))
	}
	d.Up(t)
	d.ImportBusybox(t)
	return users{d, t}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// mapped is the ID that root of a running container has outside, and the number
// of IDs of the container, as the kernel has them.
func (u users) mapped(name string) (first, count int) {
	u.t.Helper()
	pid := u.Tare(u.t, "inspect", "-f", "{{.State.Pid}}", name)
	for _, file := range []string{"gid_map", "uid_map"} {
		text, err := os.ReadFile("/proc/" + pid + "/" + file)
		var id, was int
		was = first
		if n, _ := fmt.Sscan(string(text), &id, &first, &count); n != 3 || id != 0 || err != nil || strings.Count(string(text), "\n") != 1 {
			u.t.Fatalf("%s of %s is %q, %v", file, name, text, err)
		}
		if file == "uid_map" && was != first {
			u.t.Errorf("the groups of %s begin at %d, its users at %d", name, was, first)
		}
	}
	return first, count
}

// owner is whom a file belongs to on disk.
func (u users) owner(path string) string {
	u.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		u.t.Error(path, err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func (u users) upper(name string) string {
	return filepath.Join(u.Dir, "data/snapshot/active", u.Tare(u.t, "inspect", "-f", "{{.Id}}", name), "upper")
}

func (u users) want(want string, args ...string) {
	u.t.Helper()
	if got := u.Tare(u.t, args...); got != want {
		u.t.Errorf("tare %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

func (u users) refused(want string, args ...string) {
	u.t.Helper()
	if out, err := u.Try(args...); err == nil || !strings.Contains(err.Error(), want) {
		u.t.Errorf("tare %s: %s, %v, want %q", strings.Join(args, " "), out, err, want)
	}
}

// TestUsersOfTheirOwn runs containers with --userns=auto: each has IDs that no other
// has and that may do nothing outside, and sees files with the IDs of its image.
func TestUsersOfTheirOwn(t *testing.T) {
	u := withUsers(t, "containers:200000:20000\n")
	secret := write(t, filepath.Join(u.Dir, "secret"), "secret")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	const auto = "--userns=auto:size=5000"
	for _, name := range []string{"one", "two"} {
		u.Tare(t, "run", "-d", "--name", name, auto, "-v", "shared:/v", "-v", secret+":/secret", "busybox", "sleep", "1000")
	}
	one, n := u.mapped("one")
	two, m := u.mapped("two")
	if n != 5000 || m != 5000 || one != 215000 || two != 210000 {
		t.Errorf("one has %d IDs from %d on, two %d from %d on", n, one, m, two)
	}
	status, _ := os.ReadFile("/proc/" + u.Tare(t, "inspect", "-f", "{{.State.Pid}}", "one") + "/status")
	if want := fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", one, one, one, one); !strings.Contains(string(status), want) {
		t.Errorf("root of the container is outside\n%s", status)
	}
	u.want("0:0 65534:65534", "exec", "one", "sh", "-c", "echo $(stat -c %u:%g / /secret)")
	u.refused("Permission denied", "exec", "one", "cat", "/secret")

	// What root and others make belongs to the image's IDs on disk.
	u.want("33:44", "exec", "one", "sh", "-c", "mkdir -p /d/e; echo made > /d/f; chown 33:44 /d/f; stat -c %u:%g /d/f")
	for name, want := range map[string]string{"d": "0:0", "d/e": "0:0", "d/f": "33:44"} {
		if got := u.owner(filepath.Join(u.upper("one"), name)); got != want {
			t.Errorf("%s belongs to %s on disk, want %s", name, got, want)
		}
	}
	u.want("77 88", "exec", "-u", "77:88", "one", "sh", "-c", "cd /dev/shm; touch by; stat -c '%u %g' by")
	u.refused("user 6000 is not in the container's user namespace, which has 5000 IDs", "exec", "-u", "6000", "one", "true")

	// A volume has the IDs of whoever uses it.
	u.Tare(t, "exec", "one", "sh", "-c", "touch /v/root; chmod 700 /v/root; touch /v/other; chown 55:66 /v/other")
	u.want("0:0 55:66", "exec", "two", "sh", "-c", "echo >> /v/root; echo $(stat -c %u:%g /v/root /v/other)")
	if got := u.owner(filepath.Join(u.Dir, "data/volumes/shared/_data/other")); got != "55:66" {
		t.Errorf("a volume's file belongs to %s on disk", got)
	}
	u.want("0:0 55:66", "run", "--rm", "-v", "shared:/v", "busybox", "sh", "-c", "echo $(stat -c %u:%g /v/root /v/other)")

	u.archives()
	u.streams(auto)
	u.networks(auto)
	u.binds(auto)
}

// archives copy files in and out by their IDs in the container, running or not, and make
// images of them.
func (u users) archives() {
	u.t.Helper()
	list := func(args ...string) string {
		u.t.Helper()
		out, err := u.Command(u.t, "sh", "-c", "tare "+strings.Join(args, " ")+" | tar tv --numeric-owner | awk '{print $2, $NF}' | grep ' d/'").CombinedOutput()
		if err != nil {
			u.t.Errorf("%v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	const have = "0/0 d/\n0/0 d/e/\n33/44 d/f"
	put := func(name string) {
		u.t.Helper()
		out, err := u.Command(u.t, "sh", "-c", "cd $0 && touch "+name+" && tar c --numeric-owner --owner=123 --group=456 "+name+" | tare cp -a - one:/d", u.Dir).CombinedOutput()
		if err != nil {
			u.t.Errorf("%s: %v", out, err)
		}
	}
	for _, run := range []bool{true, false} {
		if !run {
			u.Tare(u.t, "stop", "-t", "0", "one")
		}
		if got := list("cp", "one:/d", "-"); !strings.HasPrefix(got, have) {
			u.t.Errorf("cp of a container that runs (%v):\n%s", run, got)
		}
		put(fmt.Sprintf("put-%v", run))
	}
	const all = have + "\n123/456 d/put-false\n123/456 d/put-true"
	if got := list("export", "one"); got != all {
		u.t.Errorf("export:\n%s", got)
	}
	u.want("A /d\nA /d/e\nA /d/f\nA /d/put-false\nA /d/put-true", "diff", "one")
	u.Tare(u.t, "commit", "one", "committed")
	for _, mode := range []string{"host", "auto:size=5000"} {
		u.want("0:0 33:44 123:456", "run", "--rm", "--userns", mode, "committed", "sh", "-c", "echo $(stat -c %u:%g /d/e /d/f /d/put-true)")
	}
	u.Tare(u.t, "start", "one")
	u.want("0:0 33:44 123:456", "exec", "one", "sh", "-c", "echo $(stat -c %u:%g /d/e /d/f /d/put-false)")
	u.want("0:0 0:0", "exec", "one", "sh", "-c", "echo hosts > /etc/hosts; echo $(stat -c %u:%g /etc/hosts /etc/resolv.conf)")
}

// streams can be opened again by whoever has them, and terminals are the user's.
func (u users) streams(auto string) {
	u.t.Helper()
	for _, user := range []string{"0", "99"} {
		u.want("out", "run", "--rm", "-u", user, auto, "busybox", "sh", "-c", "echo out > /dev/stdout")
		u.want("out", "exec", "-u", user, "one", "sh", "-c", "echo out > /proc/self/fd/1")
	}
	// One ID is enough, though group tty is not among them.
	u.want("1", "run", "--rm", "--userns=auto:size=1", "busybox", "sh", "-c", "awk '{print $3}' /proc/self/uid_map")
	out, err := u.Command(u.t, "script", "-qec", "tare run --rm -t -u 99 "+auto+" busybox stat -c %u:%g /dev/pts/0 /dev/console", "/dev/null").CombinedOutput()
	if err != nil || strings.ReplaceAll(strings.TrimSpace(string(out)), "\r", "") != "99:5\n99:5" {
		u.t.Errorf("the terminal: %q, %v", out, err)
	}
}

// networks are ruled by who is root in the container, also those of containers that
// share a user namespace.
func (u users) networks(auto string) {
	u.t.Helper()
	u.Tare(u.t, "run", "--rm", auto, "--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "sh", "-ec",
		"ip link set eth0 down; ip link add x type veth peer name y; test $(cat /proc/sys/net/ipv4/ip_forward) = 1; grep -q 4999 /proc/sys/net/ipv4/ping_group_range")
	first, _ := u.mapped("one")
	same := []string{"sh", "-c", "awk '{print $2}' /proc/self/uid_map; ls /sys/class/net | grep -c eth0"}
	for _, shared := range []string{"--network", "--pid", "--ipc"} {
		donor := "one"
		if shared == "--ipc" {
			donor = "donor"
			u.Tare(u.t, "run", "-d", "--name", donor, auto, "--ipc", "shareable", "busybox", "sleep", "1000")
			first, _ = u.mapped(donor)
		}
		u.want(fmt.Sprintf("%d\n1", first), append([]string{"run", "--rm", shared, "container:" + donor, "busybox"}, same...)...)
	}
	u.refused("in different user namespaces", "run", "--rm", "--network", "container:one", "--ipc", "container:donor", "busybox", "true")
	u.Tare(u.t, "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	u.refused("is in the host's user namespace: use --userns=host", "run", "--rm", auto, "--network", "container:plain", "busybox", "true")
	u.want("0", "run", "--rm", "--userns", "host", "--network", "container:one", "busybox", "sh", "-c", "awk '{print $2}' /proc/self/uid_map")
	u.Tare(u.t, "rm", "-f", "donor", "plain")
}

// binds keep the host's IDs, unless it is said that they are the user's.
func (u users) binds(auto string) {
	u.t.Helper()
	dir := filepath.Join(u.Dir, "bound")
	if err := os.Mkdir(dir, 0o755); err != nil {
		u.t.Fatal(err)
	}
	u.refused("Permission denied", "run", "--rm", auto, "-v", dir+":/d", "busybox", "touch", "/d/f")
	for _, user := range []string{"0", "99"} {
		u.want(user, "run", "--rm", "-u", user, auto, "-v", dir+":/d:idmap", "busybox", "sh", "-c", "touch /d/"+user+"; stat -c %u /d/"+user)
		if got := u.owner(filepath.Join(dir, user)); got != "0:0" {
			u.t.Errorf("what the user makes belongs to %s outside", got)
		}
	}
	u.want("0", "run", "--rm", auto, "--mount", "type=image,src=busybox,dst=/i", "busybox", "stat", "-c", "%u", "/i/bin")
	u.want("99 0", "run", "--rm", auto, "--tmpfs", "/t:uid=99", "busybox", "sh", "-c", "echo $(stat -c %u /t /dev/shm)")
	u.Tare(u.t, "run", "--rm", auto, "--ipc", "host", "--uts", "host", "--cgroupns", "host", "busybox", "true")
}

// TestUsersAreShared gives IDs to containers as long as there are any, keeps them apart
// over deaths of the daemon, and takes them back.
func TestUsersAreShared(t *testing.T) {
	u := withUsers(t, "somebody:1:100\ncontainers:300000:3000\ncontainers:500000:1000\n")
	const auto = "--userns=auto:size=1000"
	starts := map[int]string{}
	see := func(name string) {
		t.Helper()
		first, _ := u.mapped(name)
		if other, ok := starts[first]; ok && other != name {
			t.Errorf("%s and %s have the same IDs", name, other)
		}
		starts[first] = name
	}
	for i := range 3 {
		name := "c" + strconv.Itoa(i)
		u.Tare(t, "run", "-d", "--name", name, "--restart", "always", auto, "busybox", "sleep", "1000")
		see(name)
	}
	u.Tare(t, "create", "--name", "c3", auto, "busybox", "sleep", "1000")
	const exhausted = "no 1000 IDs in a row are left of those of containers in /etc/subuid: remove containers that have some"
	u.refused(exhausted, "create", "--name", "c4", auto, "busybox")
	u.Signal(t, syscall.SIGKILL)
	u.Up(t)
	u.refused(exhausted, "create", "--name", "c4", auto, "busybox")
	u.Tare(t, "start", "c3")
	for i := range 4 {
		see("c" + strconv.Itoa(i))
	}
	u.Tare(t, "restart", "-t", "0", "c1")
	u.want("0", "exec", "c1", "id", "-u")
	see("c1")
	if len(starts) != 4 {
		t.Errorf("four containers have had %v", starts)
	}
	u.Tare(t, "rm", "-f", "c1")
	u.Tare(t, "run", "--rm", auto, "busybox", "true")
	u.Tare(t, "run", "-d", "--name", "c5", auto, "busybox", "sleep", "1000")
	if first, _ := u.mapped("c5"); starts[first] != "c1" {
		t.Errorf("the IDs from %d on were %s's", first, starts[first])
	}
	for want, args := range map[string][]string{
		"privileged mode is incompatible with user namespaces.  You must run the container in the host namespace": {auto, "--privileged"},
		"cannot share the host's network namespace when user namespaces are enabled":                              {auto, "--network", "host"},
		"cannot share the host PID namespace when user namespaces are enabled":                                    {auto, "--pid", "host"},
		"\"gid=4\" is not known: want auto or auto:size=N":                                                        {"--userns=auto:gid=4"},
		"--userns: invalid USER mode": {"--userns=private"},
	} {
		u.refused(want, append(append([]string{"create"}, args...), "busybox")...)
	}
}

// TestUsersOfNobody says what is missing.
func TestUsersOfNobody(t *testing.T) {
	u := withUsers(t, "", "--userns-auto", "tare")
	u.refused("--userns=auto needs IDs to give to containers: add a line tare:2147483648:1073741824, or of other IDs that nobody has, to /etc/subuid",
		"run", "--userns=auto", "busybox", "true")
}

// TestUsersWithoutMaps says in one sentence that a file system cannot show other owners:
// that of the layers, and that of a volume.
func TestUsersWithoutMaps(t *testing.T) {
	const auto = "--userns=auto:size=1000"
	u := withUsers(t, "containers:300000:3000\n")
	u.Tare(t, "volume", "create", "-o", "type=ramfs", "-o", "device=none", "ram")
	u.refused("the owners of the mount /v cannot be mapped: its file system does not support that (idmapped mounts)", "run", "--rm", auto, "-v", "ram:/v", "busybox", "true")
	u.Tare(t, "run", "--rm", "-v", "ram:/v", "busybox", "true")

	u.Signal(t, syscall.SIGTERM)
	data := filepath.Join(u.Dir, "data")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("ram", data, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	u.AtEnd(func() error { return unix.Unmount(data, unix.MNT_DETACH) })
	u.Add("--storage-driver", "vfs")
	u.Up(t)
	u.ImportBusybox(t)
	u.Tare(t, "run", "--rm", "busybox", "true")
	u.refused("the file system cannot map the owners of its files to a user namespace (idmapped mounts, Linux 5.19 and later)", "run", "--rm", auto, "busybox", "true")
}
