package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
	"golang.org/x/sys/unix"
)

func TestOtherVersion(t *testing.T) {
	for version, ok := range map[string]bool{"": true, "1.0.2-dev": true, "1.9.0": true, "2.0.0": false, "0.9": false} {
		s := Default("/rootfs", "sh")
		s.Version = version
		if err := check(s); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestDomainname(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /proc/sys/kernel/domainname")
	s.Domainname = "example.org"
	if out, _ := run(t, dir, s); out != "example.org\n" {
		t.Errorf("got %q", out)
	}
}

func TestRlimits(t *testing.T) {
	clean(t)
	dir, s := shell(t, "grep -E 'core|open|locks' /proc/self/limits")
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 5, Hard: 7}, {Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}, {Type: "RLIMIT_LOCKS", Soft: 3, Hard: 3}}
	out, _ := run(t, dir, s)
	if got := strings.Join(strings.Fields(out), " "); got != "Max core file size 5 7 bytes Max open files 77 88 files Max file locks 3 3 locks" {
		t.Errorf("got %s", got)
	}
	for _, bad := range [][]specs.POSIXRlimit{{{Type: "RLIMIT_NONSENSE"}}, {{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}} {
		s.Process.Rlimits = bad
		if _, _, err := tryRun(t, dir, s); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestOOMScore(t *testing.T) {
	clean(t)
	dir, s := shell(t, "cat /proc/self/oom_score_adj")
	for _, n := range []int{0, 123, 1000} {
		s.Process.OOMScoreAdj = &n
		if out, _ := run(t, dir, s); out != fmt.Sprintln(n) {
			t.Errorf("%d: got %q", n, out)
		}
	}
}

// TestSchedulers asks the kernel how a container's process is scheduled.
func TestSchedulers(t *testing.T) {
	dir, base := bundle(t, "sleep", "60")
	clean(t)
	with := func(name string, change func(*specs.Spec), look func(*Container)) {
		s, p, l := *base, *base.Process, *base.Linux
		s.Process, s.Linux = &p, &l
		change(&s)
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: &s, ID: containerID(t)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		look(c)
		stop(t, c)
	}
	attr := func(c *Container) *unix.SchedAttr {
		a, err := unix.SchedGetAttr(c.Pid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	with("batch", func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: -3, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	}, func(c *Container) {
		if a := attr(c); a.Policy != unix.SCHED_BATCH || a.Nice != -3 || a.Flags != unix.SCHED_FLAG_RESET_ON_FORK {
			t.Errorf("got %+v", a)
		}
	})
	with("idle", func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	}, func(c *Container) {
		if a := attr(c); a.Policy != unix.SCHED_IDLE {
			t.Errorf("got %+v", a)
		}
		if n, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(c.Pid()), 0); n != 2<<13|6 {
			t.Errorf("I/O priority %#x", n)
		}
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", c.Pid())); !strings.Contains(string(b), "bind=static:0") {
			t.Errorf("memory policy %.100s", b)
		}
	})
	// Whether this machine gives these is its own matter; that they are asked for
	// is seen by what it says.
	for name, sched := range map[string]specs.Scheduler{
		"SCHED_FIFO":     {Policy: specs.SchedFIFO, Priority: 5},
		"SCHED_DEADLINE": {Policy: specs.SchedDeadline, Runtime: 1000000, Deadline: 10000000, Period: 20000000},
	} {
		s, p := *base, *base.Process
		p.Scheduler, s.Process = &sched, &p
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: &s, ID: containerID(t)})
		if err != nil {
			if !strings.Contains(err.Error(), "set the scheduler to "+name+": operation not permitted") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if a := attr(c); a.Priority != uint32(sched.Priority) || a.Runtime != sched.Runtime || a.Deadline != sched.Deadline || a.Period != sched.Period {
			t.Errorf("%s: got %+v", name, a)
		}
		stop(t, c)
	}
	for want, sched := range map[string]specs.Scheduler{
		"invalid scheduler.nice: 20":                  {Policy: specs.SchedOther, Nice: 20},
		"scheduler.priority can only be specified":    {Policy: specs.SchedBatch, Priority: 1},
		"scheduler runtime/deadline/period can only ": {Policy: specs.SchedOther, Period: 1},
		"is not known": {Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}},
	} {
		b := &builder{program: newProgram(32)}
		if err := b.scheduler(&sched, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	warned := ""
	b := &builder{program: newProgram(32), warn: func(s string) { warned = s }}
	if err := b.scheduler(&specs.Scheduler{Policy: specs.SchedFIFO, Nice: 3, Priority: 1}, nil); err != nil || !strings.Contains(warned, "nice has no effect with the policy SCHED_FIFO") {
		t.Errorf("nice with a policy that has none: %v, %q", err, warned)
	}
}

// mountRows tell of each option what a mount that has it looks like in
// mountinfo: a tmpfs, or a bind mount of one where the words begin with "bind ".
var mountRows = map[string]string{
	"bind": "bind rw", "rbind": "bind rw", "defaults": "rw,", "tmpcopyup": "rw,", "remount": "TestRemount", "copy-symlink": "TestCopySymlink",
	"idmap": "TestMappedMount", "ridmap": "TestMappedMount",
	"ro": "ro,", "rw": "rw,", "suid": "rw,relatime", "nosuid": "nosuid", "dev": "rw,relatime", "nodev": "nodev", "exec": "rw,relatime", "noexec": "noexec",
	"diratime": "rw,relatime", "nodiratime": "nodiratime", "symfollow": "rw,relatime", "nosymfollow": "nosymfollow",
	"sync": "rw,sync", "async": "rw,", "dirsync": "dirsync", "lazytime": "lazytime", "nolazytime": "rw,", "mand": "rw", "nomand": "rw,",
	"iversion": "rw", "noiversion": "rw,", "silent": "rw,", "loud": "rw,",
	"atime": "rw,", "noatime": "noatime", "relatime": "relatime", "norelatime": "rw,", "strictatime": "rw - ", "nostrictatime": "relatime",
	"rro": "bind ro", "rrw": "bind rw", "rsuid": "bind rw", "rnosuid": "bind nosuid", "rdev": "bind rw", "rnodev": "bind nodev", "rexec": "bind rw",
	"rnoexec": "bind noexec", "rdiratime": "bind relatime", "rnodiratime": "bind nodiratime", "rsymfollow": "bind rw", "rnosymfollow": "bind nosymfollow",
	"ratime": "bind relatime", "rnoatime": "bind noatime", "rrelatime": "bind relatime", "rnorelatime": "bind rw -", "rstrictatime": "bind rw -", "rnostrictatime": "bind relatime",
	"private": "bind rw", "shared": "bind shared:", "slave": "bind rw", "unbindable": "bind unbindable",
	"rprivate": "bind rw", "rshared": "bind shared:", "rslave": "bind rw", "runbindable": "bind unbindable",
}

// TestEveryMountOption: one container with a mount for each option.
func TestEveryMountOption(t *testing.T) {
	dir, s := shell(t, "grep ' /o/' /proc/self/mountinfo")
	clean(t)
	src := filepath.Join(dir, "src")
	_ = os.Mkdir(src, 0o755)
	for _, name := range MountOptions() {
		want, ok := mountRows[name]
		if !ok {
			t.Errorf("the option %s has no row", name)
		}
		if strings.HasPrefix(want, "Test") {
			continue
		}
		m := specs.Mount{Destination: "/o/" + name, Type: "tmpfs", Source: "tmpfs", Options: []string{name}}
		if strings.HasPrefix(want, "bind ") {
			m.Type, m.Source, m.Options = "bind", src, append([]string{"bind"}, m.Options...)
		}
		s.Mounts = append(s.Mounts, m)
	}
	out, _ := run(t, dir, s)
	for name, want := range mountRows {
		if strings.HasPrefix(want, "Test") {
			continue
		}
		found := false
		for line := range strings.Lines(out) {
			if _, options, ok := strings.Cut(line, " /o/"+name+" "); ok {
				found = strings.Contains(strings.ReplaceAll(options, "  ", " "), strings.TrimPrefix(want, "bind "))
				if !found {
					t.Errorf("%s: no %q in %s", name, want, options)
				}
				found = true
			}
		}
		if !found {
			t.Errorf("%s: not mounted", name)
		}
	}
}

// TestLabels: in a kernel with AppArmor a process runs under its profile; without,
// as without SELinux, the name is refused.
func TestLabels(t *testing.T) {
	dir, s := shell(t, "cat /proc/self/attr/apparmor/current /proc/self/attr/current")
	clean(t)
	s.Process.ApparmorProfile = containerID(t)
	if Apparmor() {
		profile := "profile " + containerID(t) + " flags=(attach_disconnected) { file, capability, mount, umount, pivot_root, signal, deny /etc/passwd r, }\n"
		parser := exec.Command("apparmor_parser", "-Kr")
		parser.Stdin = strings.NewReader(profile)
		if out, err := parser.CombinedOutput(); err != nil {
			t.Skipf("load a profile: %v: %s", err, out)
		}
		if out, _ := run(t, dir, s); !strings.Contains(out, containerID(t)+" (enforce)") {
			t.Errorf("got %q", out)
		}
		s.Process.Args = []string{"sleep", "60"}
		t.Run("exec", func(t *testing.T) {
			c := start(t, dir, s)
			p := *s.Process
			p.Args = []string{"cat", "/etc/passwd"}
			if out, status := execOutput(t, c, &p); status.Code() == 0 || !strings.Contains(out, "denied") {
				t.Errorf("got %q", out)
			}
		})
		s.Process.ApparmorProfile = "no-such-profile"
	}
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "apparmor failed to apply profile") {
		t.Errorf("got %v", err)
	}
	s.Process.ApparmorProfile = ""
	if Selinux() {
		t.Skip("what a policy allows is not known here")
	}
	for _, change := range []func(string){func(l string) { s.Process.SelinuxLabel = l }, func(l string) { s.Linux.MountLabel = l }} {
		change("system_u:system_r:container_t:s0")
		if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), noSelinux) {
			t.Errorf("got %v", err)
		}
		change("")
	}
	// The same steps, as they are with both.
	b := &builder{program: newProgram(32), proc: 9}
	b.keyLabel(&specs.Process{SelinuxLabel: "l"})
	b.labels(&specs.Process{SelinuxLabel: "l", ApparmorProfile: "p"})
	for _, want := range []string{`"thread-self/attr/keycreate"`, `"thread-self/attr/apparmor/exec"`, `"exec p"`, `"thread-self/attr/exec"`, `"l"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b.String())
		}
	}
	if got := labelled("size=1", "a:b:c,d", "tmpfs") + labelled("", "a", "proc") + labelled("", "a", "tmpfs"); got != `size=1,context="a:b:c,d"context="a"` {
		t.Errorf("got %s", got)
	}
}

func TestDeviceRules(t *testing.T) {
	clean(t)
	dir, s := shell(t, "for d in loops fuse full; do (: < /dev/$d) 2>/dev/null && echo read $d; (: > /dev/$d) 2>/dev/null && echo write $d; done; true")
	loops, full, one, misc, other := int64(237), int64(7), int64(1), int64(10), int64(11)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/loops", Type: "c", Major: misc, Minor: loops}, {Path: "/dev/fuse", Type: "c", Major: misc, Minor: 229}}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: &misc, Minor: &loops, Access: "r"}, {Allow: true, Type: "c", Major: &other, Access: "rwm"}, {Allow: false, Type: "c", Major: &one, Minor: &full, Access: "r"}}
	for range 2 {
		if out, _ := run(t, dir, s); out != "read loops\nread full\nwrite full\n" { // full is every container's
			t.Errorf("got %q", out)
		}
		s.Linux.Resources.Devices = s.Linux.Resources.Devices[1:] // nothing is allowed before the first
	}
	s.Linux.Resources = nil
	if out, _ := run(t, dir, s); out != "read full\nwrite full\n" {
		t.Errorf("without rules: got %q", out)
	}
}

func TestDevices(t *testing.T) {
	clean(t)
	dir, s := shell(t, "stat -c '%F %a %u:%g %t:%T %n' /dev/own /dev/sub/block /dev/pipe /dev/null")
	mode, uid, gid := os.FileMode(0o640), uint32(5), uint32(6)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/own", Type: "c", Major: 1, Minor: 7, FileMode: &mode, UID: &uid, GID: &gid},
		{Path: "/dev/sub/block", Type: "b", Major: 7, Minor: 3}, {Path: "/dev/pipe", Type: "p"}}
	const want = "character special file 640 5:6 1:7 /dev/own\nblock special file 666 0:0 7:3 /dev/sub/block\nfifo 666 0:0 0:0 /dev/pipe\ncharacter special file 666 0:0 1:3 /dev/null\n"
	if out, _ := run(t, dir, s); out != want {
		t.Errorf("got %s", out)
	}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/passwd", Type: "c", Major: 1, Minor: 7}}
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "the device /etc/passwd cannot be made: another file is there already") {
		t.Errorf("in a file's place: %v", err)
	}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/null", Type: "c", Major: 1, Minor: 3}}
	if _, _, err := tryRun(t, dir, s); err != nil {
		t.Errorf("twice the same: %v", err)
	}
}

func TestCgroupsPath(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "sleep", "60")
	s.Linux.CgroupsPath = "/" + containerID(t) + "-other"
	c := start(t, dir, s)
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Pid())); !strings.Contains(string(b), ":"+s.Linux.CgroupsPath+"\n") {
		t.Errorf("got %s", b)
	}
}

// TestGroupsWithoutLimits: a container's processes are in a group of theirs also
// in the hierarchies that limit nothing, where those are mounted: systemd's, and
// version 2 beside version 1.
func TestGroupsWithoutLimits(t *testing.T) {
	clean(t)
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	dir, s := bundle(t, "sleep", "60")
	s.Linux.CgroupsPath = "/" + containerID(t)
	var want []string
	if l.V2 != nil {
		want = append(want, "0::"+s.Linux.CgroupsPath+"\n")
	}
	for i := range l.V1 {
		want = append(want, ":"+strings.Join(l.V1[i].Controllers, ",")+":"+s.Linux.CgroupsPath+"\n")
	}
	c := start(t, dir, s)
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Pid()))
	p := *s.Process
	p.Args = []string{"cat", "/proc/self/cgroup"}
	seen, _ := execIn(t, c, &p)
	for _, w := range want {
		if !strings.Contains(string(b), w) || !strings.Contains(seen, strings.Replace(w, s.Linux.CgroupsPath, "/", 1)) {
			t.Errorf("no %q in %s, or in what a further process sees: %s", w, b, seen)
		}
	}
	for _, m := range c.group.Members { // one that an older version made has none in some
		if m.Controllers == nil && !c.group.Unified {
			if err := errors.Join(os.WriteFile(m.Mount+"/cgroup.procs", []byte(strconv.Itoa(c.Pid())), 0), os.Remove(m.Dir)); err != nil {
				t.Error(err)
			}
			if _, code := execIn(t, c, &p); code != 0 {
				t.Error("not executed without a group in the hierarchy of version 2")
			}
		}
	}
}

func TestRootPropagation(t *testing.T) {
	dir, s := shell(t, "grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo")
	clean(t)
	root := filepath.Join(dir, "rootfs")
	if err := errors.Join(unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_SHARED, "")); err != nil { // as systemd makes all mounts
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	for name, want := range map[string]string{"rprivate": " - ", "private": " - ", "rshared": "shared:", "shared": "shared:", "runbindable": "unbindable", "slave": " - "} {
		s.Linux.RootfsPropagation = name
		out, _ := run(t, dir, s)
		if line, _, _ := strings.Cut(out, "\n"); !strings.Contains(line, want) || want == " - " && (strings.Contains(line, "shared:") || strings.Contains(line, "unbindable")) {
			t.Errorf("%s: got %q", name, out)
		}
	}
	s.Linux.RootfsPropagation = "nonsense"
	if _, _, err := tryRun(t, dir, s); err == nil || !strings.Contains(err.Error(), "linux.rootfsPropagation") {
		t.Errorf("got %v", err)
	}
}

func TestReadonlyPaths(t *testing.T) {
	clean(t)
	dir, s := shell(t, "(echo x > /etc/passwd) 2>/dev/null || echo refused; (echo x > /tmp/d/f) 2>/dev/null || echo refused; echo x > /tmp/f && echo wrote")
	_ = os.MkdirAll(filepath.Join(dir, "rootfs/tmp/d"), 0o755)
	s.Linux.ReadonlyPaths = []string{"/etc/passwd", "/tmp/d", "/not/there"}
	if out, _ := run(t, dir, s); out != "refused\nrefused\nwrote\n" {
		t.Errorf("got %q", out)
	}
}

// TestMaskRace changes a link below which a path is masked while containers are
// made: what the container finds there is the mask, wherever it was put, or the
// creation fails. Nothing outside of the root is ever covered.
func TestMaskRace(t *testing.T) {
	dir, s := shell(t, "cat /tmp/way/secret 2>/dev/null; true")
	clean(t)
	root := filepath.Join(dir, "rootfs")
	outside := t.TempDir()
	_ = os.WriteFile(filepath.Join(outside, "secret"), []byte("outside\n"), 0o644)
	_ = os.Mkdir(filepath.Join(root, "tmp/a"), 0o755)
	_ = os.WriteFile(filepath.Join(root, "tmp/a/secret"), []byte("secret\n"), 0o644)
	way := filepath.Join(root, "tmp/way")
	s.Linux.MaskedPaths = []string{"/tmp/a/secret", "/tmp/way/secret"}
	s.Linux.ReadonlyPaths = []string{"/tmp/way"}
	over := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
			}
			target := []string{"a", outside, "../../../../../../../.." + outside, "/tmp/a"}[i%4]
			_ = os.Symlink(target, way+".new")
			_ = os.Rename(way+".new", way)
		}
	}()
	begin := time.Now()
	for i := 0; i < 15 && time.Since(begin) < 5*time.Second; i++ {
		out, _, err := tryRun(t, dir, s)
		if err == nil && out != "" {
			t.Errorf("the container read %q", out)
		}
		if b, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(b) != "outside\n" {
			t.Fatalf("outside: %q, %v", b, err)
		}
		if n := mountsIn(os.Getpid(), outside); n != 0 {
			t.Fatal("a mount outside of the root")
		}
	}
	close(over)
	<-done
}
