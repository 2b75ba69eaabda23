package volume

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

const freezeUsage = "Pause the containers that use the volume until it is copied"

// Clone is the command volume clone.
func Clone() *command.Command {
	f := command.NewFlags()
	freeze := f.Bool("freeze", false, freezeUsage)
	labels := option.NewList(f, "label", "", "Set metadata for the new volume", nil)
	return &command.Command{
		Usage: "[OPTIONS] VOLUME NEW_NAME", MinArgs: 2, MaxArgs: 2, Flags: f, Example: "tare volume clone data data-copy",
		Long: "Make a volume with the content that another has now. It takes no room where the file system shares data (btrfs, XFS)",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return copied(ctx, s, func(ctx context.Context, cl *client.Client) (client.Volume, error) {
				return cl.VolumeClone(ctx, args[0], client.VolumeCopy{Name: args[1], Labels: labels.Map(), Freeze: *freeze})
			})
		},
	}
}

// Snapshot is the command volume snapshot.
func Snapshot() *command.Command {
	f := command.NewFlags()
	freeze := f.Bool("freeze", false, freezeUsage)
	labels := option.NewList(f, "label", "", "Set metadata for the snapshot", nil)
	return &command.Command{
		Usage: "[OPTIONS] VOLUME [NEW_NAME]", MinArgs: 1, MaxArgs: 2, Flags: f, Example: "tare volume snapshot --freeze data",
		Long: "Keep the content that a volume has now as a volume that containers can only read. A clone of it can be written to",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			o := client.VolumeCopy{Labels: labels.Map(), Freeze: *freeze}
			if len(args) > 1 {
				o.Name = args[1]
			}
			return copied(ctx, s, func(ctx context.Context, cl *client.Client) (client.Volume, error) {
				return cl.VolumeSnapshot(ctx, args[0], o)
			})
		},
	}
}

// copied prints the name of the volume that act makes.
func copied(ctx context.Context, s *command.Session, act func(context.Context, *client.Client) (client.Volume, error)) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	return command.Interruptible(ctx, func(ctx context.Context) error {
		v, err := act(ctx, cl)
		if err == nil {
			_, err = fmt.Fprintln(s.Out, v.Name)
		}
		return err
	})
}
