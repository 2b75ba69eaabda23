package ocirun

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plainjson"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// On disk a container is a directory below the state root:
//
//	<root>/<id>/state.json   what cannot be derived from the bundle and the kernel
//	<root>/<id>/config.json  the configuration as it was at the creation: what becomes of the
//	                         bundle's later is no matter of the container (lifecycle, step 2)
//	<root>/<id>/exec.fifo    there until the start; a byte written to it starts init
//	<root>/<id>/cgroups      link whose text is the cgroups path, for the case that
//	                         the creator dies before it has written state.json
const (
	stateFile  = "state.json"
	configFile = "config.json"
	fifoFile   = "exec.fifo"
	cgroupLink = "cgroups"
)

// state is state.json.
type state struct {
	Version int    `json:"version"` // of this format
	ID      string `json:"id"`
	Pid     int    `json:"pid"`
	Started uint64 `json:"started"` // start of the process, clock ticks after boot
	Bundle  string `json:"bundle"`
	Config  string `json:"config"` // "": config.json
	Cgroups string `json:"cgroups"`
	Created int64  `json:"created"` // Unix time, ns
	Mounted uint64 `json:"mounted"` // see Container.mounted; may be missing
}

// ValidID refuses names that are no single, plain path element.
func ValidID(id string) error {
	ok := id != "" && id != "." && id != ".."
	for _, c := range id {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c))
	}
	if !ok {
		return fault.New(fault.Invalid, "the container ID %q is not valid: use letters, digits and _ + - .", id)
	}
	return nil
}

// reserve makes the state directory, which reserves the name.
func (c *Container) reserve(stateDir string) error {
	if err := ValidID(c.id); err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o711); err != nil {
		return fault.New(fault.Internal, "make the state directory: %w", err)
	}
	c.dir = filepath.Join(stateDir, c.id)
	if err := os.Mkdir(c.dir, 0o711); err != nil {
		if os.IsExist(err) {
			return fault.New(fault.Conflict, "container with given ID already exists: %s", c.id)
		}
		return fault.New(fault.Internal, "make the state directory: %w", err)
	}
	c.claimed = true
	if err := unix.Symlink(c.path, filepath.Join(c.dir, cgroupLink)); err != nil {
		return fault.New(fault.Internal, "write the state of container %s: %w", c.id, err)
	}
	return nil
}

// claim reserves the name and makes the FIFO.
func (c *Container) claim(a *attempt, o *Options) error {
	if err := c.reserve(o.StateDir); err != nil {
		return err
	}
	name := filepath.Join(c.dir, fifoFile)
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return fault.New(fault.Internal, "make %s: %w", name, err)
	}
	// Open for both ends: opening waits for nobody, and no end of file is seen.
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "open %s: %w", name, err)
	}
	a.b.fifo, err = a.above(fd, 3+len(o.ExtraFiles))
	return err
}

// saveConfig keeps the configuration, of which nothing changes any more.
func (c *Container) saveConfig(text []byte) (err error) {
	if text == nil {
		if text, err = json.Marshal(c.spec); err != nil {
			return fault.New(fault.Internal, "keep the configuration of container %s: %w", c.id, err)
		}
	}
	if err := writeFile(filepath.Join(c.dir, configFile), text); err != nil {
		return fault.New(fault.Internal, "keep the configuration of container %s: %w", c.id, err)
	}
	return nil
}

// saveState writes state.json when the container is created.
func (c *Container) saveState() error {
	c.started, _, _ = procfs.Start(c.pid)
	b := []byte(`{"version":1,"id":"` + c.id + `","pid":` + strconv.Itoa(c.pid) + `,"started":`)
	b = append(strconv.AppendUint(b, c.started, 10), `,"bundle":`...)
	b = quoteJSON(b, c.bundle)
	if c.config != "" {
		b = quoteJSON(append(b, `,"config":`...), c.config)
	}
	b = append(b, `,"cgroups":`...)
	b = append(quoteJSON(b, c.path), `,"created":`...)
	b = strconv.AppendInt(b, c.created.UnixNano(), 10)
	if c.mounted != 0 {
		b = strconv.AppendUint(append(b, `,"mounted":`...), c.mounted, 10)
	}
	b = append(b, '}')
	// Renamed into place: a reader sees no half file.
	name := filepath.Join(c.dir, stateFile)
	err := writeFile(name+".new", b)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fault.New(fault.Internal, "write the state of container %s: %w", c.id, err)
	}
	return nil
}

// writeFile is [os.WriteFile] without Go's poller, as procfs.Read is.
func writeFile(name string, b []byte) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	})
	for err == nil && len(b) > 0 {
		var n int
		n, err = retry(func() (int, error) { return unix.Write(fd, b) })
		b = b[max(n, 0):]
	}
	if fd >= 0 {
		if e := unix.Close(fd); err == nil {
			err = e
		}
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// quoteJSON appends a string as JSON.
func quoteJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func (c *Container) removeState() error {
	for _, name := range [...]string{fifoFile, configFile, stateFile, stateFile + ".new", cgroupLink} {
		_ = unix.Unlink(filepath.Join(c.dir, name))
	}
	if err := unix.Rmdir(c.dir); err != nil && err != unix.ENOENT {
		return fault.New(fault.Internal, "remove the state of container %s: %w", c.id, err)
	}
	return nil
}

// Discard removes what a creator left that died before the container was
// created, with the processes in its control groups.
func Discard(stateDir, id string) error {
	if err := ValidID(id); err != nil {
		return err
	}
	c := &Container{id: id, dir: filepath.Join(stateDir, id)}
	path, err := os.Readlink(filepath.Join(c.dir, cgroupLink))
	if err == nil {
		group, err := cgroup.At(path)
		if err != nil {
			return err
		}
		if err := group.Delete(); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Internal, "read the state of container %s: %w", id, err)
	}
	return c.removeState()
}

// release starts a container through its FIFO, from any process. With hooks that
// init runs, it gives the FIFO.
func (c *Container) release() (hooks *os.File, err error) {
	name := filepath.Join(c.dir, fifoFile)
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case err == unix.ENOENT && c.alive():
		return nil, fault.New(fault.Conflict, "cannot start an already running container")
	case err == unix.ENOENT, err == unix.ENXIO:
		return nil, fault.New(fault.Conflict, "cannot start a container that has stopped")
	case err != nil:
		return nil, fault.New(fault.Internal, "open %s: %w", name, err)
	}
	defer unix.Close(fd)
	if h := c.known().Hooks; h != nil && len(h.StartContainer) > 0 {
		if hooks, err = os.Open(name); err != nil {
			return nil, fault.New(fault.Internal, "open %s: %w", name, err)
		}
	}
	// Whoever removes the FIFO is the one who starts.
	if err = unix.Unlink(name); err != nil {
		err = fault.New(fault.Conflict, "cannot start an already running container")
	} else if _, err = unix.Write(fd, []byte{1}); err != nil {
		err = fault.New(fault.Internal, "start container %s: %w", c.id, err)
	}
	if err != nil && hooks != nil {
		hooks.Close()
	}
	return hooks, err
}

// Load finds a container by the state that Create left below stateDir.
func Load(stateDir, id string) (*Container, error) {
	if err := ValidID(id); err != nil {
		return nil, err
	}
	dir := filepath.Join(stateDir, id)
	b, err := procfs.Read(filepath.Join(dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "container does not exist: %s", id)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "read the state of container %s: %w", id, err)
	}
	var s state
	if err := plainjson.Unmarshal(b, &s); err != nil {
		return nil, fault.New(fault.Internal, "read the state of container %s: %w", id, err)
	}
	if s.Version != 1 {
		return nil, fault.New(fault.Unavailable, "container %s was made by another version of this runtime", id)
	}
	spec, err := ReadConfig(dir, configFile)
	if _, missing := os.Lstat(filepath.Join(dir, configFile)); missing != nil { // restored, or by an older version
		spec, err = ReadConfig(s.Bundle, s.Config)
	}
	if err != nil {
		spec = &specs.Spec{Linux: &specs.Linux{}, Process: &specs.Process{}} // enough to stop and delete it
	}
	group, err := cgroup.At(s.Cgroups)
	if err != nil {
		return nil, err
	}
	c := &Container{id: id, bundle: s.Bundle, config: s.Config, dir: dir, group: group, pid: s.Pid, started: s.Started,
		mounted: s.Mounted, created: time.Unix(0, s.Created).UTC(), pidfd: -1, sync: -1}
	c.know(spec)
	c.path, c.rdtMade = s.Cgroups, true
	return c, nil
}

func (c *Container) loaded() bool { return c.dir != "" }

// alive tells whether init runs and is the process that was created, not
// another one with its number.
func (c *Container) alive() bool {
	t, state, _ := procfs.Start(c.pid)
	return t != 0 && state != 'Z' && state != 'X' && (c.started == 0 || t == c.started)
}

// State is the container as the specification's state command shows it.
func (c *Container) State() specs.State {
	s := specs.State{Version: specs.Version, ID: c.id, Bundle: c.bundle, Annotations: c.known().Annotations}
	switch {
	case !c.alive():
		s.Status = specs.StateStopped
	case c.sync >= 0 && c.dir == "", c.dir != "" && unix.Access(filepath.Join(c.dir, fifoFile), unix.F_OK) == nil:
		s.Status, s.Pid = specs.StateCreated, c.pid
	case c.group.Frozen():
		s.Status, s.Pid = "paused", c.pid
	default:
		s.Status, s.Pid = specs.StateRunning, c.pid
	}
	return s
}

// Created is when the container was created.
func (c *Container) Created() time.Time { return c.created }

// Bundle is the bundle's directory; Spec the specification, which is not to be
// changed.
func (c *Container) Bundle() string    { return c.bundle }
func (c *Container) Spec() *specs.Spec { return c.known() }
