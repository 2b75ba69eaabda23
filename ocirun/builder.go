package ocirun

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// builder turns a specification and the facts that the parent gathered into a
// program. Building has no effects; all descriptors are the parent's and have
// the same numbers in the child.
type builder struct {
	*program
	spec    *specs.Spec
	bundle  string
	rootfs  string
	noPivot bool
	isDir   func(path string) (bool, error)

	group *cgroup.Group
	tasks []int // v1: files that the child writes itself into
	gate  gate  // behind which the groups are made meanwhile
	joins []join

	again uint64 // clone flags of namespaces to be made in a joined user namespace, or by the child while groups are made

	rootTree int         // clone of the root made by the parent; -1: the child makes it
	trees    map[int]int // clones of mount sources by the mount's index

	sources    map[int]value      // the same, made by the child before it leaves the host's tree
	groupTrees map[string][]value // clones of control groups' directories, for a stage, one for each mount
	stage      int                // an empty mount namespace to be used; 0: none

	sync, peer   int // the child's and the parent's end of the socket
	fifo         int // released through a FIFO instead of the socket; -1 none
	proc         int // the host's /proc, for labels; -1 without any
	initFD       int // memfd to be executed; -1: the child goes on in the parent's memory
	stdio        [3]int
	null         [3]bool // those that are the host's null device; the others become the user's
	extra        []int
	console      int
	seccomp      []byte // struct sock_filter array; nil: no filter
	seccompFlags uint
	home         string
	hooks        bool // the parent runs hooks before the mounts are made
	requests     []func(*attempt) error
	inner        innerHooks
	hookStatus   []hookStatus
	warn         func(string)
	noKeyring    bool
	kernelMounts []string // of the host's proc and sysfs, for noPivot
	timeNS       bool     // a time namespace is joined, by the pidfd timeFD
	timeFD       int

	root       root
	late       []string // mounts that become read-only at the end
	terminal   value    // the slave of the pty
	pathLength value
	fresh      map[string]bool // where an empty file system is mounted
	mask       value           // of processors, of maskSize bytes, which nobody needs after the call
	statfs     value           // memory for a struct statfs, whose first word is the type
	exit       label
}

// join is a namespace to enter by descriptor.
type join struct {
	kind string
	flag uintptr
	fd   int
}

// What the child tells: small numbers, where a failed step has its address.
const (
	recordReady    = 1 + iota // waits for the start
	recordMaps                // waits for id maps and clock offsets
	recordHooks               // waits for the runtime's hooks
	recordChild               // has made a child, which waits, and ends
	recordListener            // has a listener of its seccomp filter, and waits until the agent has it
	recordInner               // waits for the state that inner hooks read
	recordAsk                 // and those above: waits for a request to be done
)

var namespaceFlags = map[specs.LinuxNamespaceType]uintptr{
	specs.MountNamespace: unix.CLONE_NEWNS, specs.PIDNamespace: unix.CLONE_NEWPID, specs.UTSNamespace: unix.CLONE_NEWUTS,
	specs.IPCNamespace: unix.CLONE_NEWIPC, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.UserNamespace: unix.CLONE_NEWUSER,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP, specs.TimeNamespace: unix.CLONE_NEWTIME,
}

func (b *builder) namespace(t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	return namespaceOf(b.spec, t)
}

// has tells whether the container has a namespace of the kind that is not
// simply inherited; isNew whether it is made for the container.
func (b *builder) has(t specs.LinuxNamespaceType) bool { return b.namespace(t) != nil }
func (b *builder) isNew(t specs.LinuxNamespaceType) bool {
	n := b.namespace(t)
	return n != nil && n.Path == ""
}
func (b *builder) userNamespace() bool { return b.has(specs.UserNamespace) }

// build appends the whole life of a container's init before its program.
func (b *builder) build() error {
	b.begin()
	if b.isNew(specs.TimeNamespace) && !b.timeNS {
		b.do("make the time namespace", "", unix.SYS_UNSHARE, num(unix.CLONE_NEWTIME))
	}
	b.enterNamespaces()
	if b.isNew(specs.TimeNamespace) && b.timeNS {
		b.makeTime()
	}
	if b.waitsForMaps() {
		b.report(recordMaps)
		b.pause()
	}
	if b.userNamespace() {
		b.becomeRoot()
	}
	b.do("start a session", "", unix.SYS_SETSID)
	if !b.noKeyring {
		b.keyLabel(b.spec.Process)
		b.do("join the session keyring", "", unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), b.str("_ses")).ignore()
	}
	if !b.gate.shut() {
		if err := b.settle(); err != nil {
			return err
		}
	}
	if err := b.names(); err != nil {
		return err
	}
	if b.isNew(specs.NetworkNamespace) {
		b.loopback()
	}
	if len(b.spec.Linux.NetDevices) > 0 {
		b.ask((*attempt).moveDevices)
	}
	if b.hooks {
		b.report(recordHooks)
		b.pause()
	}
	if err := b.buildRoot(); err != nil {
		return err
	}
	if err := b.finishProcess(b.spec.Process); err != nil {
		return err
	}
	if len(b.requests) > maxRequests {
		return fault.New(fault.Invalid, "config.json has more than %d mounts", maxRequests)
	}
	b.end()
	return nil
}

// begin makes the child's signals its own. Handlers are gone by the clone.
func (b *builder) begin() {
	b.exit = b.label()
	empty := b.words(num(0))
	b.do("unblock signals", "", unix.SYS_RT_SIGPROCMASK, num(2), empty, num(0), num(8))
	b.do("close", "", unix.SYS_CLOSE, num(b.peer)).ignore()
	b.gate.begin(b.program)
}

// end is where failures go, and where a child goes whose parent is gone.
func (b *builder) end() {
	b.here(b.fail)
	b.do("report the failure", "", unix.SYS_WRITE, num(b.sync), value{verdict, 0}, num(16)).ignore()
	b.here(b.exit)
	b.do("exit", "", unix.SYS_EXIT_GROUP, num(1)).ignore()
}

func (b *builder) report(record int) {
	b.do("report", "", unix.SYS_WRITE, num(b.sync), b.words(num(record), num(0)), num(16)).otherwise(b.exit)
}

// pause waits for a byte of the parent; a parent that is gone ends the child.
func (b *builder) pause() {
	b.do("wait for the runtime", "", unix.SYS_READ, num(b.sync), b.words(num(0)), num(1)).wants(1).otherwise(b.exit)
}

// await waits for the start.
func (b *builder) await() {
	if b.fifo < 0 {
		b.pause()
		return
	}
	b.do("wait for the start", "", unix.SYS_READ, num(b.fifo), b.words(num(0)), num(1)).wants(1).otherwise(b.exit)
}

// waitsForMaps tells whether the parent has to write id maps or clock offsets.
func (b *builder) waitsForMaps() bool {
	return b.isNew(specs.UserNamespace) || b.isNew(specs.TimeNamespace) && len(b.spec.Linux.TimeOffsets) > 0
}

func (b *builder) enterNamespaces() {
	for _, j := range b.joins {
		b.do("join the "+j.kind+" namespace", "", unix.SYS_SETNS, num(j.fd), num(j.flag))
	}
	what := "make namespaces"
	if b.userNamespace() {
		what = "make namespaces in the joined user namespace"
	}
	switch {
	case b.again&unix.CLONE_NEWPID != 0:
		// Only a child is in a new pid namespace. It becomes the runtime's child.
		first, record := b.label(), b.words(num(recordChild), num(0))
		flags := b.again | unix.CLONE_VM | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | uint64(unix.SIGCHLD)
		b.do(what, "", unix.SYS_CLONE, num(flags), num(0), value{address, record.n + 8})
		second := b.label()
		b.do("tell both apart", "", unix.SYS_GETPID).wants(1).then(second).otherwise(first)
		b.here(first)
		b.do("report", "", unix.SYS_WRITE, num(b.sync), record, num(16)).ignore()
		b.jump(b.exit)
		b.here(second)
		b.pause()
	case b.again != 0:
		b.do(what, "", unix.SYS_UNSHARE, num(b.again))
	}
}

// becomeRoot takes the identity that the user namespace maps to 0.
func (b *builder) becomeRoot() {
	b.do("drop additional groups", "", unix.SYS_SETGROUPS, num(0), num(0)).when(unix.EPERM, following)
	b.do("become root of the user namespace: group", "0", unix.SYS_SETRESGID, num(0), num(0), num(0))
	b.do("become root of the user namespace: user", "0", unix.SYS_SETRESUID, num(0), num(0), num(0))
}

// makeTime makes a time namespace on kernels that do not enter it by execution,
// nor clone into other memory before that: the executed init joins it, by a
// descriptor that has its number already.
func (b *builder) makeTime() {
	b.do("make the time namespace", "", unix.SYS_UNSHARE, num(unix.CLONE_NEWTIME))
	own := b.slot()
	b.do("open the time namespace", "", unix.SYS_OPENAT, cwd, b.str("/proc/self/ns/time_for_children"), num(unix.O_RDONLY|unix.O_CLOEXEC)).into(own)
	b.do("keep the time namespace", "", unix.SYS_DUP3, own, num(b.timeFD), num(unix.O_CLOEXEC))
	b.close(own)
}

// settle enters the control groups, and what depends on them.
func (b *builder) settle() error {
	b.enterGroups()
	if err := b.affinity(""); err != nil {
		return err
	}
	if err := b.taskAttributes(b.spec.Process, b.spec.Linux); err != nil {
		return err
	}
	if b.isNew(specs.CgroupNamespace) {
		b.do("make the cgroup namespace", "", unix.SYS_UNSHARE, num(unix.CLONE_NEWCGROUP))
	}
	return nil
}

// enterGroups writes the child itself into the v1 groups: a process of one
// thread enters by the file tasks without waiting for a grace period.
func (b *builder) enterGroups() {
	if b.gate.shut() {
		b.passGate()
		return
	}
	if b.group.Waits() {
		b.ask(func(a *attempt) error { return a.b.group.Begin(a.pid, a.b.resources()) })
		return
	}
	zero := b.str("0")
	for i, fd := range b.tasks {
		b.do("enter the control group", b.group.Members[i].Dir, unix.SYS_WRITE, num(fd), zero, num(1))
	}
}

func (b *builder) names() error {
	if h := b.spec.Hostname; h != "" {
		if !b.has(specs.UTSNamespace) {
			return fault.New(fault.Invalid, "the hostname %q cannot be set without an own uts namespace", h)
		}
		b.do("set the hostname", strconv.Quote(h), unix.SYS_SETHOSTNAME, b.str(h), num(len(h)))
	}
	if d := b.spec.Domainname; d != "" {
		if !b.has(specs.UTSNamespace) {
			return fault.New(fault.Invalid, "the domainname %q cannot be set without an own uts namespace", d)
		}
		b.do("set the domainname", strconv.Quote(d), unix.SYS_SETDOMAINNAME, b.str(d), num(len(d)))
	}
	return nil
}

// loopback brings up lo, which a new network namespace has and nobody else
// sets up (netdevice(7)).
func (b *builder) loopback() {
	var request [40]byte // struct ifreq
	copy(request[:], "lo")
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP|unix.IFF_RUNNING)
	const what = "bring up the loopback interface"
	socket := b.slot()
	b.do(what, "", unix.SYS_SOCKET, num(unix.AF_INET), num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), num(0)).into(socket)
	b.do(what, "", unix.SYS_IOCTL, socket, num(unix.SIOCSIFFLAGS), b.bytes(request[:]))
	b.close(socket)
}

// filter appends the load of the seccomp filter.
func (b *builder) filter() error {
	if b.seccomp == nil {
		return nil
	}
	code := b.bytes(b.seccomp)
	prog := b.words(num(len(b.seccomp)/8), code)
	load := b.do("load the seccomp filter", "", unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(b.seccompFlags), prog)
	if b.listens() { // the descriptor goes with the record, and closes on execution
		record := b.words(num(recordListener), num(0))
		load.into(slotAt(record, 8))
		b.do("report", "", unix.SYS_WRITE, num(b.sync), record, num(16)).otherwise(b.exit)
		b.pause()
	}
	return nil
}

// listens tells whether an agent answers some system calls.
func (b *builder) listens() bool { return b.seccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

// openTerminal appends the making of a pty in the container's devpts, its
// sending through the console socket and, for init, /dev/console.
func (b *builder) openTerminal(init bool) {
	p, what := b.program, "make the terminal"
	r := b.root
	if !init {
		r = newRoot(p, cwd)
	}
	vec := p.words(p.str("/dev/ptmx"), num(9))
	control := p.words(num(20), num(1|uint64(unix.SCM_RIGHTS)<<32), num(0)) // struct cmsghdr and the descriptor
	message := p.words(num(0), num(0), vec, num(1), control, num(20), num(0))
	master := slotAt(control, 16)
	r.openFlags(what, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY).into(master)
	p.do(what, "", unix.SYS_IOCTL, master, num(unix.TIOCSPTLCK), p.words(num(0)))
	b.terminal = p.slot()
	p.do(what, "", unix.SYS_IOCTL, master, num(unix.TIOCGPTPEER), num(unix.O_RDWR|unix.O_NOCTTY)).into(b.terminal)
	if box := b.spec.Process.ConsoleSize; box != nil {
		size := num(uint64(box.Height&0xffff) | uint64(box.Width&0xffff)<<16)
		p.do("set the window size", "", unix.SYS_IOCTL, master, num(unix.TIOCSWINSZ), p.words(size))
	}
	p.do("send the terminal to the console socket", "", unix.SYS_SENDMSG, num(b.console), message, num(0))
	p.close(master)
	if init {
		target := r.ensure("mount the terminal at", "/dev/console", false, r.any)
		tree := p.slot()
		p.do("mount the terminal at", "/dev/console", unix.SYS_OPEN_TREE, b.terminal, p.str(""), num(cloneFlags(false)|unix.AT_EMPTY_PATH)).into(tree)
		p.place("mount the terminal at", "/dev/console", tree, target)
		p.close(tree)
		p.close(target)
	}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// isDir tells whether a path of the host is a directory.
func isDir(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// openRegular opens a file of an image for reading that is a plain one: to open a
// device is to use it.
func openRegular(root int, name string) (int, error) {
	found, err := openat.Open(root, name, unix.O_PATH, openat.InRoot)
	if err != nil {
		return -1, err
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.EINVAL
	}
	return unix.Open("/proc/thread-self/fd/"+strconv.Itoa(found), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// readHome finds the user's home directory in the container's /etc/passwd,
// opened below the root; "/" when there is none.
func readHome(rootfs string, uid uint32) string {
	dir, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(dir)
	fd, err := openRegular(dir, "etc/passwd")
	if err != nil {
		return "/"
	}
	f := os.NewFile(uintptr(fd), filepath.Join(rootfs, "etc/passwd"))
	defer f.Close()
	if home := homeOf(io.LimitReader(f, 1<<20), uid); home != "" {
		return home
	}
	return "/"
}
