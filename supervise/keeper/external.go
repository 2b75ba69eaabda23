package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/supervise"
)

// external is a container made by an OCI runtime that is executed, with runc's
// command line. The runtime goes away each time, and its orphans, the
// container's processes, become children of this process.
type external struct {
	*child
	cfg    supervise.Config
	reaper *reaper
	cgroup string // directory of the memory controller, "" if unknown
}

func createExternal(ctx context.Context, cfg supervise.Config, r *reaper, s *stdio) (_ container, err error) {
	b := &external{cfg: cfg, reaper: r}
	if err := os.RemoveAll(b.file("rt")); err != nil {
		return nil, err
	}
	if err := os.Mkdir(b.file("rt"), 0o700); err != nil {
		return nil, err
	}
	if err := b.placeNamespaces(); err != nil {
		return nil, err
	}
	endPages := func() {}
	args := []string{"create", "--bundle", cfg.Dir}
	if r := cfg.Restore; r != nil {
		args = []string{"restore", "--detach", "--bundle", cfg.Dir, "--image-path", r.Images, "--work-path", b.file(restoredName),
			"--tcp-established", "--file-locks"}
		if r.Lazy {
			args = append(args, "--lazy-pages")
			if endPages, err = servePages(cfg); err != nil {
				return nil, err
			}
		}
	}
	pid, err := b.make(ctx, s, args...)
	if err != nil {
		endPages()
		b.delete(false)
		return nil, err
	}
	if b.child, err = openChild(pid); err != nil {
		endPages()
		b.delete(false)
		return nil, err
	}
	b.cgroup = memoryCgroup(pid)
	return b, nil
}

func (b *external) file(name string) string { return filepath.Join(b.cfg.Dir, name) }

// placeNamespaces names the namespaces that were handed over in a way that
// the runtime understands, too.
func (b *external) placeNamespaces() error {
	config := b.file("config.json")
	old, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	spec := old
	for name, fd := range map[string]int{supervise.NetNSPath: netNSFile, supervise.UserNSPath: userNSFile} {
		spec = bytes.ReplaceAll(spec, []byte(strconv.Quote(name)), fmt.Appendf(nil, `"/proc/%d/fd/%d"`, os.Getpid(), fd))
	}
	if bytes.Equal(spec, old) {
		return nil
	}
	if bytes.Contains(old, []byte(strconv.Quote(supervise.UserNSPath))) {
		if spec, err = withoutMaps(spec); err == nil {
			err = reveal(b.cfg.Dir)
		}
		if err != nil {
			return err
		}
	}
	return atomicfile.Write(config, spec, 0o600)
}

// withoutMaps takes the maps of a user namespace that is there out of a config.json:
// runc takes them for those of one to be made.
func withoutMaps(spec []byte) ([]byte, error) {
	var all, linux map[string]json.RawMessage
	err := json.Unmarshal(spec, &all)
	if err == nil {
		err = json.Unmarshal(all["linux"], &linux)
	}
	if err != nil {
		return nil, err
	}
	delete(linux, "uidMappings")
	delete(linux, "gidMappings")
	if all["linux"], err = json.Marshal(linux); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// make runs a subcommand that makes a process on s and returns its pid.
func (b *external) make(ctx context.Context, s *stdio, args ...string) (int, error) {
	dir, err := os.MkdirTemp(b.file("rt"), ".call")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	pidFile := filepath.Join(dir, "pid")
	args = append(args, "--pid-file", pidFile)
	if s.tty {
		c, err := listenConsole(dir)
		if err != nil {
			return 0, err
		}
		defer c.close()
		if err := b.run(ctx, [3]*os.File{}, append(args, "--console-socket", c.path, b.cfg.ID)...); err != nil {
			return 0, err
		}
		// the runtime's connection stands in for the socket pair
		if err := s.acceptMaster(c); err != nil {
			return 0, err
		}
	} else if err := b.run(ctx, s.child, append(args, b.cfg.ID)...); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, fmt.Errorf("the runtime told no pid: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// run executes the runtime and turns its complaint into an error. Without
// files for it, its own output is kept for the complaint.
func (b *external) run(ctx context.Context, stdio [3]*os.File, args ...string) error {
	log := b.file("rt.log")
	os.Remove(log)
	var said *os.File
	if stdio[2] == nil {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer null.Close()
		fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		said = os.NewFile(uintptr(fd), "stderr")
		defer said.Close()
		stdio = [3]*os.File{null, said, said}
	}
	argv := append([]string{b.cfg.Runtime.Path}, b.cfg.Runtime.Args...)
	if b.cfg.Runtime.Systemd {
		argv = append(argv, "--systemd-cgroup")
	}
	argv = append(argv, "--root", b.file("rt"), "--log", log, "--log-format", "json")
	defer b.reaper.spawn()() // else the reaper may collect the runtime first
	p, err := os.StartProcess(b.cfg.Runtime.Path, append(argv, args...), &os.ProcAttr{
		Dir:   b.cfg.Dir,
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: stdio[:],
	})
	if err != nil {
		return fault.New(fault.Unavailable, "cannot run the OCI runtime: %w", err)
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if state.Success() {
		return nil
	}
	return b.complaint(log, said, state)
}

// complaint finds the runtime's own words.
func (b *external) complaint(log string, said *os.File, state *os.ProcessState) error {
	text, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	words := lastError(text)
	if words == "" && said != nil {
		buf := make([]byte, 4096)
		n, _ := said.ReadAt(buf, 0)
		words = strings.TrimSpace(string(buf[:n]))
	}
	if words == "" {
		return fault.New(fault.Internal, "%s failed: %s", filepath.Base(b.cfg.Runtime.Path), state)
	}
	// the inner text alone, as the in-process runtime gives it
	if i := strings.Index(words, `exec: "`); i >= 0 {
		return fault.New(fault.Invalid, "%s", words[i:])
	}
	if strings.Contains(words, "$PATH") {
		return fault.New(fault.Invalid, "%s", words)
	}
	return fault.New(fault.Internal, "%s", words)
}

// lastError returns the message of the last record in a runtime's log, in JSON
// or as plain text.
func lastError(log []byte) string {
	words := ""
	for line := range bytes.Lines(log) {
		var r struct{ Level, Msg string }
		if json.Unmarshal(line, &r) != nil {
			words = strings.TrimSpace(string(line))
		} else if r.Level == "error" || r.Level == "fatal" {
			words = r.Msg
		}
	}
	return words
}

func (b *external) start() error {
	if b.cfg.Restore != nil { // it runs already
		return nil
	}
	return b.run(context.Background(), [3]*os.File{}, "start", b.cfg.ID)
}

func (b *external) freeze(on bool) error {
	command := "resume"
	if on {
		command = "pause"
	}
	return b.run(context.Background(), [3]*os.File{}, command, b.cfg.ID)
}

func (b *external) checkpoint(c dump) error {
	args := []string{"checkpoint", "--work-path", c.work, "--tcp-established", "--file-locks", "--image-path"}
	if c.preDump {
		before := append(slices.Clone(args), filepath.Join(c.images, supervise.MemoryDir), "--pre-dump", b.cfg.ID)
		if err := b.run(context.Background(), [3]*os.File{}, before...); err != nil {
			return err
		}
		args = append(args, c.images, "--parent-path", supervise.MemoryDir)
	} else {
		args = append(args, c.images)
	}
	if !c.exit {
		args = append(args, "--leave-running")
	}
	return b.run(context.Background(), [3]*os.File{}, append(args, b.cfg.ID)...)
}

func (b *external) update(ctx context.Context, r *specs.LinuxResources) error {
	return b.withFile(".resources", r, func(name string) error {
		return b.run(ctx, [3]*os.File{}, "update", "--resources", name, b.cfg.ID)
	})
}

// withFile writes v as JSON for the runtime to read, as long as use lasts.
func (b *external) withFile(pattern string, v any, use func(name string) error) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(b.file("rt"), pattern)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return use(f.Name())
}

func (b *external) exec(ctx context.Context, p *specs.Process, s *stdio) (process, error) {
	pid := 0
	err := b.withFile(".process", p, func(name string) (err error) {
		pid, err = b.make(ctx, s, "exec", "--process", name, "--detach")
		return err
	})
	if err != nil {
		return nil, err
	}
	return openChild(pid)
}

func (b *external) delete(bool) error {
	err := b.run(context.Background(), [3]*os.File{}, "delete", "--force", b.cfg.ID)
	os.Remove(b.file("rt.log"))
	return errors.Join(err, os.RemoveAll(b.file("rt")))
}

// memoryCgroup returns the directory with the memory controller's files of a
// process, by cgroups(7).
func memoryCgroup(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	dir := ""
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) < 3:
		case f[1] == "memory":
			return filepath.Join("/sys/fs/cgroup/memory", f[2])
		case f[0] == "0":
			dir = filepath.Join("/sys/fs/cgroup", f[2])
		}
	}
	return dir
}

func (b *external) oomKilled() bool {
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(b.cgroup, name))
		if b.cgroup == "" || err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				return strings.TrimSpace(n) != "0"
			}
		}
	}
	return false
}
