package progress

import (
	"context"
	"io"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// Follow shows the messages of an operation that the user may interrupt.
func Follow(ctx context.Context, out io.Writer, quiet bool, run func(ctx context.Context, each func(client.Progress) error) error) error {
	return command.Interruptible(ctx, func(ctx context.Context) error {
		if quiet {
			return run(ctx, func(client.Progress) error { return nil })
		}
		d := New(out)
		err := run(ctx, d.Message)
		if cerr := d.Close(); err == nil {
			err = cerr
		}
		return err
	})
}
