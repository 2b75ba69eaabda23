package command

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// Through has another program, which lies beside this one, carry a command out:
// with the words, the flags that were given, and the arguments.
func Through(ctx context.Context, s *Session, program string, words []string, f *pflag.FlagSet, args []string) error {
	path, err := beside(program)
	if err != nil {
		return err
	}
	f.Visit(func(flag *pflag.Flag) {
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			for _, value := range list.GetSlice() {
				words = append(words, "--"+flag.Name+"="+value)
			}
			return
		}
		words = append(words, "--"+flag.Name+"="+flag.Value.String())
	})
	c := exec.CommandContext(ctx, path, append(append(words, "--"), args...)...)
	c.Stdin, c.Stdout, c.Stderr = s.In, s.Out, s.Err
	settled := thread.Settle()
	err = c.Start()
	settled()
	if err == nil {
		err = c.Wait()
	}
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return &Exit{Code: failed.ExitCode()} // it has said why
	}
	return err
}

// beside looks for the program beside this one, then in the path.
func beside(program string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	there := filepath.Join(filepath.Dir(self), program)
	if _, err := os.Stat(there); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return there, err
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fault.New(fault.NotFound, "the program %s is missing: it belongs beside %s", program, self)
	}
	return path, nil
}
