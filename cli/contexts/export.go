package contexts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/fault"
)

// Export is the command context export.
func Export() *command.Command {
	return &command.Command{
		Usage: "[OPTIONS] CONTEXT [FILE|-]", MinArgs: 1, MaxArgs: 2, Flags: command.NewFlags(),
		Long:    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
		Example: "tare context export far - | ssh me@near tare context import far -",
		Run: func(_ context.Context, s *command.Session, args []string) error {
			path := args[0] + ".dockercontext"
			if len(args) == 2 {
				path = args[1]
			}
			return export(s, args[0], path)
		},
	}
}

func export(s *command.Session, name, path string) error {
	if err := config.CheckName(name); err != nil {
		return err
	}
	store := config.NewContexts(s.ConfigDir())
	c, err := store.Get(name)
	if err != nil {
		return err
	}
	if path == "-" {
		if _, ok := command.Terminal(s.Out); ok {
			return fault.New(fault.Invalid, "cowardly refusing to export to a terminal, specify a file path")
		}
		return store.Export(s.Out, c)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(store.Export(f, c), f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	_, err = fmt.Fprintf(s.Err, "Written file %q\n", path)
	return err
}

// Import is the command context import.
func Import() *command.Command {
	return &command.Command{
		Usage: "CONTEXT FILE|-", MinArgs: 2, MaxArgs: 2, Flags: command.NewFlags(),
		Run: func(_ context.Context, s *command.Session, args []string) error {
			store := config.NewContexts(s.ConfigDir())
			if err := vacant(store, args[0]); err != nil {
				return err
			}
			var in io.Reader = s.In
			if args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if err := store.Import(args[0], in); err != nil {
				return err
			}
			return told(s, args[0], "Successfully imported context %q")
		},
	}
}
