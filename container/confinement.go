package container

import (
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/tarehq/tare/container/confine"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/undo"
)

// Confinement tells which security modules of the kernel confine containers.
type Confinement struct {
	AppArmor bool // containers that ask for nothing get confine.DefaultProfile
	Profiles bool // others can be asked for by their names
	SELinux  bool // processes and files get labels
}

func (c Confinement) modules() spec.Modules {
	return spec.Modules{AppArmor: c.Profiles, SELinux: c.SELinux}
}

// profile is AppArmor's for who asks for nothing, "" where there is none.
func (c Confinement) profile() string {
	if c.AppArmor {
		return confine.DefaultProfile
	}
	return ""
}

// labels are a container's, nil where there are none any more.
func (c Confinement) labels(r *Record) *confine.Labels {
	if !c.SELinux {
		return nil
	}
	return r.Labels
}

// load sees to it that the kernel has the default profile when a process is about
// to run under it.
func (c Confinement) load(r *Record) error {
	if !c.AppArmor || spec.Profile(r.HostConfig, confine.DefaultProfile) != confine.DefaultProfile {
		return nil
	}
	return confine.Load()
}

// disabled is how a container that sees the host asks for no labels.
const disabled = "label=disable"

// labelling adds to the options about labels what Docker does: none for a container
// that sees the host's processes anyway, the same for one that shares another's.
func (c *creation) labelling(h *wire.HostConfig) error {
	if slices.ContainsFunc(h.SecurityOpt, func(opt string) bool { return strings.HasPrefix(opt, "label=") }) {
		return nil
	}
	add := func(opts ...string) { h.SecurityOpt = append(slices.Clone(h.SecurityOpt), opts...) }
	if h.Privileged || h.IpcMode.IsHost() || h.PidMode.IsHost() {
		add(disabled)
		return nil
	}
	var like []string
	for _, other := range []string{h.IpcMode.Container(), h.PidMode.Container()} {
		r, err := c.containers.store.Find(other)
		if other == "" || err != nil || r.Labels == nil {
			continue
		}
		opts, err := r.Labels.Like()
		if err != nil {
			return err
		}
		if like != nil && !slices.Equal(like, opts) {
			return fault.New(fault.Invalid, "--ipc and --pid containers SELinux labels aren't the same")
		}
		like = opts
	}
	for _, opt := range like {
		add("label=" + opt)
	}
	return nil
}

// label gives the container labels of its own.
func (c *creation) label(r *Record, back *undo.Stack) error {
	if !c.containers.cfg.Confinement.SELinux {
		return nil
	}
	labels, err := confine.Allot(spec.Labels(r.HostConfig.SecurityOpt))
	if err != nil {
		return err
	}
	r.Labels = &labels
	back.Push(func() error { c.containers.freeLabels(r); return nil })
	root, err := c.containers.cfg.Snapshots.Mount(r.ID)
	if err != nil || root.Dir == "" { // an overlay is labelled by its mount
		return err
	}
	return labels.Relabel(root.Dir, false)
}

// freeLabels lets go of the categories of a container that is gone, unless another
// has the same: it shares namespaces, or asked for them.
func (s *Service) freeLabels(r *Record) {
	if r.Labels == nil {
		return
	}
	for _, other := range s.store.All() {
		if other.ID != r.ID && other.Labels != nil && other.Labels.Level() == r.Labels.Level() {
			return
		}
	}
	r.Labels.Free()
}

// label gives what is mounted to the container: volumes, which other containers may
// have too, and what :z or :Z asks for.
func (b *bundle) label(m *spec.Mount, path string) error {
	labels := b.containers.cfg.Confinement.labels(b.r)
	if labels == nil {
		return nil
	}
	modes := strings.Split(m.Mode, ",")
	private := slices.Contains(modes, "Z")
	if m.Type == mount.TypeBind && !private && !slices.Contains(modes, "z") {
		return nil
	}
	return labels.Relabel(path, !private)
}

// labelFiles gives the container the files that the engine writes for it.
func (b *bundle) labelFiles(in *spec.Input) error {
	labels := b.containers.cfg.Confinement.labels(b.r)
	if labels == nil {
		return nil
	}
	for _, path := range []string{in.Hosts, in.Hostname, in.ResolvConf} {
		if path == "" {
			continue
		}
		if err := labels.Relabel(path, b.r.HostConfig.NetworkMode.IsContainer()); err != nil {
			return err
		}
	}
	return nil
}
