package registry

import (
	"context"
	"fmt"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
)

// Logout is the command logout.
func Logout() *command.Command {
	return &command.Command{
		Usage: "[SERVER]", MaxArgs: 1, Flags: command.NewFlags(),
		Long: "Log out from a registry.\nDefaults to Docker Hub if no server is specified.",
		Run: func(_ context.Context, s *command.Session, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			return logout(s, server)
		},
	}
}

// logout forgets a server under each of the names that clients have stored it
// by. It is enough that one of them can be forgotten.
func logout(s *command.Session, server string) error {
	warnEnvironment(s)
	keys := []string{serverOf(server)}
	if host := keys[0]; host != config.DockerHub {
		keys = append(keys, "http://"+host, "https://"+host)
		if server != host {
			keys = append(keys, server)
		}
	}
	if _, err := fmt.Fprintln(s.Out, "Removing login credentials for "+keys[0]); err != nil {
		return err
	}
	var failed []string
	for _, key := range keys {
		if err := s.Config().Forget(key); err != nil {
			failed = append(failed, key+": "+err.Error())
		}
	}
	if len(failed) == len(keys) {
		fmt.Fprintln(s.Err, "WARNING: could not erase credentials:")
		for _, line := range failed {
			fmt.Fprintln(s.Err, line)
		}
	}
	return nil
}
