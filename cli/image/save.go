package image

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Save is the command save.
func Save() *command.Command {
	f := command.NewFlags()
	var output string
	var platforms []string
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	f.StringSliceVar(&platforms, "platform", nil, "Save only the given platform variant (os[/arch[/variant]])")
	return &command.Command{
		Usage: "[OPTIONS] IMAGE [IMAGE...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			if _, ok := command.Terminal(s.Out); ok && output == "" {
				return fault.New(fault.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			if err := checkOutput(output); err != nil {
				return err
			}
			body, err := cl.ImageSave(ctx, args, platforms)
			if err != nil {
				return err
			}
			defer body.Close()
			m := newMeter(body, s.Err, "Saving", 0)
			defer m.done()
			if output == "" {
				_, err = io.Copy(s.Out, m)
				return err
			}
			return writeFile(output, m)
		},
	}
}

// checkOutput refuses a path that no file can be written to, before the image
// is asked for. "" is stdout.
func checkOutput(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fault.New(fault.Invalid, "failed to save image: invalid output path: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fault.New(fault.Invalid, "failed to save image: invalid output path: %q must be a file, not a directory", path)
	}
	return nil
}

// writeFile writes all of the reader to a file that appears only when it is
// whole. What is no regular file is written as it is.
func writeFile(path string, r io.Reader) (err error) {
	mode := os.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			if _, err = io.Copy(f, r); err != nil {
				f.Close()
				return err
			}
			return f.Close()
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tare-save-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, r); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
