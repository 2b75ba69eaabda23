package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/ocirun"
)

// shown is a container in the JSON of state and list.
type shown struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func show(c *ocirun.Container) shown {
	s := c.State()
	out := shown{s.Version, s.ID, s.Pid, string(s.Status), s.Bundle, "", c.Created(), s.Annotations, "root"}
	if r := c.Spec().Root; r != nil {
		out.Rootfs = r.Path
		if !filepath.IsAbs(out.Rootfs) {
			out.Rootfs = filepath.Join(s.Bundle, out.Rootfs)
		}
	}
	return out
}

func printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "write JSON: %w", err)
	}
	_, err = os.Stdout.Write(append(b, '\n'))
	return err
}

func runState(g *settings, args []string) error {
	return withContainer(g, "state", args, func(c *ocirun.Container) error { return printJSON(show(c)) })
}

func runList(g *settings, args []string) error {
	f := newFlags("list")
	quiet := f.Bool("q", false, "")
	f.BoolVar(quiet, "quiet", false, "")
	format := f.String("format", "table", "")
	f.StringVar(format, "f", "table", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	entries, err := os.ReadDir(g.root)
	if err != nil && (!os.IsNotExist(err) || g.root != defaultRoot) {
		return fault.New(fault.Internal, "read the state directory: %w", err)
	}
	all := []shown{}
	for _, e := range entries {
		if c, err := ocirun.Load(g.root, e.Name()); err == nil {
			all = append(all, show(c))
		}
	}
	switch {
	case *quiet:
		for _, s := range all {
			fmt.Println(s.ID)
		}
		return nil
	case *format == "json":
		return printLine(all)
	case *format != "table":
		return fault.New(fault.Invalid, "invalid format option")
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

func runPs(g *settings, args []string) error {
	f := newFlags("ps")
	format := f.String("format", "table", "")
	f.StringVar(format, "f", "table", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fault.New(fault.Invalid, "tarerun ps takes a container ID")
	}
	c, err := ocirun.Load(g.root, f.Arg(0))
	if err != nil {
		return err
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	switch *format {
	case "json":
		return printLine(pids)
	case "table":
		return psTable(pids, f.Args()[1:])
	}
	return fault.New(fault.Invalid, "invalid format option")
}

// psTable shows the lines of ps that are about the processes.
func psTable(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).Output()
	if err != nil {
		return fault.New(fault.Internal, "run ps: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fault.New(fault.Invalid, "couldn't find PID field in ps output")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if column >= len(words) {
			continue
		}
		if pid, err := strconv.Atoi(words[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}

func runSpec(g *settings, args []string) error {
	f := newFlags("spec")
	bundle := f.String("bundle", ".", "")
	f.StringVar(bundle, "b", ".", "")
	rootless := f.Bool("rootless", false, "")
	if _, err := parse(f, args); err != nil {
		return err
	}
	s := ocirun.Default("rootfs", "sh")
	s.Root.Readonly = true
	s.Process.Terminal = true
	if unified, err := cgroupfs.Unified(); err == nil && !unified { // as runc does it: on v1 it is for those who ask
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	}
	if *rootless {
		makeRootless(s)
	}
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fault.New(fault.Internal, "write config.json: %w", err)
	}
	name := filepath.Join(*bundle, "config.json")
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if os.IsExist(err) {
		return fault.New(fault.Conflict, "file %s exists. Remove it first", name)
	}
	if err == nil {
		_, err = out.Write(append(b, '\n'))
		if e := out.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		return fault.New(fault.Internal, "write config.json: %w", err)
	}
	return nil
}

// makeRootless changes a specification to one that an ordinary user can run
// with nothing but their own ID: they are root inside, with the host's network,
// whose sysfs they cannot mount, and without limits.
func makeRootless(s *specs.Spec) {
	l := s.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace || n.Type == specs.UserNamespace
	})
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	l.Resources = nil
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/sys") })
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool {
			return strings.HasPrefix(o, "gid=") || strings.HasPrefix(o, "uid=")
		})
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}})
}

var seccompFlags = []string{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}

// runFeatures prints what the specification's features document asks for.
func runFeatures(g *settings, args []string) error {
	if _, err := parse(newFlags("features"), args); err != nil {
		return err
	}
	yes := true
	return printJSON(map[string]any{
		"ociVersionMin": "1.0.0", "ociVersionMax": specs.Version,
		"hooks":        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		"mountOptions": ocirun.MountOptions(),
		"linux": map[string]any{
			"namespaces":   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			"capabilities": ocirun.Capabilities(),
			"cgroup":       map[string]*bool{"v1": &yes, "v2": &yes, "systemd": &yes, "systemdUser": &yes, "rdma": &yes},
			"seccomp": map[string]any{"enabled": true,
				"archs": ocirun.SeccompArchitectures(),
				"actions": []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
					"SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
				"knownFlags":     seccompFlags,
				"supportedFlags": seccompFlags,
				"operators": []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
					"SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}},
			"apparmor": map[string]*bool{"enabled": &yes}, "selinux": map[string]*bool{"enabled": &yes},
			"intelRdt":        map[string]*bool{"enabled": &yes, "schemata": &yes, "monitoring": &yes},
			"netDevices":      map[string]*bool{"enabled": &yes},
			"memoryPolicy":    ocirun.MemoryPolicies(),
			"mountExtensions": map[string]any{"idmap": map[string]*bool{"enabled": &yes}},
		},
		"annotations": map[string]string{"com.github.tarehq.tarerun.version": version, "org.opencontainers.runc.checkpoint.enabled": "true"},
	})
}
