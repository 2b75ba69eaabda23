package image

import (
	"context"
	"fmt"
	"io"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/progress"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Pull is the command pull.
func Pull() *command.Command {
	f := command.NewFlags()
	o := &pull{}
	f.BoolVarP(&o.all, "all-tags", "a", false, "Download all tagged images in the repository")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	f.StringVar(&o.platform, "platform", "", "Set platform if server is multi-platform capable")
	f.Bool("disable-content-trust", true, "Skip image verification")
	f.Lookup("disable-content-trust").Hidden = true // Docker accepts it and does nothing
	return &command.Command{Usage: "[OPTIONS] NAME[:TAG|@DIGEST]", MinArgs: 1, MaxArgs: 1, Flags: f,
		Long: "Download an image from a registry", Example: "tare pull alpine:3", Run: o.run}
}

type pull struct {
	all, quiet bool
	platform   string
}

func (o *pull) run(ctx context.Context, s *command.Session, args []string) error {
	ref, err := named(s.Out, args[0], o.all, o.quiet)
	if err != nil {
		return err
	}
	if err := Fetch(ctx, s, s.Out, ref, s.Platform(o.platform), o.quiet); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, ref)
	return err
}

// named reads the name of what a registry is asked for. It adds the usual tag,
// and says so, unless all tags are meant.
func named(out io.Writer, name string, all, quiet bool) (reference.Ref, error) {
	ref, err := reference.ParseBare(name)
	if err != nil {
		return ref, err
	}
	bare := ref.Tag == "" && ref.Digest == ""
	switch {
	case all && !bare:
		return ref, fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	case !all && bare:
		ref.Tag = "latest"
		if !quiet {
			_, err = fmt.Fprintf(out, "Using default tag: %s\n", ref.Tag)
		}
	}
	return ref, err
}

// Fetch has the daemon pull an image, with what is known of the user, and shows
// on out how it goes. A reference without tag and digest is all tags.
func Fetch(ctx context.Context, s *command.Session, out io.Writer, ref reference.Ref, platform string, quiet bool) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	tag := ref.Digest
	if tag == "" {
		tag = ref.Tag
	}
	return progress.Follow(ctx, out, quiet, func(ctx context.Context, each func(client.Progress) error) error {
		return cl.ImagePull(ctx, ref.Repository(), tag, platform, s.Credentials(ref.Domain), each)
	})
}
