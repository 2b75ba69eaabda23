package image

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Bootstrap is the command image bootstrap.
func Bootstrap() *command.Command {
	f := command.NewFlags()
	o := &bootstrap{}
	f.StringVar(&o.variant, "variant", "minbase", `Set of packages ("essential", "apt", "minbase", "buildd", "standard", and whatever else mmdebstrap knows)`)
	f.StringSliceVar(&o.include, "include", nil, "Further packages, with what they need")
	f.StringArrayVar(&o.mirrors, "mirror", nil, "Address of a package archive, or a line of sources.list, in place of the distribution's own")
	f.StringVar(&o.arch, "arch", "", "Architecture of the image, this machine's by default")
	f.StringVar(&o.keyring, "keyring", "", "File with the keys that the archive is signed by")
	f.StringArrayVar(&o.aptOptions, "apt-option", nil, `Option of apt for the image and its making, such as 'Acquire::http::Proxy "http://proxy:3142"'`)
	f.StringVarP(&o.tag, "tag", "t", "", "Name and optionally a tag of the image (default: the distribution and its suite)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print the image's ID alone")
	return &command.Command{
		Usage: "[OPTIONS] DISTRIBUTION[:SUITE]", MinArgs: 1, MaxArgs: 1, Flags: f, Run: o.run,
		Long: "Make a minimal image from a distribution's packages, without any registry.\n" +
			"The packages are put together here by mmdebstrap, or by debootstrap where that is missing.\n" +
			"It needs root, or for mmdebstrap user namespaces with a range of IDs in /etc/subuid.\n" +
			"The times in the image follow SOURCE_DATE_EPOCH, if that is set: the same packages\n" +
			"then give the same image.\n\nExamples:\n  tare image bootstrap debian:bookworm\n  tare image bootstrap --include ca-certificates -t base ubuntu:24.04",
	}
}

type bootstrap struct {
	variant, arch, keyring, tag string
	include, mirrors            []string
	aptOptions                  []string
	quiet                       bool

	suite   string   // of the distribution
	sources []string // lines of sources.list
}

func (o *bootstrap) run(ctx context.Context, s *command.Session, args []string) error {
	result, err := o.plan(args[0])
	if err != nil {
		return err
	}
	result.Epoch = s.Getenv("SOURCE_DATE_EPOCH")
	maker, err := o.tool()
	if err != nil {
		return err
	}
	return errors.Join(o.build(ctx, s, maker, result), maker.remove())
}

// build runs the tool and has the daemon import what it writes.
func (o *bootstrap) build(ctx context.Context, s *command.Session, maker *tool, result client.ImportOptions) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	// To find the daemon dead after minutes of work would be late.
	if err := cl.Ping(ctx); err != nil {
		return err
	}
	return command.Interruptible(ctx, func(ctx context.Context) error {
		tree, err := maker.start(ctx, s.Err, o.quiet)
		if err != nil {
			return err
		}
		defer tree.Close()
		// The daemon is asked when there is something to send.
		in := bufio.NewReaderSize(tree, 64<<10)
		if _, err := in.Peek(1); err != nil {
			return err
		}
		return cl.ImageImport(ctx, in, result, func(p client.Progress) error {
			if p.Status == "" {
				return nil
			}
			_, err := io.WriteString(s.Out, p.Status+"\n")
			return err
		})
	})
}

// plan reads the command line: what to make, and the image that it becomes.
func (o *bootstrap) plan(name string) (client.ImportOptions, error) {
	var result client.ImportOptions
	d, dist, suite, err := suiteOf(name)
	if err != nil {
		return result, err
	}
	arch := o.arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	if o.arch, result.Platform, err = architectureOf(arch); err != nil {
		return result, err
	}
	o.suite, o.sources = suite, d.sources(suite, o.arch)
	if len(o.mirrors) > 0 {
		o.sources = nil
		for _, m := range o.mirrors {
			o.sources = append(o.sources, d.sourceLine(m, suite))
		}
	}
	if o.keyring == "" {
		o.keyring, err = d.keys()
	} else {
		_, err = os.Stat(o.keyring)
	}
	if err != nil {
		return result, err
	}
	tag := o.tag
	if tag == "" {
		tag = dist + ":" + suite
	}
	result.Source = "-"
	if result.Repo, result.Tag = splitTag(tag); result.Tag == "" && result.Repo != tag {
		return result, fault.New(fault.Invalid, "invalid reference format: %q", tag)
	}
	result.Message = "bootstrapped from the packages of " + dist + " " + suite + ", variant " + o.variant
	result.Changes = []string{
		"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		`CMD ["bash"]`,
		"LABEL org.opencontainers.image.title=" + dist + " org.opencontainers.image.version=" + suite +
			" org.opencontainers.image.description=" + `"minimal image from the distribution's packages"`,
	}
	return result, nil
}

// keys finds the keys of a distribution where its package puts them; "" leaves
// the choice to the tool.
func (d *distribution) keys() (string, error) {
	path := "/usr/share/keyrings/" + strings.TrimSuffix(d.keyring, "-keyring") + "-keyring.gpg"
	if d.keyring == "ubuntu-keyring" {
		path = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
	}
	if _, err := os.Stat(path); err != nil {
		return "", fault.New(fault.NotFound, "the keys that the packages are signed by are not here: install %s (apt-get install %s), "+
			"or name a file with them by --keyring", d.keyring, d.keyring)
	}
	return path, nil
}

// tool is a program that puts a distribution's packages together.
type tool struct {
	name string
	args []string
	// pack follows the tool and writes its tree as a tar; nil where the tool
	// does itself.
	pack []string
	tree string
}

// tool chooses the program and renders its command line.
func (o *bootstrap) tool() (*tool, error) {
	root := os.Geteuid() == 0
	if path, err := exec.LookPath("mmdebstrap"); err == nil {
		if _, err := exec.LookPath("newuidmap"); err != nil && !root {
			return nil, fault.New(fault.Forbidden, "bootstrapping needs root, or user namespaces: "+
				"run it with sudo, or install uidmap and give your user a range of IDs in /etc/subuid and /etc/subgid")
		}
		return &tool{name: path, args: o.mmdebstrap()}, nil
	}
	path, err := exec.LookPath("debootstrap")
	switch {
	case err != nil:
		return nil, fault.New(fault.NotFound, "neither mmdebstrap nor debootstrap is installed here: install one of them, "+
			"such as by: apt-get install mmdebstrap")
	case !root:
		return nil, fault.New(fault.Forbidden, "debootstrap needs root: run this with sudo, or install mmdebstrap, which can do with user namespaces")
	}
	return o.debootstrap(path)
}

// mmdebstrap makes a tar on stdout. The host's own name and resolver, which it
// works with, do not belong in an image.
func (o *bootstrap) mmdebstrap() []string {
	args := []string{"--format=tar", "--variant=" + o.variant, "--architectures=" + o.arch, "--keyring=" + o.keyring,
		`--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"`}
	for _, name := range o.include {
		args = append(args, "--include="+name)
	}
	for _, option := range o.aptOptions {
		args = append(args, "--aptopt="+option)
	}
	return append(append(args, o.suite, "-"), o.sources...)
}

// start runs the tool. What it says goes to out, or, when quiet, is kept for
// the error. The reader ends with the tool's failure, never with a tree cut
// short.
func (t *tool) start(ctx context.Context, out io.Writer, quiet bool) (io.ReadCloser, error) {
	said := &tail{out: out}
	if quiet {
		said.out = io.Discard
	}
	if t.pack == nil {
		return pipe(ctx, said, t.name, t.args)
	}
	c := prepare(ctx, said, t.name, t.args)
	c.Stdout = said
	if err := c.Run(); err != nil {
		return nil, said.explain(ctx, t.name, err)
	}
	return pipe(ctx, said, t.pack[0], t.pack[1:])
}

func prepare(ctx context.Context, said *tail, name string, args []string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = said
	// The tools undo their mounts when they are asked to end.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = time.Minute
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // so they do when this program is killed
	return c
}

// output is what a program writes. After its last byte comes io.EOF only if the
// program ended well.
type output struct {
	io.Reader
	ctx   context.Context
	cmd   *exec.Cmd
	said  *tail
	name  string
	stop  context.CancelFunc
	ended bool
	err   error
}

func pipe(ctx context.Context, said *tail, name string, args []string) (io.ReadCloser, error) {
	ctx, stop := context.WithCancel(ctx)
	c := prepare(ctx, said, name, args)
	r, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		stop()
		return nil, err
	}
	return &output{Reader: r, ctx: ctx, cmd: c, said: said, name: name, stop: stop}, nil
}

func (p *output) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err == io.EOF && n == 0 {
		err = p.end()
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// end waits for the program, once.
func (p *output) end() error {
	if p.ended {
		return p.err
	}
	p.ended = true
	if p.err = p.cmd.Wait(); p.err != nil {
		p.err = p.said.explain(p.ctx, p.name, p.err)
	} else {
		p.err = io.EOF
	}
	return p.err
}

// Close ends the program, if it still runs.
func (p *output) Close() error {
	p.stop()
	p.end()
	return nil
}

// tail passes on what a program says and keeps the last of it.
type tail struct {
	out  io.Writer
	last []byte
}

const kept = 2000 // bytes

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if len(t.last) > kept {
		t.last = t.last[len(t.last)-kept:]
	}
	return t.out.Write(p)
}

func (t *tail) explain(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if t.out == io.Discard {
		return fault.New(fault.Internal, "%s failed: %w\n%s", name, err, t.last)
	}
	return fault.New(fault.Internal, "%s failed: %w", name, err)
}
