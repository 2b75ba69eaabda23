package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

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
		Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f, Example: "tare rm -f web",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			names := make([]string, len(args))
			for i, name := range args {
				names[i] = strings.Trim(name, "/")
			}
			var missing sync.Map // by name, what --force puts up with
			return command.Together(names, func(name string) error {
				if name == "" {
					return fault.New(fault.Invalid, "container name cannot be empty")
				}
				err := cl.ContainerRemove(ctx, name, o)
				if o.Force && errors.Is(err, fault.NotFound) {
					missing.Store(name, err)
					return nil
				}
				return err
			}, func(name string) error {
				if err, ok := missing.Load(name); ok {
					_, err := fmt.Fprintln(s.Err, err)
					return err
				}
				_, err := fmt.Fprintln(s.Out, name)
				return err
			})
		},
	}
}
