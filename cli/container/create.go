package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/image"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Create is the command create.
func Create() *command.Command {
	f := command.NewFlags()
	flags := newCreateFlags(f)
	return &command.Command{
		Usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", MinArgs: 1, MaxArgs: -1, Program: true, Flags: f,
		Example: "tare create --name web -p 8080:80 nginx",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			r, err := flags.request(args[0], args[1:])
			if err != nil {
				return &command.Exit{Code: 125, Err: command.WithHelp(err, "create")}
			}
			r.HostConfig.ConsoleSize[0], r.HostConfig.ConsoleSize[1] = stream.Size(s.Out)
			id, err := flags.create(ctx, s, r)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.Out, id)
			return err
		},
	}
}

// create makes the container, asking for the image when it is missing, and
// writes the file of --cidfile. It returns the container's ID.
func (c *createFlags) create(ctx context.Context, s *command.Session, r *client.CreateRequest) (string, error) {
	cl, err := s.Client()
	if err != nil {
		return "", err
	}
	if _, err := reference.Parse(r.Image); err != nil && !isID(r.Image) {
		return "", err
	}
	if err := image.CheckPlatform(c.platform); err != nil {
		return "", fault.New(fault.Invalid, "error parsing specified platform: %w", err)
	}
	c.addProxies(s, cl, r)
	cid, err := newIDFile(c.cidFile)
	if err != nil {
		return "", err
	}
	defer cid.discard()
	if c.pull == "always" {
		if err := c.fetch(ctx, s, r.Image); err != nil {
			return "", err
		}
	}
	created, err := cl.ContainerCreate(ctx, c.name, s.Platform(c.platform), r)
	if errors.Is(err, fault.NotFound) && isMissingImage(err) && c.pull == "missing" {
		if !c.quiet {
			fmt.Fprintf(s.Err, "Unable to find image '%s' locally\n", familiar(r.Image))
		}
		if err := c.fetch(ctx, s, r.Image); err != nil {
			return "", err
		}
		created, err = cl.ContainerCreate(ctx, c.name, s.Platform(c.platform), r)
	}
	if err != nil {
		return "", err
	}
	for _, w := range created.Warnings {
		fmt.Fprintf(s.Err, "WARNING: %s\n", w)
	}
	return created.Id, cid.write(created.Id)
}

// isID tells whether an image is named by its whole digest's number alone.
func isID(name string) bool { return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" }

// isMissingImage tells of no image, or of none for the platform that is asked
// for, from other things that are not there.
func isMissingImage(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such image") || strings.Contains(text, "does not provide the specified platform")
}

// familiar completes an image's name by the tag that is meant.
func familiar(name string) string {
	ref, err := reference.Parse(name)
	if err != nil {
		return name
	}
	return ref.Familiar()
}

// fetch has the daemon pull the image. What happens is shown on stderr: stdout
// is for the container's ID.
func (c *createFlags) fetch(ctx context.Context, s *command.Session, name string) error {
	ref, err := reference.Parse(name)
	if err != nil {
		return err
	}
	return image.Fetch(ctx, s, s.Err, ref, s.Platform(c.platform), c.quiet)
}

// idFile is the file of --cidfile. It must not exist before, and is removed
// when no container was made.
type idFile struct {
	path    string
	file    *os.File
	written bool
}

func newIDFile(path string) (*idFile, error) {
	if path == "" {
		return &idFile{}, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fault.New(fault.Conflict, "container ID file found, make sure the other container isn't running or delete %s", path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fault.New(fault.Invalid, "failed to create the container ID file: %w", err)
	}
	return &idFile{path: path, file: f}, nil
}

func (f *idFile) write(id string) error {
	if f.file == nil {
		return nil
	}
	f.written = true
	_, err := f.file.WriteString(id)
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	f.file = nil
	if err != nil {
		return fault.New(fault.Internal, "failed to write the container ID (%s) to the file: %w", id, err)
	}
	return nil
}

func (f *idFile) discard() {
	if f.file != nil {
		f.file.Close()
	}
	if f.path != "" && !f.written {
		os.Remove(f.path)
	}
}
