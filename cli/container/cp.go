package container

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// copying is one call of cp.
type copying struct {
	session        *command.Session
	client         *client.Client
	container      string
	from, to       string // paths, "-" for a tar here
	follow, toUser bool
	quiet          bool
	bytes          atomic.Int64 // of the tar that have passed
}

// Cp is the command cp.
func Cp() *command.Command {
	f := command.NewFlags()
	c := &copying{}
	f.BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symlinks in SRC_PATH")
	f.BoolVarP(&c.toUser, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\ttare cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", MinArgs: 2, MaxArgs: 2, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if !f.Changed("quiet") {
				_, terminal := command.Terminal(s.Out)
				c.quiet = !terminal
			}
			return c.run(ctx, s, args[0], args[1])
		},
	}
}

func (c *copying) run(ctx context.Context, s *command.Session, source, destination string) (err error) {
	if source == "" {
		return fault.New(fault.Invalid, "source can not be empty")
	}
	if destination == "" {
		return fault.New(fault.Invalid, "destination can not be empty")
	}
	var sourceContainer, container string
	sourceContainer, c.from = copyArg(source)
	container, c.to = copyArg(destination)
	copyOne := c.toContainer
	switch {
	case sourceContainer != "" && container != "":
		return fault.New(fault.Invalid, "copying between containers is not supported")
	case sourceContainer == "" && container == "":
		return fault.New(fault.Invalid, "must specify at least one container source")
	case container == "":
		container, copyOne = sourceContainer, c.fromContainer
	}
	c.session, c.container = s, container
	if c.client, err = s.Client(); err != nil {
		return err
	}
	return command.Interruptible(ctx, copyOne)
}

// fromContainer unpacks here what the daemon packs.
func (c *copying) fromContainer(ctx context.Context) (err error) {
	to := c.to
	if to != "-" {
		if to, err = absolute(to); err != nil {
			return err
		}
		if err := checkTarget(to); err != nil {
			return err
		}
	}
	from := c.from
	if c.follow {
		if stat, err := c.client.ContainerStatPath(ctx, c.container, from); err == nil && stat.Mode&os.ModeSymlink != 0 {
			from = withEnd(beside(from, stat.LinkTarget), from)
		}
	}
	body, stat, err := c.client.CopyFromContainer(ctx, c.container, from)
	if err != nil {
		return err
	}
	defer body.Close()
	if to == "-" {
		_, err := io.Copy(c.session.Out, body)
		return err
	}
	stop := c.progress("Copying from container - ")
	err = c.unpack(ctx, body, from, stat, to)
	stop()
	if c.quiet {
		return err
	}
	size := c.bytes.Load()
	if !stat.Mode.IsDir() {
		size = stat.Size
	}
	c.summary(size, to)
	return err
}

// unpack puts an archive where cp -a would put its source. What is made belongs to
// who calls; links that were in the archive, or are made by somebody meanwhile,
// lead nowhere but below the destination.
func (c *copying) unpack(ctx context.Context, body io.Reader, from string, stat client.PathStat, to string) error {
	target, err := localTarget(to)
	if err != nil {
		return err
	}
	plan, err := planCopy(copyEnd{path: from, exists: true, dir: stat.Mode.IsDir()}, target)
	if err != nil {
		return err
	}
	dir, err := os.Open(plan.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, base := parentAndBase("/" + from)
	if plan.name == "" && c.follow { // by a link it is called as it was asked for
		if _, asked := parentAndBase(c.from); asked != base {
			plan.name = asked
		}
	}
	_, err = archive.Extract(ctx, dir, &counted{body, &c.bytes}, archive.Options{
		Whiteouts: archive.NoWhiteouts, From: base, To: plan.name, Mine: true, KeepKinds: true})
	if err == nil { // what follows the end of the archive, so that the connection can be used again
		_, err = io.Copy(io.Discard, body)
	}
	return err
}

// toContainer packs here what the daemon unpacks.
func (c *copying) toContainer(ctx context.Context) error {
	target, err := c.target(ctx)
	if err != nil {
		return err
	}
	if c.from == "-" {
		if !target.dir {
			return fault.New(fault.Invalid, "destination \"%s:%s\" must be a directory", c.container, c.to)
		}
		err := c.client.CopyToContainer(ctx, c.container, target.path, c.toUser, func(w io.Writer) error {
			_, err := io.CopyBuffer(w, &counted{c.session.In, &c.bytes}, make([]byte, 256<<10))
			return err
		})
		if !c.quiet {
			c.summary(c.bytes.Load(), c.container+":"+target.path)
		}
		return err
	}
	from, err := absolute(c.from)
	if err != nil {
		return err
	}
	source, err := localSource(from, c.follow)
	if err != nil {
		return err
	}
	plan, err := planCopy(source, target)
	if err != nil {
		return err
	}
	place, err := os.OpenFile(source.path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer place.Close()
	name := source.base
	if plan.name != "" {
		name = plan.name
	}
	content := int64(0)
	if !c.quiet {
		content = contentSize(source.path)
	}
	stop := c.progress("Copying to container - ")
	err = c.client.CopyToContainer(ctx, c.container, plan.dir, c.toUser, func(w io.Writer) error {
		return archive.WriteOne(ctx, &countedWriter{w, &c.bytes}, place, name, archive.WriteOptions{Seconds: true})
	})
	stop()
	if !c.quiet {
		c.summary(content, c.container+":"+target.path)
	}
	return err
}

// target asks what the destination in the container is. What cannot be asked may
// still be made: the daemon tells if not.
func (c *copying) target(ctx context.Context) (copyEnd, error) {
	to := copyEnd{path: c.to}
	stat, err := c.client.ContainerStatPath(ctx, c.container, c.to)
	if err == nil && stat.Mode&os.ModeSymlink != 0 {
		to.path = beside(c.to, stat.LinkTarget)
		stat, err = c.client.ContainerStatPath(ctx, c.container, to.path)
	}
	if err != nil {
		return to, ctx.Err()
	}
	if err := checkKind(stat.Mode); err != nil {
		return to, fault.New(fault.Invalid, "destination \"%s:%s\" must be a directory or a regular file: %w", c.container, c.to, err)
	}
	to.exists, to.dir = true, stat.Mode.IsDir()
	return to, nil
}

type countedWriter struct {
	io.Writer
	n *atomic.Int64
}

func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// contentSize is how many bytes the regular files of a tree have.
func contentSize(path string) (size int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil // what cannot be read is told by the copy
	})
	return size
}

// summary tells what was copied, and how much of a tar that took where it differs.
func (c *copying) summary(content int64, to string) {
	sent, passed := format.Size(float64(content)), c.bytes.Load()
	if content != passed {
		sent += " (transferred " + format.Size(float64(passed)) + ")"
	}
	io.WriteString(c.session.Err, "Successfully copied "+sent+" to "+to+"\n")
}

// progressEvery is how often the progress is drawn.
const progressEvery = 75 * time.Millisecond

// progress shows on a terminal how much has passed, until stop.
func (c *copying) progress(title string) (stop func()) {
	if _, terminal := command.Terminal(c.session.Err); c.quiet || !terminal {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			io.WriteString(c.session.Err, "\r\x1b[K"+title+format.Size(float64(c.bytes.Load())))
			select {
			case <-tick.C:
			case <-end:
				io.WriteString(c.session.Err, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}
