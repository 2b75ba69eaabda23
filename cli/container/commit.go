package container

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Commit is the command commit.
func Commit() *command.Command {
	f := command.NewFlags()
	var o client.CommitOptions
	changes := option.NewList(f, "change", "c", "Apply Dockerfile instruction to the created image", nil)
	pause := f.BoolP("pause", "p", true, "Pause container during commit")
	f.BoolVar(&o.NoPause, "no-pause", false, "Let the container go on during commit")
	f.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	f.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	f.BoolVar(&o.Squash, "squash", false, "Make one layer of the image's layers and the container's changes")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", MinArgs: 1, MaxArgs: 2, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			o.Changes, o.NoPause = changes.Values, o.NoPause || !*pause
			if len(args) > 1 && args[1] != "" {
				ref, err := reference.ParseBare(args[1])
				if err != nil {
					return err
				}
				if ref.Digest != "" {
					return fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
				}
				o.Repo, o.Tag = ref.Repository(), ref.Tag
			}
			o.Epoch = s.Getenv("SOURCE_DATE_EPOCH")
			cl, err := s.Client()
			if err != nil {
				return err
			}
			id, err := cl.ContainerCommit(ctx, args[0], o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.Out, id)
			return err
		},
	}
}
