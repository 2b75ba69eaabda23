package container

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

// bundle is what one start puts together for the supervising process.
type bundle struct {
	containers *Service
	r          *Record
	dir        string // below the exec root
	net        *attached
	users      userns.Files // its own, or another container's; none for the host's
	pid        *joined      // another container's pid namespace
	ipc        *ipc         // another container's
	root       snapshot.Mount
	mounts     []spec.Mount      // the user's, with where each lies
	trees      []supervise.Mount // those that no path leads to
	from       *restore          // nil: it begins anew
}

// gather makes the directory and gets hold of all that is not written: network,
// root, namespaces.
func (b *bundle) gather(ctx context.Context, back *undo.Stack) (err error) {
	if _, known := b.containers.cfg.Defaults.Get().Runtimes[b.r.Runtime]; !known { // it was, when the container was made
		return fault.New(fault.Invalid, "unknown or invalid runtime name: %s", b.r.Runtime)
	}
	if err := b.containers.cfg.Realtime.allow(b.containers.host.groups, cmp.Or(b.r.HostConfig.CgroupParent, b.containers.cfg.CgroupParent)); err != nil {
		return err
	}
	if err := b.containers.cfg.Confinement.load(b.r); err != nil {
		return err
	}
	if err := makeBundleDir(b.dir); err != nil {
		return err
	}
	back.Push(func() error { return os.RemoveAll(b.dir) })
	if b.net, err = b.attach(ctx); err != nil {
		return err
	}
	back.Push(func() error { return detach(ctx, b.containers.cfg.Networks, b.net.sandbox) })
	if err := b.joinUsers(); err != nil {
		return err
	}
	if b.root, err = b.containers.rootOf(ctx, b.r); err != nil {
		return err
	}
	if err := b.mountAll(ctx, back); err != nil {
		return err
	}
	if mode := b.r.HostConfig.PidMode; mode.IsContainer() {
		if b.pid, err = b.join(mode.Container(), "pid"); err != nil {
			return err
		}
	}
	if mode := b.r.HostConfig.IpcMode; mode.IsContainer() {
		b.ipc, err = b.joinIPC(mode.Container())
	}
	return err
}

// close drops what the supervising process has of its own by now.
func (b *bundle) close() {
	if b.net != nil {
		b.net.close()
	}
	b.pid.close()
	b.ipc.close()
	b.users.Close()
	for _, m := range b.trees {
		m.Tree.Close()
	}
}

// makeBundleDir makes an empty directory for a run.
func makeBundleDir(dir string) error {
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, os.ErrExist) { // what the last run could not clean
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o711)
	}
	return err
}

// write writes config.json and the files that the engine binds into the
// container.
func (b *bundle) write() (supervise.Config, error) {
	r, s := b.r, b.containers
	in, err := s.specInput(r, b.root, r.Config.User)
	if err != nil {
		return supervise.Config{}, err
	}
	in.Rootfs = filepath.Join(b.dir, "rootfs")
	in.NetNS, in.PidNS, in.Mounts = b.net.path, b.pid.path(), b.mounts
	if in.Users = r.Users; in.Users != nil {
		in.UserNS = supervise.UserNSPath
	}
	if r.HostConfig.PidMode.IsHost() {
		in.PidNS = "host"
	}
	if b.ipc != nil {
		in.IpcNS, in.Shm = b.ipc.ns.path(), filepath.Join(b.dir, supervise.ShmName)
	}
	if err := b.writeHostFiles(&in); err != nil {
		return supervise.Config{}, err
	}
	if s.cfg.Defaults.Get().WantsInit(r.HostConfig) {
		in.Init = s.cfg.InitPath
	}
	if err := b.labelFiles(&in); err != nil {
		return supervise.Config{}, err
	}
	oci, err := spec.Build(in)
	if err != nil {
		return supervise.Config{}, err
	}
	if err := s.cfg.CDI.Apply(oci, r.HostConfig.DeviceRequests); err != nil {
		return supervise.Config{}, err
	}
	data, err := spec.Encode(oci)
	if err != nil {
		return supervise.Config{}, err
	}
	if err := os.Mkdir(in.Rootfs, 0o755); err != nil {
		return supervise.Config{}, err
	}
	if err := saveSandbox(b.dir, b.net.sandbox); err != nil {
		return supervise.Config{}, err
	}
	log, err := s.Logbook.Destination(r)
	if err != nil {
		return supervise.Config{}, err
	}
	return b.config(oci.Process.Terminal, log), os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o600)
}

// config is what the supervising process must know.
func (b *bundle) config(tty bool, log supervise.Log) supervise.Config {
	r, s := b.r, b.containers
	c := supervise.Config{
		ID:        r.ID,
		Dir:       b.dir,
		Rootfs:    supervise.Rootfs{Dir: b.root.Dir, Lower: b.root.Lower, Upper: b.root.Upper, Work: b.root.Work, Volatile: r.AutoRemove(), ReadOnly: b.root.ReadOnly},
		Runtime:   s.cfg.Defaults.Get().Runtimes[r.Runtime],
		Log:       log,
		OpenStdin: r.Config.OpenStdin,
		StdinOnce: r.Config.StdinOnce,
		TTY:       tty,
		WatchOOM:  r.HostConfig.Memory > 0,
		NetNS:     b.net.netns,
		Held:      b.net.sockets,
		Relays:    relays(b.net.sandbox),
		Mounts:    b.trees,
		UserNS:    b.users.User,
	}
	if r.Users != nil {
		c.Rootfs.Users.UID, c.Rootfs.Users.GID = r.Users.Root()
	}
	c.Runtime.Systemd = s.cfg.Systemd
	if b.ipc != nil {
		c.Shm = b.ipc.shm
	}
	if l := s.cfg.Confinement.labels(r); l != nil {
		c.Rootfs.Label = l.Mount
	}
	if b.from != nil {
		c.Restore = &b.from.Restore
	}
	if size := r.HostConfig.ConsoleSize; tty {
		c.ConsoleSize = [2]uint16{uint16(size[0]), uint16(size[1])}
	}
	return c
}
