package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Interruptible runs what the user may end at any moment: on SIGINT or SIGTERM
// its context ends and, once it has returned, the exit code is 128 and the
// signal's number. A second signal ends the program at once.
func Interruptible(ctx context.Context, run func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(caught)
	var code int
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case s := <-caught:
			signal.Stop(caught)
			code = 128 + int(s.(syscall.Signal))
			cancel()
		case <-ctx.Done():
		}
	}()
	err := run(ctx)
	cancel()
	<-watched
	if err != nil && code != 0 {
		return &Exit{Code: code}
	}
	return err
}
