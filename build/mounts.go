package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

// mount makes ready what the step has beside its root. Trees reach the step as
// descriptors, so that no path that somebody else can change leads to them.
func (s *step) mount(ctx context.Context) error {
	if err := s.secretEnv(ctx); err != nil {
		return err
	}
	wanted := slices.Clone(s.op.Mounts)
	for i, m := range wanted {
		if !path.IsAbs(m.Dest) {
			m = &pb.Mount{Input: m.Input, Selector: m.Selector, Dest: path.Join("/", s.op.Meta.GetCwd(), m.Dest), Output: m.Output, Readonly: m.Readonly,
				MountType: m.MountType, TmpfsOpt: m.TmpfsOpt, CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt}
		}
		wanted[i] = m
	}
	wanted = slices.DeleteFunc(wanted, func(m *pb.Mount) bool { return m.Dest == pb.RootMount })
	if len(wanted) == 0 {
		return nil
	}
	// What lies in another mount comes after it. All steps take caches in the
	// same order, so that two of them cannot wait for each other.
	slices.SortStableFunc(wanted, func(a, b *pb.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	if err := s.takeCaches(ctx, wanted); err != nil {
		return err
	}
	for _, m := range wanted {
		mount, err := s.mountOne(ctx, m)
		if err != nil && (m.MountType == pb.MountType_SECRET || m.MountType == pb.MountType_SSH) {
			return err // which names what the client did not lend, as BuildKit does
		}
		if err != nil {
			return fmt.Errorf("the mount %s of the step: %w", m.Dest, err)
		}
		if mount != nil {
			mount.Destination = path.Clean(m.Dest)
			s.mounts = append(s.mounts, *mount)
		}
	}
	return s.findStubs()
}

func (s *step) mountOne(ctx context.Context, m *pb.Mount) (*specs.Mount, error) {
	switch m.MountType {
	case pb.MountType_BIND:
		return s.bind(ctx, m)
	case pb.MountType_CACHE:
		tree := s.caches[m]
		return s.show(tree, "", m.Readonly)
	case pb.MountType_TMPFS:
		options := []string{"nosuid"}
		if size := m.TmpfsOpt.GetSize(); size > 0 {
			options = append(options, fmt.Sprintf("size=%d", size))
		}
		return &specs.Mount{Type: "tmpfs", Source: "tmpfs", Options: options}, nil
	case pb.MountType_SECRET:
		return s.secretFile(ctx, m.SecretOpt)
	case pb.MountType_SSH:
		return s.agent(ctx, m.SSHOpt)
	}
	return nil, fault.New(fault.NotImplemented, "RUN --mount=type=%s is not supported yet", strings.ToLower(m.MountType.String()))
}

// show has the step see a tree, which is this step's from here on.
func (s *step) show(t *tree, subpath string, readOnly bool) (*specs.Mount, error) {
	s.back.Push(t.Close)
	place := supervise.MountPath(s.dir, len(s.trees))
	s.trees = append(s.trees, supervise.Mount{Tree: t.root, Subpath: subpath})
	options := []string{"bind"}
	if readOnly {
		options = append(options, "ro")
	}
	return &specs.Mount{Type: "bind", Source: place, Options: options}, nil
}

// bind shows files of another tree. What the step writes there is nobody's.
func (s *step) bind(ctx context.Context, m *pb.Mount) (*specs.Mount, error) {
	var in *output
	switch {
	case m.Input < 0:
		in = &output{}
	case int(m.Input) < len(s.in):
		in = s.in[m.Input]
	default:
		return nil, fault.New(fault.Invalid, "it has nothing to show")
	}
	var t *tree
	var err error
	switch {
	case m.Output >= 0:
		t, err = s.keep(ctx, m, in)
	case m.Readonly:
		t, err = s.job.solver.openAs(ctx, in, unix.MOUNT_ATTR_NODEV, s.users.shown())
	default:
		t, err = s.scratch(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	subpath, err := t.resolve(m.Selector)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return s.show(t, subpath, m.Readonly)
}

// scratch is a tree that can be written to and is thrown away.
func (s *step) scratch(ctx context.Context, in *output) (*tree, error) {
	if in.dir != "" {
		return s.scratchOf(in.dir)
	}
	id := "build-" + idgen.New()[:32]
	store := s.job.solver.Store
	m, err := store.Prepare(ctx, id, in.chain())
	if err != nil {
		return nil, err
	}
	s.back.Push(func() error { return store.Discard(context.WithoutCancel(ctx), id) })
	return mountedAs(m, unix.MOUNT_ATTR_NODEV, s.users.shown())
}

// scratchOf does so with a directory of files from outside.
func (s *step) scratchOf(dir string) (*tree, error) {
	own, err := os.MkdirTemp(s.job.solver.scratchDir(), "")
	if err != nil {
		return nil, err
	}
	s.back.Push(func() error { return os.RemoveAll(own) })
	o := overlayfs.Overlay{Lower: []string{dir}, Upper: filepath.Join(own, "upper"), Work: filepath.Join(own, "work"), Volatile: true, Users: s.users.shown()}
	if err := errors.Join(os.Mkdir(o.Upper, 0o755), os.Mkdir(o.Work, 0o700)); err != nil {
		return nil, err
	}
	fd, err := overlayfs.Mount(o, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	return &tree{root: os.NewFile(uintptr(fd), "/")}, nil
}

// resolve follows a path in a mounted tree to what it leads to, and returns the
// path without links, "" for the root.
func (t *tree) resolve(name string) (string, error) {
	if path.Join("/", name) == "/" {
		return "", nil
	}
	f, err := t.openPath(name, true)
	if err != nil {
		return "", err
	}
	defer f.Close()
	where, err := os.Readlink(fdPath(f))
	if err != nil {
		return "", err
	}
	base, err := os.Readlink(fdPath(t.root))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(base, where)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fault.New(fault.Invalid, "cannot find %s", name)
	}
	if rel == "." {
		rel = ""
	}
	return rel, nil
}

// secretFile binds a file that only this step sees.
func (s *step) secretFile(ctx context.Context, o *pb.SecretOpt) (*specs.Mount, error) {
	data, err := s.job.session.Secret(ctx, o.GetID())
	if errors.Is(err, fault.NotFound) && o.GetOptional() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	name := filepath.Join(s.dir, fmt.Sprintf("secret%d", len(s.mounts))) // below the exec root, which is memory
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return nil, err
	}
	if err := s.own(name, o.GetMode(), o.GetUid(), o.GetGid()); err != nil {
		return nil, err
	}
	return &specs.Mount{Type: "bind", Source: name, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}}, nil
}

// own gives a file an owner in the step.
func (s *step) own(name string, mode, uid, gid uint32) error {
	if m := s.users.ids(); m != nil {
		uid, _ = userns.Outside(m.UIDs, uid)
		gid, _ = userns.Outside(m.GIDs, gid)
	}
	return errors.Join(os.Chown(name, int(uid), int(gid)), os.Chmod(name, os.FileMode(mode)&0o777))
}

// secretEnv has the secrets that are wanted in the environment.
func (s *step) secretEnv(ctx context.Context) error {
	for _, e := range s.op.Secretenv {
		data, err := s.job.session.Secret(ctx, e.ID)
		if errors.Is(err, fault.NotFound) && e.Optional {
			continue
		}
		if err != nil {
			return err
		}
		s.secret = append(s.secret, e.Name+"="+string(data))
	}
	return nil
}

// agent binds a socket that leads to the client's ssh agent.
func (s *step) agent(ctx context.Context, o *pb.SSHOpt) (*specs.Mount, error) {
	first, err := s.job.session.SSH(ctx, o.GetID())
	if err != nil && o.GetOptional() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first.Close()
	name := filepath.Join(s.dir, fmt.Sprintf("agent%d", len(s.mounts)))
	stop, err := s.job.listenAgent(ctx, o.GetID(), name)
	if err != nil {
		return nil, err
	}
	s.back.Push(stop)
	if err := s.own(name, o.GetMode(), o.GetUid(), o.GetGid()); err != nil {
		return nil, err
	}
	return &specs.Mount{Type: "bind", Source: name, Options: []string{"bind", "nosuid", "nodev", "noexec"}}, nil
}

// listenAgent makes a socket that leads to the client's ssh agent, until stop.
func (j *Job) listenAgent(ctx context.Context, id, name string) (stop func() error, err error) {
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { j.relay(ctx, c, id) })
		}
	})
	return func() error {
		cancel()
		err := l.Close()
		all.Wait()
		return err
	}, nil
}

// relay connects a program of the step to the client's agent.
func (j *Job) relay(ctx context.Context, near net.Conn, id string) {
	defer near.Close()
	far, err := j.session.SSH(ctx, id)
	if err != nil {
		return // the program finds an agent that does not answer
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(near, far)
		near.Close()
	})
	_, _ = io.Copy(far, near)
	far.Close()
	answers.Wait()
}

// stub is a mount point that the step's tree lacks. It is made for the step and
// is no part of the layer.
type stub struct {
	name    string          // from the root, without links and a slash in front
	missing int             // how many directories above it are missing as well
	times   []unix.Timespec // of the directory that is there
}

// findStubs looks which mount points the tree lacks.
func (s *step) findStubs() error {
	t, err := mounted(snapshot.Mount{Dir: s.root.Dir, Lower: s.root.Trees(), ReadOnly: true})
	if err != nil {
		return err
	}
	defer t.Close()
	for _, m := range s.mounts {
		if f, err := t.openPath(m.Destination, false); err == nil {
			f.Close()
			continue
		}
		there, missing := path.Dir(m.Destination), 0
		f, err := t.openPath(there, true)
		for ; errors.Is(err, unix.ENOENT) && there != "/"; f, err = t.openPath(there, true) {
			there = path.Dir(there)
			missing++
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		f.Close()
		if err != nil {
			return err
		}
		real, err := t.resolve(there)
		if err != nil {
			return err
		}
		rest := strings.TrimPrefix(m.Destination, strings.TrimSuffix(there, "/"))
		s.stubs = append(s.stubs, stub{strings.TrimPrefix(path.Join("/", real, rest), "/"), missing, []unix.Timespec{st.Atim, st.Mtim}})
	}
	return nil
}

// cleanStubs removes the mount points that were made, as far as they are empty.
// The tree is the step's that ran: no link in it is followed, and nothing but what
// is empty goes.
func (s *step) cleanStubs() error {
	if len(s.stubs) == 0 {
		return nil
	}
	top, err := os.OpenFile(s.root.Trees()[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, stub := range slices.Backward(s.stubs) {
		stub.clean(top, s.op.Meta.GetRemoveMountStubsRecursive())
	}
	return nil
}

func (s stub) clean(top *os.File, parents bool) {
	name, removed := s.name, 0
	for ; removed == 0 || parents && removed <= s.missing; removed++ {
		dir, err := plainDir(top, path.Dir(name))
		if err != nil {
			return // it is not there any more, or another
		}
		gone := removeEmpty(dir, path.Base(name))
		dir.Close()
		if !gone {
			return
		}
		name = path.Dir(name)
	}
	if removed > s.missing { // the directory that was there is as it was
		if dir, err := plainDir(top, name); err == nil {
			_ = unix.UtimesNanoAt(int(dir.Fd()), ".", s.times, 0)
			dir.Close()
		}
	}
}

// plainDir opens a directory to which no link leads.
func plainDir(top *os.File, name string) (*os.File, error) {
	fd, err := openat.Open(int(top.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// removeEmpty removes an empty file or directory, and tells whether it did.
func removeEmpty(dir *os.File, name string) bool {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR) == nil
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
		return unix.Unlinkat(int(dir.Fd()), name, 0) == nil
	}
	return false
}
