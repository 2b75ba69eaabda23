package container

import (
	"context"
	"io"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Logs is the command logs.
func Logs() *command.Command {
	f := command.NewFlags()
	var o client.LogsOptions
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	f.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	f.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	var clearing bool
	f.BoolVar(&clearing, "clear", false, "Delete what was logged so far, instead of showing it")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER", MinArgs: 1, MaxArgs: 1, Flags: f, Example: "tare logs -f --tail 100 web",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			var err error
			if o.Since, err = option.Timestamp(o.Since, "since"); err != nil {
				return err
			}
			if o.Until, err = option.Timestamp(o.Until, "until"); err != nil {
				return err
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			if clearing {
				return cl.ContainerLogsClear(ctx, args[0])
			}
			// Whether the log comes in frames depends on the terminal.
			state, err := cl.ContainerInspect(ctx, args[0])
			if err != nil {
				return err
			}
			body, err := cl.ContainerLogs(ctx, state.Id, o)
			if err != nil {
				return err
			}
			defer body.Close()
			if state.Config.Tty {
				_, err = io.Copy(s.Out, body)
				return err
			}
			return client.Demultiplex(s.Out, s.Err, body)
		},
	}
}
