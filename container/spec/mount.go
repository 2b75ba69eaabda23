package spec

import (
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
)

// Mount is one thing that is mounted in a container by -v, --mount, --volumes-from
// or its image. What is asked for names no volume yet where it wants one of its
// own; create makes that, and what is stored names it.
type Mount struct {
	Type        mount.Type
	Name        string `json:",omitempty"` // of the volume; of the image, as it was asked for
	Driver      string `json:",omitempty"` // of the volume
	Source      string `json:",omitempty"` // path on the host, where the volume lies, ID of the image
	Destination string
	Mode        string            `json:",omitempty"` // the third part of -v
	ReadOnly    bool              `json:",omitempty"`
	Propagation mount.Propagation `json:",omitempty"`
	Anonymous   bool              `json:",omitempty"` // the volume goes with the container, if asked
	NoCopy      bool              `json:",omitempty"` // nothing of the image goes to the volume
	Strict      bool              `json:",omitempty"` // the source has to be there

	IDMap *IDMap `json:",omitempty"` // whose its files are shown to be

	Place string `json:"-"` // where it lies during a run, if not at Source
	Owner Owner  `json:"-"` // of that; of mounts with an IDMap

	// As asked for, with what is not above.
	Bind   *mount.BindOptions   `json:",omitempty"`
	Volume *mount.VolumeOptions `json:",omitempty"`
	Image  *mount.ImageOptions  `json:",omitempty"`
	Tmpfs  *mount.TmpfsOptions  `json:",omitempty"`
}

// Subpath is the directory of a volume or an image that is mounted, "" for all.
func (m *Mount) Subpath() string {
	switch {
	case m.Volume != nil:
		return m.Volume.Subpath
	case m.Image != nil:
		return m.Image.Subpath
	}
	return ""
}

// Shared tells whether the host sees what the container mounts there.
func (m *Mount) Shared() bool {
	return m.Propagation == mount.PropagationShared || m.Propagation == mount.PropagationRShared
}

// Wanted are the mounts that a request names itself. Each has a place of its own.
func Wanted(h *wire.HostConfig) ([]Mount, error) {
	var list []Mount
	taken := map[string]bool{}
	add := func(m Mount, err error) error {
		switch {
		case err != nil:
			return err
		case strings.ContainsRune(m.Source+m.Name+m.Destination+m.Subpath(), 0): // the kernel would take what stands before it
			return fault.New(fault.Invalid, "invalid mount %q at %q: there is a NUL byte in it", m.Source+m.Name, m.Destination)
		case taken[m.Destination]:
			return fault.New(fault.Invalid, "Duplicate mount point: %s", m.Destination)
		}
		taken[m.Destination] = true
		list = append(list, m)
		return nil
	}
	for target, options := range h.Tmpfs {
		m, err := tmpfsAt(target, options)
		if err != nil {
			return nil, err
		}
		taken[m.Destination] = true
	}
	for _, b := range h.Binds {
		if err := add(parseBind(b, h.VolumeDriver)); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Mounts {
		if err := add(ParseMount(m)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func checkTarget(target string) error {
	if !path.IsAbs(target) {
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", target)
	}
	if path.Clean(target) == "/" {
		return fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	}
	return nil
}

// parseBind reads [source:]target[:mode,…], the syntax of -v. A source that is no
// path is a volume, of the driver if that is none of the default.
func parseBind(s, driver string) (Mount, error) {
	bad := fault.New(fault.Invalid, "invalid volume specification: '%s'", s)
	parts := strings.SplitN(s, ":", 4)
	if len(parts) > 3 || parts[0] == "" || len(parts) > 1 && parts[1] == "" {
		return Mount{}, bad
	}
	asked := mount.Mount{Type: mount.TypeVolume, Target: parts[0]}
	mode := ""
	if len(parts) > 1 {
		asked.Source, asked.Target = parts[0], parts[1]
	}
	if len(parts) == 2 {
		if _, err := parseMode(parts[1]); err == nil { // a place and a mode is none of the forms
			return Mount{}, bad
		}
	}
	if len(parts) > 2 {
		mode = parts[2]
	}
	o, err := parseMode(mode)
	if err != nil {
		return Mount{}, err
	}
	if path.IsAbs(asked.Source) {
		asked.Type = mount.TypeBind
	}
	asked.ReadOnly, asked.Consistency = o.readOnly, o.idmap
	if o.propagation != "" {
		asked.BindOptions = &mount.BindOptions{Propagation: o.propagation}
	}
	if driver != "" && asked.Type == mount.TypeVolume {
		asked.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: driver}}
	}
	if o.noCopy {
		if asked.VolumeOptions == nil {
			asked.VolumeOptions = &mount.VolumeOptions{}
		}
		asked.VolumeOptions.NoCopy = true
	}
	m, err := ParseMount(asked)
	if err != nil {
		return m, fault.New(fault.Invalid, "invalid volume specification: '%s': %w", s, err)
	}
	m.Mode, m.Strict = mode, false
	return m, nil
}

// bindMode is what the third part of -v says.
type bindMode struct {
	readOnly, noCopy bool
	propagation      mount.Propagation
	idmap            mount.Consistency
}

// parseMode reads it. Of each kind of word there may be one.
func parseMode(mode string) (o bindMode, err error) {
	kinds := map[string]bool{}
	for word := range strings.SplitSeq(mode, ",") {
		kind := ""
		switch word {
		case "ro", "rw":
			kind = "access"
			o.readOnly = word == "ro"
		case "shared", "rshared", "private", "rprivate", "slave", "rslave":
			kind = "propagation"
			o.propagation = mount.Propagation(word)
		case "consistent", "cached", "delegated": // of meaning on other hosts only
			kind = "consistency"
		case "z", "Z":
			kind = "label"
		case "nocopy":
			kind = "copy"
			o.noCopy = true
		case idmapWord:
			kind, o.idmap = idmapWord, idmapWord
		case "":
			if mode == "" {
				return o, nil
			}
		}
		if strings.HasPrefix(word, idmapWord+"=") {
			kind, o.idmap = idmapWord, mount.Consistency(word)
		}
		if kind == "" || kinds[kind] {
			return o, fault.New(fault.Invalid, "invalid mode: %s", mode)
		}
		kinds[kind] = true
	}
	return o, nil
}

// ParseVolumesFrom reads container[:mode].
func ParseVolumesFrom(s string) (container string, readOnly bool, err error) {
	if s == "" {
		return "", false, fault.New(fault.Invalid, "volumes-from specification cannot be an empty string")
	}
	container, mode, _ := strings.Cut(s, ":")
	o, err := parseMode(mode)
	if err == nil && (o.propagation != "" || o.noCopy || o.idmap != "") {
		err = fault.New(fault.Invalid, "invalid mode: %s", mode)
	}
	return container, o.readOnly, err
}

// ParseMount reads one --mount.
func ParseMount(m mount.Mount) (Mount, error) {
	out, err := parseMount(m)
	if err == nil {
		err = out.mapIDs(m.Consistency)
	}
	if err != nil {
		return out, fault.New(fault.KindOf(err), "invalid mount config for type %q: %w", m.Type, err)
	}
	return out, nil
}

func parseMount(m mount.Mount) (Mount, error) {
	out := Mount{Type: m.Type, Destination: path.Clean(m.Target), ReadOnly: m.ReadOnly,
		Bind: m.BindOptions, Volume: m.VolumeOptions, Image: m.ImageOptions, Tmpfs: m.TmpfsOptions}
	if m.Target == "" {
		return out, fault.New(fault.Invalid, "field Target must not be empty")
	}
	if err := checkTarget(m.Target); err != nil {
		return out, err
	}
	for _, field := range []struct {
		name string
		is   bool
	}{
		{"BindOptions", m.BindOptions != nil && m.Type != mount.TypeBind},
		{"VolumeOptions", m.VolumeOptions != nil && m.Type != mount.TypeVolume},
		{"ImageOptions", m.ImageOptions != nil && m.Type != mount.TypeImage},
		{"TmpfsOptions", m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs},
		{"ClusterOptions", m.ClusterOptions != nil && m.Type != mount.TypeCluster},
	} {
		if field.is {
			return out, fault.New(fault.Invalid, "field %s must not be specified", field.name)
		}
	}
	switch m.Type {
	case mount.TypeBind:
		return out, out.bind(m)
	case mount.TypeVolume:
		return out, out.volume(m)
	case mount.TypeImage:
		return out, out.image(m)
	case mount.TypeTmpfs:
		return out, out.tmpfs(m)
	case mount.TypeCluster:
		return out, fault.New(fault.Invalid, "cluster volumes need a swarm, which this daemon cannot be part of")
	}
	return out, fault.New(fault.Invalid, "mount type unknown")
}

// mapIDs reads an id map, which has its place in the word about consistency: that
// means nothing on this host, and Docker's clients hand on what they find there.
func (out *Mount) mapIDs(word mount.Consistency) (err error) {
	text := string(word)
	if text != idmapWord && !strings.HasPrefix(text, idmapWord+"=") {
		return nil
	}
	if out.Type == mount.TypeTmpfs {
		return fault.New(fault.Invalid, "a tmpfs has no owners on disk to map: leave out idmap, and give it an owner by --tmpfs %s:uid=…,gid=…", out.Destination)
	}
	if out.Shared() {
		return fault.New(fault.Invalid, "idmap and the propagation %s exclude each other: what the container mounts would be seen with other owners", out.Propagation)
	}
	out.IDMap, err = parseIDMap(text)
	return err
}

func (out *Mount) bind(m mount.Mount) error {
	if m.Source == "" {
		return fault.New(fault.Invalid, "field Source must not be empty")
	}
	if !path.IsAbs(m.Source) {
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", m.Source)
	}
	out.Source, out.Propagation = path.Clean(m.Source), mount.PropagationRPrivate
	out.Strict = m.BindOptions == nil || !m.BindOptions.CreateMountpoint
	o := m.BindOptions
	if o == nil {
		return nil
	}
	conflict := func(what string) error { return fault.New(fault.Invalid, "mount options conflict: %s", what) }
	switch {
	case o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation):
		return fault.New(fault.Invalid, "invalid propagation mode: %s", o.Propagation)
	case !m.ReadOnly && o.ReadOnlyNonRecursive:
		return conflict("!ReadOnly && BindOptions.ReadOnlyNonRecursive")
	case !m.ReadOnly && o.ReadOnlyForceRecursive:
		return conflict("!ReadOnly && BindOptions.ReadOnlyForceRecursive")
	case o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive:
		return conflict("ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
	}
	if o.Propagation != "" {
		out.Propagation = o.Propagation
	}
	return nil
}

func (out *Mount) volume(m mount.Mount) error {
	out.Name = m.Source
	o := m.VolumeOptions
	if o == nil {
		return nil
	}
	if o.Subpath != "" && m.Source == "" {
		return fault.New(fault.Invalid, "must not set Subpath when using anonymous volumes")
	}
	if o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
		return fault.New(fault.Invalid, "subpath must be a relative path within the volume")
	}
	out.NoCopy = o.NoCopy
	if o.DriverConfig != nil {
		out.Driver = o.DriverConfig.Name
	}
	return nil
}

func (out *Mount) image(m mount.Mount) error {
	if m.Source == "" {
		return fault.New(fault.Invalid, "field Source must not be empty")
	}
	if o := m.ImageOptions; o != nil && o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
		return fault.New(fault.Invalid, "subpath must be a relative path within the volume")
	}
	out.Name, out.ReadOnly, out.Propagation = m.Source, true, mount.PropagationRPrivate
	return nil
}

func (out *Mount) tmpfs(m mount.Mount) error {
	if m.Source != "" {
		return fault.New(fault.Invalid, "field Source must not be specified")
	}
	o := m.TmpfsOptions
	if o == nil {
		return nil
	}
	if o.SizeBytes < 0 {
		return fault.New(fault.Invalid, "size cannot be negative")
	}
	for _, kv := range o.Options {
		if len(kv) < 1 || len(kv) > 2 {
			return fault.New(fault.Invalid, "invalid option array length")
		}
		if len(kv) != 1 || kv[0] != "exec" && kv[0] != "noexec" {
			return fault.New(fault.Invalid, "invalid option: %s", strings.Join(kv, "="))
		}
	}
	return nil
}

// oci is the mount as the runtime makes it for the user of the container.
func (m *Mount) oci(user Identity, users *userns.Map) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return m.ociTmpfs()
	}
	kind, propagation, readOnly := "rbind", "rprivate", readOnlyTree
	if m.Propagation != "" {
		propagation = string(m.Propagation)
	}
	if o := m.Bind; o != nil {
		if o.NonRecursive {
			kind = "bind"
		}
		if o.ReadOnlyNonRecursive {
			readOnly = "ro"
		}
	}
	out := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: []string{kind, propagation}}
	if m.Place != "" {
		out.Source = m.Place
	}
	if m.ReadOnly {
		out.Options = append(out.Options, readOnly)
	}
	switch {
	case m.IDMap != nil:
		m.IDMap.on(&out, m.Owner, user, users)
	case users != nil && m.Type == mount.TypeVolume:
		// So that containers with other IDs share it: what is on disk are those of each.
		out.UIDMappings, out.GIDMappings = outside(users.UIDs), outside(users.GIDs)
	}
	return out
}

// readOnlyTree makes what is mounted below the source read-only too, as Docker
// does.
const readOnlyTree = "rro"

func (m *Mount) ociTmpfs() specs.Mount {
	out := specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "nosuid", "nodev"}}
	if o := m.Tmpfs; o != nil {
		if o.SizeBytes > 0 {
			out.Options = append(out.Options, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			out.Options = append(out.Options, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
		for _, kv := range o.Options {
			out.Options = append(out.Options, kv[0])
		}
	}
	if m.ReadOnly {
		out.Options = append(out.Options, "ro")
	}
	return out
}

// tmpfsAt is one --tmpfs.
func tmpfsAt(target, options string) (specs.Mount, error) {
	if err := checkTarget(target); err != nil {
		return specs.Mount{}, err
	}
	opts := []string{"noexec", "nosuid", "nodev"}
	if options != "" {
		opts = append(opts, strings.Split(options, ",")...)
	}
	for _, o := range opts {
		if key, _, _ := strings.Cut(o, "="); !slices.Contains(tmpfsOptions, key) {
			return specs.Mount{}, fault.New(fault.Invalid, "invalid tmpfs option %q", o)
		}
	}
	if strings.ContainsRune(target+options, 0) {
		return specs.Mount{}, fault.New(fault.Invalid, "invalid mount %q at %q: there is a NUL byte in it", "tmpfs", target)
	}
	return specs.Mount{Destination: path.Clean(target), Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
}

// tmpfsOptions are what --tmpfs takes: the flags of mount(8) and tmpfs(5)'s
// own.
var tmpfsOptions = []string{
	"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "atime", "noatime", "diratime", "nodiratime",
	"relatime", "norelatime", "strictatime", "nostrictatime", "defaults", "private", "rprivate", "shared", "rshared", "slave", "rslave",
	"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol",
}

// userMounts are those of the user, with --tmpfs.
func userMounts(in Input) ([]specs.Mount, error) {
	list := make([]specs.Mount, 0, len(in.Mounts)+len(in.HostConfig.Tmpfs))
	for i := range in.Mounts {
		if _, hidden := in.HostConfig.Tmpfs[in.Mounts[i].Destination]; hidden { // of --volumes-from or the image
			continue
		}
		list = append(list, in.Mounts[i].oci(in.User, in.Users))
	}
	for target, options := range in.HostConfig.Tmpfs {
		m, err := tmpfsAt(target, options)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// Describe shows a mount as the API does.
func (m *Mount) Describe() wire.MountPoint {
	p := wire.MountPoint{Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
		Mode: m.Mode, RW: !m.ReadOnly, Propagation: m.Propagation}
	return p
}
