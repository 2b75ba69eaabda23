package ocirun

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/cgroup"
	"github.com/tarehq/tare/ocirun/criu"
)

// CheckpointOptions are what a checkpoint is made with, and a restoration. The
// names are CRIU's, criu(8).
type CheckpointOptions struct {
	CRIU   string // the program; "": criu, in PATH
	Images string // directory that receives or has the images; made if it is missing
	Work   string // directory of the log and of statistics; "": Images
	Parent string // directory of an earlier pre-dump, relative to Images

	LeaveRunning    bool // else the container's processes end
	PreDump         bool // only the memory, and the container goes on
	TCPEstablished  bool // connections are part of it
	TCPSkipInFlight bool // those that are being made are left out
	TCPClose        bool // connections are closed when it is restored
	LinkRemap       bool // files that are open and have no name get one
	ExtUnixSockets  bool // sockets that lead out are left alone
	ShellJob        bool // of a session that began outside
	FileLocks       bool
	AutoDedup       bool // what a later image has again is punched out of earlier ones
	LazyPages       bool // memory is given when it is touched
	StatusFD        int  // gets a zero byte when memory can be asked for; 0: none
	PageServer      string

	EmptyNetwork    bool // is there for callers of runc: a network is never dumped, as it comes with the container
	CgroupsMode     string
	LSMProfile      string // of a restoration
	LSMMountContext string // of a restoration

	// Descriptors say what descriptors 0, 1 and 2 of init were when it was made,
	// as their links in /proc tell it; empty: what they are now.
	Descriptors []string
}

// descriptorsFile lies among the images and tells what descriptors 0, 1 and 2
// lead to outside, in runc's form: an array of three strings.
const descriptorsFile = "descriptors.json"

// cgroupModes are criu(8)'s --manage-cgroups modes.
var cgroupModes = map[string]rpc.CriuCgMode{
	"": rpc.CriuCgMode_SOFT, "soft": rpc.CriuCgMode_SOFT, "full": rpc.CriuCgMode_FULL, "strict": rpc.CriuCgMode_STRICT, "ignore": rpc.CriuCgMode_IGNORE,
}

// Checkpoint writes the processes of the container, which runs or is paused, to
// files. Unless it is left running it ends then, killed by SIGKILL; a failed
// checkpoint leaves it as it was. One that was paused goes on when it is restored.
func (c *Container) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	if err := c.checkpointable(&o); err != nil {
		return err
	}
	opts, files, err := o.common("dump.log", c.known())
	defer closeFiles(files)
	if err != nil {
		return err
	}
	if err := c.dumpOptions(&o, opts); err != nil {
		return err
	}
	if o.CgroupsMode == "" && !c.managesGroups() {
		opts.ManageCgroupsMode = rpc.CriuCgMode_IGNORE.Enum()
	}
	kind := rpc.CriuReqType_DUMP
	if o.PreDump || o.LazyPages {
		track, lazy, err := criu.Has(ctx, o.CRIU)
		switch {
		case err != nil:
			return err
		case o.PreDump && !track:
			return fault.New(fault.NotImplemented, "criu is missing features: [MemTrack]: this kernel does not tell which memory is written; make the checkpoint without a pre-dump")
		case o.LazyPages && !lazy:
			return fault.New(fault.NotImplemented, "criu is missing features: [LazyPages]")
		}
	}
	if o.PreDump {
		kind = rpc.CriuReqType_PRE_DUMP
	} else if err := c.external(&o, opts); err != nil {
		return err
	}
	call := criu.Call{Path: o.CRIU, Group: -1, Request: &rpc.CriuReq{Type: &kind, Opts: opts}, Notified: func(n criu.Notice) error {
		if n.Stage == "status-ready" && o.StatusFD > 0 {
			_, _ = unix.Write(o.StatusFD, []byte{0})
			_ = unix.Close(o.StatusFD)
		}
		return nil
	}}
	// CRIU stops the processes one by one, which the frozen do not heed. (To have
	// it freeze the group costs the tenth of a second that it waits for that.)
	paused := c.group.Frozen()
	if paused {
		if err := c.group.Freeze(false); err != nil {
			return err
		}
	}
	_, err = call.Do(ctx)
	if paused && (err != nil || o.LeaveRunning || o.PreDump) {
		err = errors.Join(err, c.group.Freeze(true))
	}
	if err != nil {
		return o.explain(err, "dump.log")
	}
	return criu.TidyGroups(filepath.Join(o.Images, "cgroup.img"), c.ownHierarchy)
}

// managesGroups tells whether CRIU has to note groups: what a container sees as the
// root of all, and those that it made below its own. Its own, and their limits, are
// made anew by whoever restores it, by the configuration.
func (c *Container) managesGroups() bool {
	return c.group.Unified || c.group.Nested()
}

// ownGroups tells whether the container has a cgroup namespace of its own.
func (c *Container) ownGroups() bool {
	return slices.ContainsFunc(c.known().Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

// ownHierarchy tells whether the container has a group of its own in the
// hierarchy of a controller; "" is version 2's.
func (c *Container) ownHierarchy(controller string) bool {
	if c.group.Unified {
		return controller == ""
	}
	return slices.ContainsFunc(c.group.Members, func(m cgroup.Member) bool {
		return slices.Contains(m.Controllers, controller) || m.Controllers == nil && controller == ""
	})
}

// checkpointable says what stands in the way, before anything is touched.
func (c *Container) checkpointable(o *CheckpointOptions) error {
	if o.Images == "" {
		return fault.New(fault.Invalid, "invalid directory to save checkpoint")
	}
	if _, ok := cgroupModes[o.CgroupsMode]; !ok {
		return fault.New(fault.Invalid, "invalid manage-cgroups-mode value: %q; use soft, full, strict or ignore", o.CgroupsMode)
	}
	if _, err := criu.LookPath(o.CRIU); err != nil {
		return err
	}
	if s := c.State().Status; s == specs.StateStopped || s == specs.StateCreated {
		return fault.New(fault.Conflict, "Container cannot be checkpointed in %s state", s)
	}
	for _, n := range c.known().Linux.Namespaces {
		if n.Path != "" && n.Type == specs.CgroupNamespace {
			return fault.New(fault.Invalid, "the container is in another's cgroup namespace, which cannot be checkpointed")
		}
	}
	return c.onlyInit()
}

// onlyInit refuses a container with processes that do not come from its init,
// such as those of exec: nobody would be their parent after a restoration.
func (c *Container) onlyInit() error {
	pids, err := c.group.Procs()
	if err != nil {
		return fault.New(fault.Internal, "list the processes of container %s: %w", c.id, err)
	}
	for _, pid := range pids {
		for at := pid; at != c.pid; {
			parent, name, ok := parentOf(at)
			if !ok { // it has just ended
				break
			}
			if parent <= 1 || !slices.Contains(pids, parent) {
				return fault.New(fault.Conflict, "container %s has the process %d (%s) that was not started by its init, such as an exec: end it, then make the checkpoint", c.id, at, name)
			}
			at = parent
		}
	}
	return nil
}

// parentOf reads a process's parent and name.
func parentOf(pid int) (parent int, name string, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", false
	}
	text := string(b)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return 0, "", false
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 2 || f[0] == "Z" || f[0] == "X" {
		return 0, "", false
	}
	parent, _ = strconv.Atoi(f[1])
	return parent, text[open+1 : end], true
}

// dumpOptions are those that a restoration does not have.
func (c *Container) dumpOptions(o *CheckpointOptions, opts *rpc.CriuOpts) error {
	pid := int32(c.pid)
	opts.Pid, opts.LeaveRunning = &pid, &o.LeaveRunning
	opts.TcpSkipInFlight, opts.LinkRemap = &o.TCPSkipInFlight, &o.LinkRemap
	root := c.rootfs()
	opts.Root = &root
	if o.Parent != "" {
		opts.ParentImg, opts.TrackMem = &o.Parent, new(true)
	}
	if o.PreDump {
		opts.TrackMem = new(true)
	}
	if o.PageServer == "" {
		return nil
	}
	host, port := hostPort(o.PageServer)
	if host == "" || port == "" {
		return fault.New(fault.Invalid, "Use --page-server ADDRESS:PORT to specify page server")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fault.New(fault.Invalid, "Invalid port number")
	}
	opts.Ps = &rpc.CriuPageServerInfo{Address: &host, Port: new(int32(n))}
	return nil
}

// hostPort cuts HOST:PORT, where a host with colons of its own stands in brackets.
// Without package net, which costs each program that has it a part of its start.
func hostPort(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", ""
	}
	host, port = s[:i], s[i+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			return inner, port
		}
	}
	if strings.ContainsAny(host, ":[]") {
		return "", ""
	}
	return host, port
}

// rootfs is the root's path on the host.
func (c *Container) rootfs() string {
	root := "rootfs"
	if r := c.known().Root; r != nil {
		root = r.Path
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join(c.bundle, root)
	}
	return root
}

// common are the options of both directions, and the files that they name by
// number.
func (o *CheckpointOptions) common(log string, spec *specs.Spec) (opts *rpc.CriuOpts, files []*os.File, err error) {
	mode, level := cgroupModes[o.CgroupsMode], int32(4)
	empty := uint32(unix.CLONE_NEWNET) // what is in it comes with the container, from whoever made that
	images, err := openDir(o.Images)
	if err != nil {
		return nil, nil, err
	}
	files = append(files, images)
	opts = &rpc.CriuOpts{
		ImagesDirFd: new(int32(images.Fd())), LogLevel: &level, LogFile: &log, NotifyScripts: new(true),
		ManageCgroups: new(true), ManageCgroupsMode: &mode, EmptyNs: &empty, OrphanPtsMaster: new(true),
		ShellJob: &o.ShellJob, TcpEstablished: &o.TCPEstablished, TcpClose: &o.TCPClose, ExtUnixSk: &o.ExtUnixSockets,
		FileLocks: &o.FileLocks, AutoDedup: &o.AutoDedup, LazyPages: &o.LazyPages,
	}
	if !o.TCPEstablished {
		// Nobody's connection has to be kept from what a stopped process would answer,
		// and CRIU executes two programs for each lock. The images say how they were locked.
		opts.NetworkLock = rpc.CriuNetworkLockMethod_SKIP.Enum()
	}
	if o.Work != "" {
		work, err := openDir(o.Work)
		if err != nil {
			return nil, files, err
		}
		files = append(files, work)
		opts.WorkDirFd = new(int32(work.Fd()))
	}
	config := "/etc/criu/runc.conf" // what the host's administrator wants of all containers
	if named, ok := spec.Annotations["org.criu.config"]; ok {
		config = named
	}
	if config != "" {
		opts.ConfigFile = &config
	}
	return opts, files, nil
}

// openDir opens a directory, which is made if it is missing.
func openDir(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return nil, fault.New(fault.Invalid, "make the directory of the checkpoint: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Invalid, "open the directory of the checkpoint %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// explain adds to CRIU's refusal what its log says of the reason.
func (o *CheckpointOptions) explain(err error, log string) error {
	if errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Internal {
		return err
	}
	dir := o.Work
	if dir == "" {
		dir = o.Images
	}
	name := filepath.Join(dir, log)
	if why := loggedError(name); why != "" {
		return fault.New(fault.Internal, "%w: %s (log file: %s)", err, why, name)
	}
	return fault.New(fault.Internal, "%w (log file: %s)", err, name)
}

// loggedError is the first error in a log of CRIU's that is more than a
// complaint about what CRIU finds for itself: those that follow are its
// consequences.
func loggedError(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, text, found := strings.Cut(lines.Text(), "Error (")
		if !found || strings.Contains(text, "RLIMIT_NOFILE") || strings.HasPrefix(text, "criu/tun.c") {
			continue
		}
		if _, words, ok := strings.Cut(text, "): "); ok {
			return strings.TrimSpace(words)
		}
	}
	return ""
}

// external tells CRIU what of the container is not its own: mounts and files
// that come from outside, and namespaces that somebody else holds.
func (c *Container) external(o *CheckpointOptions, opts *rpc.CriuOpts) error {
	for _, n := range c.known().Linux.Namespaces {
		if n.Path == "" || n.Type != specs.NetworkNamespace && n.Type != specs.PIDNamespace {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(n.Path, &st); err != nil {
			return fault.New(fault.Invalid, "find the %s namespace %s: %w", n.Type, n.Path, err)
		}
		opts.External = append(opts.External, fmt.Sprintf("%s[%d]:%s", namespaceName(n.Type), st.Ino, namespaceKey(n.Type)))
	}
	mounts, err := readMounts(c.pid)
	if err != nil {
		return err
	}
	if opts.ExtMnt, err = c.outerMounts(mounts); err != nil {
		return err
	}
	list, err := c.outerFiles(o, mounts)
	if err != nil {
		return err
	}
	for _, key := range list {
		if strings.HasPrefix(key, "file[") {
			if !slices.Contains(opts.External, key) {
				opts.External = append(opts.External, key)
			}
		}
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(filepath.Join(o.Images, descriptorsFile), text, 0o600)
	}
	if err != nil {
		return fault.New(fault.Internal, "write the checkpoint: %w", err)
	}
	return nil
}

// namespaceName is CRIU's word for a kind of namespace, namespaceKey what one
// that is not the container's own is called in the images, as runc calls it.
func namespaceName(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

func namespaceKey(t specs.LinuxNamespaceType) string {
	name := namespaceName(t)
	return "extRoot" + strings.ToUpper(name[:1]) + name[1:] + "NS"
}
