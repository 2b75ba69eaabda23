package ocirun

import (
	"os"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// A profile of AppArmor and a label of SELinux are what the kernel is to put the
// user's program under when it is executed: the process writes them to files of
// its own in /proc. It is the host's /proc, opened before there is a container,
// and nothing mounted in it is passed.

// Apparmor tells whether the kernel has AppArmor and uses it.
var Apparmor = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
})

// Selinux tells whether the kernel has SELinux and a policy for it.
var Selinux = sync.OnceValue(func() bool {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &st) != nil || st.Type != unix.SELINUX_MAGIC {
		return false
	}
	b, err := os.ReadFile("/proc/thread-self/attr/current")
	return err == nil && strings.TrimRight(string(b), "\x00\n") != "kernel" // before a policy is loaded
})

const noSelinux = "selinux label is specified in config, but selinux is disabled or not supported"

// checkLabels refuses what this kernel would not enforce.
func checkLabels(p *specs.Process) error {
	switch {
	case p.SelinuxLabel != "" && !Selinux():
		return fault.New(fault.Invalid, "%s: process.selinuxLabel %q", noSelinux, p.SelinuxLabel)
	case p.ApparmorProfile != "" && !Apparmor():
		return fault.New(fault.Invalid, "apparmor failed to apply profile: process.apparmorProfile is %q, and this kernel does not use AppArmor", p.ApparmorProfile)
	}
	return nil
}

// openProc gives the steps that write labels a way to the host's /proc.
func (a *attempt) openProc(proc *specs.Process, floor int) error {
	if proc.SelinuxLabel == "" && proc.ApparmorProfile == "" {
		return nil
	}
	fd, err := openProcfs("/proc", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	a.b.proc, err = a.above(fd, floor)
	return err
}

// openProcfs opens a file of the kernel's, which somebody might have mounted
// another one over.
func openProcfs(name string, flags int) (int, error) {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fault.New(fault.Internal, "open %s: %w", name, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(fd)
		return -1, fault.New(fault.Internal, "%s is no file of a proc file system: something is mounted over it", name)
	}
	return fd, nil
}

// labels appends the writes, after the process has the memory that it keeps.
func (b *builder) labels(proc *specs.Process) {
	if name := proc.ApparmorProfile; name != "" {
		b.labelFile("apparmor failed to apply profile", name, "exec "+name, "thread-self/attr/apparmor/exec", "thread-self/attr/exec")
	}
	if label := proc.SelinuxLabel; label != "" {
		b.labelFile("set the SELinux label of the process to", label, label, "thread-self/attr/exec")
	}
	if b.proc >= 0 { // the working directory and the program are the image's, and could be paths through it
		b.close(num(b.proc))
	}
}

// labelFile writes to the first of the files that is there.
func (b *builder) labelFile(what, name, text string, files ...string) {
	p, write := b.program, b.label()
	fd := p.slot()
	how := p.words(num(unix.O_WRONLY|unix.O_CLOEXEC), num(0), num(unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS))
	for i, file := range files {
		open := p.do(what, strconv.Quote(name), unix.SYS_OPENAT2, num(b.proc), p.str(file), how, num(24)).into(fd).then(write)
		if i < len(files)-1 {
			open.when(unix.ENOENT, following)
		}
	}
	p.here(write)
	p.do(what, strconv.Quote(name), unix.SYS_WRITE, fd, p.str(text), num(len(text))).wants(uint64(len(text)))
	p.close(fd)
}

// keyLabel appends the label of the session keyring that is made next.
func (b *builder) keyLabel(proc *specs.Process) {
	if label := proc.SelinuxLabel; label != "" {
		b.labelFile("set the SELinux label of the keyring to", label, label, "thread-self/attr/keycreate")
	}
}

// labelled adds the label of the container's files to the options of a file
// system that can have one.
func labelled(data, label, fstype string) string {
	switch fstype {
	case "proc", "sysfs", "mqueue", "cgroup", "cgroup2":
		label = ""
	}
	if label == "" {
		return data
	}
	return strings.TrimPrefix(data+",context="+strconv.Quote(label), ",")
}
