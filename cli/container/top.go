package container

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/tarehq/tare/cli/command"
)

// Top is the command top. What follows the container is ps's.
func Top() *command.Command {
	f := command.NewFlags()
	f.SetInterspersed(false)
	return &command.Command{
		Usage: "CONTAINER [ps OPTIONS]", MinArgs: 1, MaxArgs: -1, Program: true, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			top, err := cl.ContainerTop(ctx, args[0], strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(s.Out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(top.Titles, "\t"))
			for _, row := range top.Processes {
				fmt.Fprintln(w, strings.Join(row, "\t"))
			}
			return w.Flush()
		},
	}
}
