package command

import (
	"io"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
)

// CheckOutput refuses a path that no file can be written to, before the daemon
// is asked for what is to be there. "" is stdout.
func CheckOutput(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fault.New(fault.Invalid, "invalid output path: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fault.New(fault.Invalid, "invalid output path: %q must be a file, not a directory", path)
	}
	return nil
}

// WriteOutput writes all of the reader to a file as writeFile does, or to out
// when path is "".
func WriteOutput(out io.Writer, path string, r io.Reader) error {
	if path == "" {
		_, err := io.Copy(out, r)
		return err
	}
	return writeFile(path, r)
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
	f, err := os.CreateTemp(filepath.Dir(path), ".tare-output-")
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
