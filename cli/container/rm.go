package container

import (
	"context"
	"errors"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Rm is the command rm.
func Rm() *command.Command {
	f := command.NewFlags()
	var o client.RemoveOptions
	f.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	f.BoolVarP(&o.Link, "link", "l", false, "Remove the specified link")
	f.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				name = strings.Trim(name, "/")
				if name == "" {
					return fault.New(fault.Invalid, "container name cannot be empty")
				}
				err := cl.ContainerRemove(ctx, name, o)
				if o.Force && errors.Is(err, fault.NotFound) {
					s.Err.Write([]byte(err.Error() + "\n"))
					return nil
				}
				if err == nil {
					_, err = s.Out.Write([]byte(name + "\n"))
				}
				return err
			})
		},
	}
}
