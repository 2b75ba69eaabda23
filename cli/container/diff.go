package container

import (
	"context"
	"io"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Diff is the command diff.
func Diff() *command.Command {
	return &command.Command{
		Usage: "CONTAINER", MinArgs: 1, MaxArgs: 1, Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if args[0] == "" {
				return fault.New(fault.Invalid, "Container name cannot be empty")
			}
			return diff(ctx, s, args[0])
		},
	}
}

// changeKinds are the letters of what can happen to a path: changed, added,
// deleted.
const changeKinds = "CAD"

func diff(ctx context.Context, s *command.Session, name string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	changes, err := cl.ContainerChanges(ctx, name)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, c := range changes {
		kind := "?"
		if c.Kind >= 0 && c.Kind < len(changeKinds) {
			kind = changeKinds[c.Kind : c.Kind+1]
		}
		b.WriteString(kind + " " + c.Path + "\n")
	}
	_, err = io.WriteString(s.Out, b.String())
	return err
}
