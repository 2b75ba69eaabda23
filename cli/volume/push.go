package volume

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/progress"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Push is the command volume push.
func Push() *command.Command {
	f := command.NewFlags()
	freeze := f.Bool("freeze", false, freezeUsage)
	quiet := f.BoolP("quiet", "q", false, "Suppress verbose output")
	return &command.Command{
		Usage: "[OPTIONS] VOLUME REPOSITORY[:TAG]", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare volume push data registry.example/backup/data:monday",
		Long: "Upload the content of a volume to a registry",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return transfer(ctx, s, args, *quiet, func(ctx context.Context, cl *client.Client, ref string, auth client.Credentials, each func(client.Progress) error) error {
				return cl.VolumePush(ctx, args[0], ref, *freeze, auth, each)
			})
		},
	}
}

// Pull is the command volume pull.
func Pull() *command.Command {
	f := command.NewFlags()
	quiet := f.BoolP("quiet", "q", false, "Suppress verbose output")
	labels := option.NewList(f, "label", "", "Set metadata for the volume", nil)
	options := option.NewList(f, "opt", "o", "Set driver specific options: size", nil)
	return &command.Command{
		Usage: "[OPTIONS] VOLUME REPOSITORY[:TAG|@DIGEST]", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare volume pull data registry.example/backup/data:monday",
		Long: "Make a volume of what volume push sent to a registry",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return transfer(ctx, s, args, *quiet, func(ctx context.Context, cl *client.Client, ref string, auth client.Credentials, each func(client.Progress) error) error {
				return cl.VolumePull(ctx, args[0], ref, client.VolumeImportOptions{Labels: labels.Map(), Options: options.Map()}, auth, each)
			})
		},
	}
}

type moving func(ctx context.Context, cl *client.Client, ref string, auth client.Credentials, each func(client.Progress) error) error

// transfer shows how a volume goes to a registry, or comes from one.
func transfer(ctx context.Context, s *command.Session, args []string, quiet bool, run moving) error {
	if volume := args[0]; strings.ContainsAny(volume, "/:@") {
		return fault.New(fault.Invalid, "%q is no name of a volume: the volume comes first, then the repository", volume)
	}
	ref, err := reference.Parse(args[1])
	if err != nil {
		return err
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	err = progress.Follow(ctx, s.Out, quiet, func(ctx context.Context, each func(client.Progress) error) error {
		return run(ctx, cl, ref.String(), s.Credentials(ref.Domain), each)
	})
	if err == nil && quiet {
		_, err = fmt.Fprintln(s.Out, ref)
	}
	return err
}
