package system

import (
	"context"
	"io"

	"github.com/tarehq/tare/cli/command"
)

// DialStdio is the command system dial-stdio, the far end of ssh://: it connects
// its streams with the daemon.
func DialStdio() *command.Command {
	return &command.Command{
		Usage: "", Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			conn, err := cl.Connect(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			go func() {
				if _, err := io.Copy(conn, s.In); err != nil {
					conn.Close() // nobody will send the rest
					return
				}
				conn.CloseWrite()
			}()
			// The daemon's end is the end: it may close before the input does.
			_, err = io.Copy(s.Out, conn)
			return err
		},
	}
}
