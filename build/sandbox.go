package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

// Sandbox is a container beside the steps of a build: a front end's, or one in
// which somebody looks around. It has a step's isolation, and its changes are
// nobody's. It is made by Job.Sandbox, has its processes started, and is closed.
type Sandbox struct {
	step   *step
	mounts []SandboxMount

	mu      sync.Mutex
	keeper  *supervise.Keeper // of the first process; nil before
	closed  bool
	closing sync.Once
	err     error // of the closing
}

// SandboxMount is one of the trees that it shows.
type SandboxMount struct {
	Dest, Selector string
	ReadOnly       bool
	Type           pb.MountType
	Cache          *pb.CacheOpt
	Secret         *pb.SecretOpt
	SSH            *pb.SSHOpt
	Result         *Result // nil for an empty tree
}

// SandboxRequest says what a Sandbox has.
type SandboxRequest struct {
	Mounts     []SandboxMount // one of them is the root
	Network    pb.NetMode
	Hostname   string
	ExtraHosts []*pb.HostIP
	// CgroupParent is the control group that its own lies in; "" is that of steps.
	CgroupParent string
	Files        map[string][]byte // at these paths, read-only
}

// maxSandboxes bounds those of one build that are there at the same time.
const maxSandboxes = 32

// Sandbox makes one. Nothing runs in it yet.
func (j *Job) Sandbox(ctx context.Context, r SandboxRequest) (_ *Sandbox, err error) {
	op := &pb.ExecOp{Network: r.Network, Meta: &pb.Meta{Hostname: r.Hostname, ExtraHosts: r.ExtraHosts, CgroupParent: r.CgroupParent}}
	s := &step{job: j, v: &vertex{digest: digest.FromString("sandbox")}, op: op, id: "build-" + idgen.New()[:32]}
	for _, m := range r.Mounts {
		mount := &pb.Mount{Input: int64(pb.Empty), Output: int64(pb.SkipOutput), Selector: m.Selector, Dest: m.Dest, Readonly: m.ReadOnly, MountType: m.Type,
			CacheOpt: m.Cache, SecretOpt: m.Secret, SSHOpt: m.SSH}
		if m.Result != nil {
			o, err := m.Result.ready(ctx)
			if err != nil {
				return nil, err
			}
			mount.Input, s.in = int64(len(s.in)), append(s.in, o)
		}
		op.Mounts = append(op.Mounts, mount)
	}
	if err := j.permit(op); err != nil {
		return nil, err
	}
	if err := j.countSandbox(1); err != nil {
		return nil, err
	}
	s.dir = filepath.Join(j.solver.Steps, s.id)
	b := &Sandbox{step: s, mounts: r.Mounts}
	if err := b.prepare(ctx, r.Files); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	j.atEnd(func() { _ = b.Close() })
	return b, nil
}

func (j *Job) countSandbox(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n > 0 && j.sandboxes >= maxSandboxes {
		return fault.New(fault.Invalid, "the build has %d containers beside its steps: release some of them", j.sandboxes)
	}
	j.sandboxes += n
	return nil
}

// prepare makes ready all that the container needs but a process.
func (b *Sandbox) prepare(ctx context.Context, files map[string][]byte) error {
	s := b.step
	base, _, err := s.base()
	if err != nil {
		return err
	}
	store := s.job.solver.Store
	if s.root, err = store.Prepare(ctx, s.id, base.chain()); err != nil {
		return err
	}
	s.back.Push(func() error { return store.Discard(context.WithoutCancel(ctx), s.id) })
	if err := os.Mkdir(s.dir, 0o711); err != nil {
		return err
	}
	s.back.Push(func() error { return removeBundle(s.dir) })
	if err := os.Mkdir(filepath.Join(s.dir, "rootfs"), 0o755); err != nil {
		return err
	}
	if err := errors.Join(s.connect(ctx), s.mount(ctx)); err != nil {
		return err
	}
	for place, data := range files {
		name := filepath.Join(s.dir, fmt.Sprintf("file%d", len(s.mounts)))
		if err := os.WriteFile(name, data, 0o444); err != nil {
			return err
		}
		s.mounts = append(s.mounts, specs.Mount{Destination: place, Type: "bind", Source: name, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	}
	return nil
}

// Close ends what runs and takes the container away.
func (b *Sandbox) Close() error {
	b.closing.Do(func() {
		b.mu.Lock()
		keeper := b.keeper
		b.closed, b.keeper = true, nil
		b.mu.Unlock()
		if keeper != nil {
			ctx, cancel := context.WithTimeout(context.Background(), endTime)
			defer cancel()
			_ = keeper.Kill(ctx)
			_, err := keeper.Wait(ctx)
			b.err = errors.Join(err, keeper.Release(ctx))
			keeper.Close()
		}
		b.err = errors.Join(b.err, b.step.back.Run(), b.step.job.countSandbox(-1))
	})
	return b.err
}

// Open opens one of the mounts to read, as it is now.
func (b *Sandbox) Open(i int) (Tree, string, error) {
	if i < 0 || i >= len(b.mounts) {
		return nil, "", fault.New(fault.NotFound, "the container has no mount %d", i)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, "", fault.New(fault.NotFound, "the container was released")
	}
	s, m := b.step, b.mounts[i]
	if m.Dest == pb.RootMount {
		t, err := b.rootLocked()
		return t, m.Selector, err
	}
	for _, shown := range s.mounts {
		for k, tree := range s.trees {
			if shown.Destination == path.Clean(m.Dest) && shown.Source == supervise.MountPath(s.dir, k) {
				fd, err := unix.FcntlInt(tree.Tree.Fd(), unix.F_DUPFD_CLOEXEC, 3)
				return &treeOf{os.NewFile(uintptr(fd), "/")}, tree.Subpath, os.NewSyscallError("fcntl", err)
			}
		}
	}
	return nil, "", fault.New(fault.Invalid, "the mount %s of the container cannot be read from outside", m.Dest)
}

// treeOf is a tree that ends with its descriptor.
type treeOf struct{ *os.File }

// Root is the root directory.
func (t *treeOf) Root() *os.File { return t.File }

// rootLocked is the root as the first process sees it, or as it left it.
func (b *Sandbox) rootLocked() (Tree, error) {
	if b.keeper != nil {
		if pid := b.keeper.Pid(); pid > 0 {
			if f, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0); err == nil && b.keeper.Status().Phase == supervise.PhaseRunning {
				return &treeOf{f}, nil
			}
		}
	}
	root := b.step.root
	if len(root.Lower) == 0 {
		return mounted(snapshot.Mount{Dir: root.Dir, ReadOnly: true})
	}
	return mounted(snapshot.Mount{Lower: root.Trees(), ReadOnly: true})
}
