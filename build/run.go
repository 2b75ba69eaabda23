package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/confine"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/network/files"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

// endTime bounds how long the end of a step may take.
const endTime = 10 * time.Second

// step is one run of a RUN's command.
type step struct {
	job  *Job
	v    *vertex
	op   *pb.ExecOp
	in   []*output
	id   string
	say  printer // what the command prints goes there
	dir  string  // the bundle
	root snapshot.Mount
	back undo.Stack // takes away what the step has beside its tree

	place  Place
	netNS  *os.File
	users  *remapped // nil for the host's user namespace
	mounts []specs.Mount
	trees  []supervise.Mount // that mounts show
	caches map[*pb.Mount]*tree
	kept   []keptMount
	stubs  []stub   // mount points that the tree lacks
	secret []string // environment

	tty, stdin bool // of a Sandbox's first process
	changed    bool // something had all privileges, and may have changed the place on the network
}

// run carries a RUN out: a container on a tree of its own, whose changes become a
// layer.
func (j *Job) run(ctx context.Context, v *vertex, op *pb.ExecOp, inputs []*output, say printer) (_ []*output, err error) {
	if err := j.permit(op); err != nil {
		return nil, err
	}
	select {
	case j.solver.running <- struct{}{}:
		defer func() { <-j.solver.running }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s := &step{job: j, v: v, op: op, in: inputs, say: say, id: "build-" + idgen.New()[:32]}
	s.dir = filepath.Join(j.solver.Steps, s.id)
	base, readOnly, err := s.base()
	if err != nil {
		return nil, err
	}
	store := j.solver.Store
	clean := context.WithoutCancel(ctx)
	if s.root, err = store.Prepare(ctx, s.id, base.chain()); err != nil {
		return nil, err
	}
	err = s.contain(ctx)
	if err == nil && s.root.Dir == "" && len(s.stubs)+len(s.kept) == 0 {
		// All processes have ended, and what the step has beside its tree goes while that is read.
		ended := make(chan error, 1)
		go func() { ended <- s.back.Run() }()
		defer func() { err = errors.Join(err, <-ended) }()
	} else if e := s.back.Run(); err == nil {
		err = e
	}
	if err == nil {
		err = s.cleanStubs()
	}
	if err != nil {
		return nil, errors.Join(err, store.Discard(clean, s.id), s.discardKept(clean))
	}
	outputs, root, err := s.results(ctx)
	if err != nil || readOnly || root < 0 {
		if root >= 0 && err == nil {
			outputs[root] = base
		}
		return outputs, errors.Join(err, store.Discard(clean, s.id))
	}
	outputs[root], err = j.seal(ctx, s.id, base)
	return outputs, err
}

// seal makes a layer of a tree that was prepared on base.
func (j *Job) seal(ctx context.Context, id string, base *output) (*output, error) {
	layer, err := j.solver.Store.Seal(ctx, id, base.chain(), j.options.Epoch)
	if err != nil {
		return nil, errors.Join(err, j.solver.Store.Discard(context.WithoutCancel(ctx), id))
	}
	if layer.Created = time.Now().UTC(); !j.options.Epoch.IsZero() {
		layer.Created = j.options.Epoch
	}
	return &output{layers: append(slices.Clone(base.layers), layer)}, nil
}

// permit refuses what the client did not grant.
func (j *Job) permit(op *pb.ExecOp) error {
	if op.Network == pb.NetMode_HOST && !j.options.Network {
		return fault.New(fault.Forbidden, "network.host is not allowed: a step asks for the host's network, which --allow network.host grants")
	}
	if op.Security == pb.SecurityMode_INSECURE && !j.options.Insecure {
		return fault.New(fault.Forbidden, "security.insecure is not allowed: a step asks for all privileges, which --allow security.insecure grants where the daemon lets it")
	}
	if op.Network < pb.NetMode_UNSET || op.Network > pb.NetMode_NONE {
		return fault.New(fault.Invalid, "a step asks for the network mode %d, which is none", op.Network)
	}
	_, err := j.devices(op)
	return err
}

// base is the tree that the step works on, and whether it may not change it.
func (s *step) base() (base *output, readOnly bool, err error) {
	for _, m := range s.op.Mounts {
		if m.Dest != pb.RootMount {
			continue
		}
		if m.Input < 0 {
			return &output{}, m.Readonly, nil
		}
		if int(m.Input) >= len(s.in) || s.in[m.Input].dir != "" {
			return nil, false, fault.New(fault.Invalid, "a step has no tree to work on")
		}
		return s.in[m.Input], m.Readonly, nil
	}
	return nil, false, fault.New(fault.Invalid, "a step has no tree to work on")
}

// contain runs the command in a container and waits for its end.
func (s *step) contain(ctx context.Context) error {
	if err := os.Mkdir(s.dir, 0o711); err != nil {
		return err
	}
	s.back.Push(func() error { return removeBundle(s.dir) })
	if err := os.Mkdir(filepath.Join(s.dir, "rootfs"), 0o755); err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.mount(ctx); err != nil {
		return err
	}
	config, err := s.config(ctx)
	if err != nil {
		return err
	}
	out, in, err := streams()
	if err != nil {
		return err
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.listen(out)
	}()
	keeper, err := s.job.solver.Launcher.Run(ctx, config, []supervise.Client{{
		Options: supervise.AttachOptions{Stdout: true, Stderr: true, Multiplexed: true}, Conn: in,
	}})
	in.Close()
	if err != nil {
		out.Close()
		<-told
		return s.failed(err)
	}
	s.back.Push(func() error {
		defer keeper.Close()
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		err := keeper.Release(clean)
		_ = out.SetReadDeadline(time.Now().Add(endTime)) // the output has ended, unless somebody holds its other end
		<-told
		return err
	})
	exit, err := await(ctx, keeper)
	if err != nil {
		return err
	}
	return s.verdict(exit)
}

// notRun is the exit code of what the kernel takes for no program.
const notRun = 255

// removeBundle removes a step's directory, into which a supervising process that was
// just killed may have been writing until now.
func removeBundle(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// verdict makes an error of the end of a command that failed.
func (s *step) verdict(exit supervise.Exit) error {
	valid := s.op.Meta.GetValidExitCodes()
	if len(valid) == 0 && exit.Code == 0 || slices.Contains(valid, int32(exit.Code)) {
		return nil
	}
	reason := ""
	if exit.OOMKilled {
		reason = " (it was killed for want of memory)"
	}
	if p := s.v.op.GetPlatform(); p != nil && p.Architecture != runtime.GOARCH && exit.Code == notRun {
		reason = fmt.Sprintf(": this machine does not run programs for %s/%s; install qemu-user-static, or another emulator that binfmt_misc knows", p.OS, p.Architecture)
	}
	return &ExitError{Code: exit.Code, text: fmt.Sprintf("process %q did not complete successfully: exit code: %d%s", joinWords(s.op.Meta.GetArgs()), exit.Code, reason)}
}

// ExitError is the end of a command that failed.
type ExitError struct {
	Code int
	text string
}

func (e *ExitError) Error() string { return e.text }

func (s *step) failed(err error) error {
	if fault.KindOf(err) == fault.Invalid { // the program's own
		return fmt.Errorf("process %q could not be started: %w", joinWords(s.op.Meta.GetArgs()), err)
	}
	return err
}

// await waits for the end, and brings it about when nobody wants the step any
// more.
func await(ctx context.Context, k *supervise.Keeper) (supervise.Exit, error) {
	exit, err := k.Wait(ctx)
	if ctx.Err() == nil {
		return exit, err
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_ = k.Kill(clean)
	_, err = k.Wait(clean)
	return exit, errors.Join(context.Cause(ctx), err)
}

// streams make the pair of sockets through which the output comes.
func streams() (*net.UnixConn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	in, own := os.NewFile(uintptr(pair[0]), "output"), os.NewFile(uintptr(pair[1]), "output")
	defer own.Close()
	conn, err := net.FileConn(own)
	if err != nil {
		in.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), in, nil
}

// listen passes the output on, until it ends.
func (s *step) listen(out *net.UnixConn) {
	defer out.Close()
	var head [8]byte
	for {
		if _, err := io.ReadFull(out, head[:]); err != nil {
			return
		}
		for n := int(head[4])<<24 | int(head[5])<<16 | int(head[6])<<8 | int(head[7]); n > 0; {
			buf := make([]byte, min(n, 32<<10))
			m, err := out.Read(buf)
			if m > 0 {
				s.say(int(head[0]), buf[:m])
			}
			if n -= m; err != nil {
				return
			}
		}
	}
}

// connect gives the step its place on the network.
func (s *step) connect(ctx context.Context) error {
	if s.op.Network != pb.NetMode_UNSET {
		return s.remap()
	}
	network := s.job.options.Limits.Network
	place, err := s.job.solver.places.take(ctx, network)
	if err != nil {
		return err
	}
	s.place, s.netNS, s.changed = place.Place, place.netNS, network != "" || s.op.Security == pb.SecurityMode_INSECURE
	s.back.Push(func() error { return s.job.solver.places.give(ctx, place, s.changed) })
	return s.remap()
}

// config writes config.json and says what the supervising process must know.
func (s *step) config(ctx context.Context) (supervise.Config, error) {
	c := supervise.Config{ID: s.id, Dir: s.dir, Log: supervise.Log{Driver: "none"}, WatchOOM: s.job.limits(s.v).Memory > 0, NetNS: s.netNS, Mounts: s.trees, OpenStdin: s.stdin, StdinOnce: s.stdin, TTY: s.tty,
		Rootfs: supervise.Rootfs{Dir: s.root.Dir, Lower: s.root.Lower, Upper: s.root.Upper, Work: s.root.Work, Volatile: true, ReadOnly: s.root.ReadOnly}}
	in, err := s.input(ctx)
	if err != nil {
		return c, err
	}
	if m := s.users.ids(); m != nil {
		in.Users, in.UserNS, c.UserNS = m, supervise.UserNSPath, s.users.ns
		c.Rootfs.Users.UID, c.Rootfs.Users.GID = m.Root()
	}
	oci, err := spec.Build(in)
	if err != nil {
		return c, err
	}
	oci.Process.Env = s.env() // as the front end made it, with nothing of ours
	oci.Mounts = append(oci.Mounts, s.mounts...)
	names, err := s.job.devices(s.op)
	if err != nil {
		return c, err
	}
	if err := s.job.solver.Devices.Inject(oci, names); err != nil {
		return c, err
	}
	data, err := spec.Encode(oci)
	if err != nil {
		return c, err
	}
	return c, os.WriteFile(filepath.Join(s.dir, "config.json"), data, 0o600)
}

func (s *step) env() []string {
	env := slices.Clone(s.op.Meta.GetEnv())
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if p := s.op.Meta.GetProxyEnv(); p != nil {
		for name, v := range map[string]string{"http_proxy": p.HttpProxy, "https_proxy": p.HttpsProxy, "ftp_proxy": p.FtpProxy, "no_proxy": p.NoProxy, "all_proxy": p.AllProxy} {
			if v != "" {
				env = append(env, strings.ToUpper(name)+"="+v, name+"="+v)
			}
		}
	}
	return append(env, s.secret...)
}

// input is the step as a container's request: it has the isolation of any other.
func (s *step) input(_ context.Context) (spec.Input, error) {
	meta := s.op.Meta
	if len(meta.GetArgs()) == 0 {
		return spec.Input{}, fault.New(fault.Invalid, "a step has no command")
	}
	trees := s.root.Trees()
	user, err := lookUpUser(trees, meta.GetUser())
	if err != nil {
		return spec.Input{}, err
	}
	hostname := meta.GetHostname()
	if hostname == "" {
		hostname = "buildkitsandbox" // as BuildKit calls it
	}
	h := &wire.HostConfig{CgroupnsMode: wire.CgroupnsModePrivate, IpcMode: wire.IPCModePrivate, ReadonlyRootfs: false}
	h.ShmSize, h.Privileged = 64<<20, s.op.Security == pb.SecurityMode_INSECURE
	for _, u := range meta.GetUlimit() {
		h.Ulimits = append(h.Ulimits, &wire.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if err := s.job.limits(s.v).set(h); err != nil {
		return spec.Input{}, err
	}
	in := spec.Input{ID: s.id, Config: &wire.Config{WorkingDir: meta.GetCwd(), Tty: s.tty}, HostConfig: h, Path: meta.Args[0], Args: meta.Args[1:],
		Rootfs: filepath.Join(s.dir, "rootfs"), User: user, CgroupParent: s.job.solver.CgroupParent, UTSName: hostname}
	if parent := meta.GetCgroupParent(); parent != "" {
		h.CgroupParent = parent
	}
	if confine.AppArmor() {
		if in.AppArmor = confine.DefaultProfile; !h.Privileged {
			if err := confine.Load(); err != nil {
				return in, err
			}
		}
	}
	switch s.op.Network {
	case pb.NetMode_HOST:
		h.NetworkMode, in.NetNS = "host", "host"
	case pb.NetMode_NONE:
		h.NetworkMode = "none"
	default:
		in.NetNS = supervise.NetNSPath
	}
	return in, s.hostFiles(&in)
}

// hostFiles writes the step's hosts and resolv.conf.
func (s *step) hostFiles(in *spec.Input) error {
	file := files.HostsFile{Hostname: in.UTSName}
	for _, h := range s.op.Meta.GetExtraHosts() {
		file.Extra = append(file.Extra, h.Host+"="+h.IP)
	}
	file.Extra = append(file.Extra, s.job.options.ExtraHosts...)
	if s.place.Address.IsValid() {
		file.Addresses = []netip.Addr{s.place.Address}
	}
	hosts, err := files.Hosts(file)
	if err != nil {
		return err
	}
	own, err := files.HostResolvConf()
	if err != nil {
		return err
	}
	in.Hosts, in.ResolvConf = filepath.Join(s.dir, "hosts"), filepath.Join(s.dir, "resolv.conf")
	resolv := files.ResolvConf(own, nil, nil, nil, false)
	switch {
	case s.op.Network == pb.NetMode_HOST:
		resolv = own
	case s.place.Names:
		resolv = files.ResolvConfNames(own, nil, nil, nil)
	}
	return errors.Join(os.WriteFile(in.Hosts, hosts, 0o644), os.WriteFile(in.ResolvConf, resolv, 0o644))
}

// lookUpUser finds a user in the tree's own files.
func lookUpUser(trees []string, who string) (spec.Identity, error) {
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		data, err := snapshot.ReadFile(trees, name, 4<<20)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return spec.Identity{}, err
		}
		files[i] = data
	}
	return spec.User(who, files[0], files[1], nil)
}
