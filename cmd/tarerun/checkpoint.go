package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun"
)

// criuFlags are what checkpoint and restore have in common.
type criuFlags struct {
	ocirun.CheckpointOptions
	emptyNS words
}

// words is a flag that may be given several times.
type words []string

func (w *words) String() string { return strings.Join(*w, ",") }

func (w *words) Set(s string) error {
	*w = append(*w, strings.Split(s, ",")...)
	return nil
}

func (c *criuFlags) register(f *flag.FlagSet) {
	f.StringVar(&c.CRIU, "criu", "", "")
	f.StringVar(&c.Images, "image-path", "", "")
	f.StringVar(&c.Work, "work-path", "", "")
	f.BoolVar(&c.TCPEstablished, "tcp-established", false, "")
	f.BoolVar(&c.TCPClose, "tcp-close", false, "")
	f.BoolVar(&c.ExtUnixSockets, "ext-unix-sk", false, "")
	f.BoolVar(&c.ShellJob, "shell-job", false, "")
	f.BoolVar(&c.FileLocks, "file-locks", false, "")
	f.StringVar(&c.CgroupsMode, "manage-cgroups-mode", "", "")
	f.Var(&c.emptyNS, "empty-ns", "")
	f.BoolVar(&c.AutoDedup, "auto-dedup", false, "")
	f.BoolVar(&c.LazyPages, "lazy-pages", false, "")
	f.StringVar(&c.LSMProfile, "lsm-profile", "", "")
	f.StringVar(&c.LSMMountContext, "lsm-mount-context", "", "")
}

// options completes them. The directory is below the current one unless it is
// named, as runc has it.
func (c *criuFlags) options() (ocirun.CheckpointOptions, error) {
	o := c.CheckpointOptions
	for _, ns := range c.emptyNS {
		if ns != "network" {
			return o, fault.New(fault.Invalid, "namespace %q is not supported", ns)
		}
	}
	if o.Images == "" {
		o.Images = "checkpoint"
	}
	var err error
	if o.Images, err = filepath.Abs(o.Images); err != nil {
		return o, fault.New(fault.Invalid, "--image-path %q cannot be found: %w", c.Images, err)
	}
	if o.Work != "" {
		if o.Work, err = filepath.Abs(o.Work); err != nil {
			return o, fault.New(fault.Invalid, "--work-path %q cannot be found: %w", c.Work, err)
		}
	}
	if o.Parent == "" {
		return o, nil
	}
	if filepath.IsAbs(o.Parent) {
		return o, fault.New(fault.Invalid, "--parent-path must be relative")
	}
	st, err := os.Stat(filepath.Join(o.Images, o.Parent))
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "stat", Path: filepath.Join(o.Images, o.Parent), Err: unix.ENOTDIR}
	}
	if err != nil {
		return o, fault.New(fault.Invalid, "invalid --parent-path: %w", err)
	}
	return o, nil
}

func runCheckpoint(g *settings, args []string) error {
	var c criuFlags
	f := newFlags("checkpoint")
	c.register(f)
	f.StringVar(&c.Parent, "parent-path", "", "")
	f.BoolVar(&c.LeaveRunning, "leave-running", false, "")
	f.BoolVar(&c.TCPSkipInFlight, "tcp-skip-in-flight", false, "")
	f.BoolVar(&c.LinkRemap, "link-remap", false, "")
	f.IntVar(&c.StatusFD, "status-fd", 0, "")
	f.StringVar(&c.PageServer, "page-server", "", "")
	f.BoolVar(&c.PreDump, "pre-dump", false, "")
	container, err := onlyContainer(g, f, args)
	if err != nil {
		return err
	}
	if c.Images != "" {
		_ = os.MkdirAll(c.Images, 0o700) // what is wrong is told below
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	if err := container.Checkpoint(context.Background(), o); err != nil {
		return err
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	return container.Delete()
}

func runRestore(g *settings, args []string) error {
	var c criuFlags
	var s startFlags
	f := newFlags("restore")
	c.register(f)
	f.StringVar(&s.console, "console-socket", "", "")
	f.StringVar(&s.pidFile, "pid-file", "", "")
	f.StringVar(&s.bundle, "bundle", "", "")
	f.StringVar(&s.bundle, "b", "", "")
	f.BoolVar(&s.noPivot, "no-pivot", false, "") // there is no pivot_root: CRIU makes the root
	f.BoolVar(&s.detach, "detach", false, "")
	f.BoolVar(&s.detach, "d", false, "")
	f.BoolVar(&s.noSubreaper, "no-subreaper", false, "")
	id, err := onlyID(f, args)
	if err != nil {
		return err
	}
	from, err := c.options()
	if err != nil {
		return err
	}
	o, err := s.options(g, id)
	if err != nil {
		return err
	}
	ctx, term, caught, err := s.attach(&o)
	if err != nil {
		return err
	}
	container, err := ocirun.Restore(ctx, o, from)
	if err != nil {
		return interrupted(ctx, err)
	}
	s.restored = true
	return s.runCreated(ctx, container, term, caught)
}
