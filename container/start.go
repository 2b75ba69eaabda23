package container

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/stream"
	"github.com/tarehq/tare/container/users"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/snapshot"
)

// Start runs a container that does not run. The client's going away does not
// stop a start that has begun.
func (s *Service) Start(ctx context.Context, nameOrID, detachKeys string) error {
	if _, err := stream.DetachKeys(detachKeys); err != nil {
		return err
	}
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := startable(r); err != nil {
		return err
	}
	return s.startAnew(context.WithoutCancel(ctx), r, nil)
}

// startAnew is startLocked at somebody's wish: the restart policy counts and
// waits from the beginning.
func (s *Service) startAnew(ctx context.Context, r Record, from *restore) error {
	r.RestartCount = 0
	s.lives.of(r.ID).tries.Forget()
	return s.startLocked(ctx, r, from)
}

func startable(r Record) error {
	if r.State == record.Paused {
		return fault.New(fault.Conflict, "cannot start a paused container, try unpause instead")
	}
	if r.State.Live() {
		return fault.New(fault.NotModified, "container is already running")
	}
	return nil
}

// startLocked starts the container under its operation lock, from a checkpoint unless
// that is nil. A failure is recorded with Docker's exit code, and a container that
// removes itself goes.
func (s *Service) startLocked(ctx context.Context, r Record, from *restore) error {
	b := &bundle{containers: s, r: &r, dir: s.bundles.path(r.ID), from: from}
	err := b.launch(ctx)
	if err == nil {
		return nil
	}
	code, err := startFailure(err)
	l := s.lives.of(r.ID)
	l.dropPending()
	waited := r.State.Live() // by its restart policy it counted as running
	updated, updateErr := s.store.Note(r.ID, func(p *record.Progress) error {
		p.ExitCode, p.Error = code, err.Error()
		p.Pid, p.Sandbox = 0, nil
		if p.State != record.Created {
			p.State = record.Exited
		}
		return nil
	})
	if updateErr == nil {
		r = updated
	}
	err = errors.Join(err, updateErr)
	if waited { // else nothing has ended: who waits for an exit waits on
		l.tell(r, false)
	}
	if r.AutoRemove() {
		err = errors.Join(err, s.removeLocked(r, true))
	}
	return err
}

// notCreated are the words by which clients know what a runtime refused, among them
// its name.
const notCreated = "failed to create task for container: failed to create shim task: OCI runtime create failed: tarerun create failed"

// startFailure gives a failed start Docker's exit code and words: 127 for a
// program that is not there, 126 for one that may not run, 128 otherwise.
func startFailure(err error) (code int, _ error) {
	text := strings.ToLower(err.Error())
	has := func(part string) bool { return strings.Contains(text, part) }
	wrap := func(suffix string) error {
		return fault.New(fault.Invalid, notCreated+": unable to start container process: error during container init: %w%s", err, suffix)
	}
	switch {
	case has("cannot access path"): // of a mount
		return 128, err
	case strings.HasPrefix(text, "sysctl "):
		return 128, fault.New(fault.Invalid, notCreated+": %w", err)
	case fault.KindOf(err) == fault.NotImplemented || has("driver failed programming") || has("cdi device injection failed") || has("could not select device driver"):
		return 128, err
	case has("permission denied"):
		return 126, wrap("")
	case has("is a directory"):
		return 126, wrap(": permission denied") // the words by which clients know 126
	case has("make the working directory"): // nothing of it is mounted
		return 127, wrap("")
	case has("not a directory"), strings.HasPrefix(text, "mount /") && has("invalid argument"): // move_mount(2) of a file on a directory
		return 127, wrap(": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type")
	case has("executable file not found"), has("no such file or directory"):
		return 127, wrap("")
	case strings.HasPrefix(text, "mount tmpfs "), strings.HasPrefix(text, "set sysctl "):
		return 128, wrap("")
	}
	return 128, err
}

// launch does the steps of a start in their order; each registers its way
// back.
func (b *bundle) launch(ctx context.Context) (err error) {
	s, r := b.containers, b.r
	var back undo.Stack
	defer back.OnError(&err)
	defer b.close()
	s.remains.stir()
	s.remains.settle(r.ID)
	if err := b.gather(ctx, &back); err != nil {
		return err
	}
	config, err := b.write()
	if err != nil {
		return err
	}
	l := s.lives.of(r.ID)
	keeper, err := b.run(ctx, config, l.takePending(ctx))
	if err != nil {
		return err
	}
	back.Push(func() error { return end(ctx, keeper) })
	run, late := l.begin(keeper, nil)
	if s.tasks.Over() { // letGo has been here, or will find it
		keeper.Close()
	}
	handOver(ctx, keeper, late)
	closeAll(late)
	back.Push(func() error { l.end(run); return nil })
	status := keeper.Status()
	*r, err = s.store.Update(r.ID, func(p *record.Progress) error {
		*p = record.Progress{State: record.Running, Pid: status.Pid, StartedAt: status.StartedAt, FinishedAt: p.FinishedAt,
			RestartCount: r.RestartCount, Sandbox: b.net.sandbox, NetworkIDs: record.NetworkIDs(b.net.sandbox), Health: healthcheck.Starting(r.Config, p.Health)}
		return nil
	})
	if err != nil {
		return err
	}
	s.links.Moved(*r)
	s.Places.tell(r, events.ActionConnect)
	s.Health.begin(*r)
	s.publish(*r, events.ActionStart)
	s.Logbook.Begin(r)
	v := &vigil{containers: s, record: *r, live: l, run: run}
	s.tasks.Go(v.watch)
	return nil
}

// rootOf finds the layers of the container's root. After power loss a layer
// may have to be unpacked again, and a container that was created in its last
// moments may have its record and not its directories, which are synced by
// nobody: what never ran has nothing in them.
func (s *Service) rootOf(ctx context.Context, r *Record) (snapshot.Mount, error) {
	root, err := s.cfg.Snapshots.Mount(r.ID)
	if !errors.Is(err, fault.NotFound) {
		return root, err
	}
	if _, err := s.cfg.Images.UnpackManifest(ctx, r.Image.Manifest); err != nil {
		return root, err
	}
	root, err = s.cfg.Snapshots.Mount(r.ID)
	if errors.Is(err, fault.NotFound) && r.State == record.Created && r.StartedAt.IsZero() {
		if root, err = s.cfg.Snapshots.Prepare(r.ID, r.Image.ChainID); err == nil {
			err = s.limitStorage(r)
		}
	}
	return root, err
}

// specInput gathers what the container's specification and that of an exec
// have in common; who is the user to run as.
func (s *Service) specInput(r *Record, root snapshot.Mount, who string) (spec.Input, error) {
	layers := root.Trees()
	passwd, err := imageFile(layers, "/etc/passwd")
	if err != nil {
		return spec.Input{}, err
	}
	group, err := imageFile(layers, "/etc/group")
	if err != nil {
		return spec.Input{}, err
	}
	user, err := spec.User(who, passwd, group, r.HostConfig.GroupAdd)
	if err != nil {
		return spec.Input{}, err
	}
	if err := users.Known(r, user); err != nil {
		return spec.Input{}, err
	}
	in := spec.Input{ID: r.ID, Config: r.Config, HostConfig: r.HostConfig, Path: r.Path, Args: r.Args,
		User: user, CgroupParent: s.cfg.CgroupParent, Systemd: s.cfg.Systemd, Files: s.host.files}
	settings := s.cfg.Defaults.Get()
	in.NoNewPrivileges, in.Seccomp, in.OOMAdjusted = settings.NoNewPrivileges, settings.Seccomp, settings.OOMAdjusted
	in.AppArmor = s.cfg.Confinement.profile()
	if l := s.cfg.Confinement.labels(r); l != nil {
		in.ProcessLabel, in.MountLabel = l.Process, l.Mount
	}
	if len(r.Links) > 0 && s.cfg.LinkEnv {
		if in.Linked, err = s.links.Env(r); err != nil {
			return in, err
		}
	}
	in.UTSName, err = hostName(s.store, r)
	return in, err
}

// hostName is that of the container whose network it is in, or the host's
// where that one shares the host's names.
func hostName(s *record.Store, r *Record) (string, error) {
	named, err := s.NetworkOwner(*r)
	if err != nil {
		return "", err
	}
	if named.Config.Hostname == "" && (named.HostConfig.NetworkMode.IsHost() || named.HostConfig.UTSMode.IsHost()) {
		return os.Hostname()
	}
	return named.Config.Hostname, nil
}

// imageFile reads a file of the container's root, nil if it has none.
func imageFile(layers []string, name string) ([]byte, error) {
	data, err := snapshot.ReadFile(layers, name, 4<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
