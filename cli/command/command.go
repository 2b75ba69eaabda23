// Package command holds what every command of tare is made of: its
// description, the streams and the daemon that it works with, and its errors.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// Command describes one command. It is built only when it is called, or when
// its help is asked for.
type Command struct {
	Usage   string // what follows the command's words: "[OPTIONS] CONTAINER"
	Long    string // the help's first sentence; "" takes the list's
	Example string // a command line that does something, or ""
	MinArgs int
	MaxArgs int // -1: any number
	// Program is set for commands whose arguments end in another program's
	// command line: flags after the first argument belong to that program.
	Program bool
	Flags   *pflag.FlagSet
	Run     func(ctx context.Context, s *Session, args []string) error
}

// NewFlags returns an empty set of flags.
func NewFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = true
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	return f
}

// Exit is an error that chooses the exit code. Without Err nothing is printed.
type Exit struct {
	Code int
	Err  error
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Exit) Unwrap() error { return e.Err }

// BadTemplate is the error of a --format that cannot be parsed, with Docker's
// exit code.
func BadTemplate(err error) error { return &Exit{Code: 64, Err: err} }

// WithHelp adds the program's name and where help is to be found.
func WithHelp(err error, words string) error {
	return &helped{err, words}
}

type helped struct {
	err   error
	words string
}

func (h *helped) Error() string {
	return "tare: " + strings.TrimSuffix(h.err.Error(), "\n") + "\n\nRun 'tare " + h.words + " --help' for more information"
}

func (h *helped) Unwrap() error { return h.err }

// atOnce bounds how many requests Together has under way.
const atOnce = 50

// Together acts on every name at the same time, and calls done in the names'
// order for those that it succeeded on. The errors are joined, one a line.
func Together(names []string, act, done func(name string) error) error {
	results := make([]chan error, len(names))
	limit := make(chan struct{}, atOnce)
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			results[i] <- act(name)
		}()
	}
	var errs []error
	for i, name := range names {
		err := <-results[i]
		if err == nil {
			err = done(name)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Each runs a function for every name; all are tried. It prints nothing; the
// errors are joined, one a line.
func Each(names []string, f func(name string) error) error {
	var errs []error
	for _, name := range names {
		if err := f(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
