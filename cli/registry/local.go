package registry

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
)

// Start is the command registry start.
func Start() *command.Command {
	f := stateFlags()
	f.StringArray("addr", nil, "HOST:PORT to listen on (default 127.0.0.1:5000)")
	f.Bool("anonymous-pull", false, "With --auth: whoever is not logged in may pull")
	f.String("auth", "", "How users log in: htpasswd:FILE (as htpasswd -B makes it)")
	f.String("config", "", "Configuration file (default /etc/tare/registry.toml, if it is there)")
	f.String("root", "", "Directory that everything is kept in")
	f.String("tls-cert", "", "Certificate of the server in PEM")
	f.String("tls-key", "", "Key of the certificate")
	c := local("start", f)
	c.Long = "Start a registry of your own in the background.\n\n" +
		"It is a process, not a container: it needs no image, which would have to come from another\n" +
		"registry first, no daemon and no root. To have one in a container, run the image tare/registry."
	return c
}

// Stop is the command registry stop.
func Stop() *command.Command { return local("stop", stateFlags()) }

// Status is the command registry status.
func Status() *command.Command { return local("status", stateFlags()) }

func stateFlags() *pflag.FlagSet {
	f := command.NewFlags()
	f.String("exec-root", "", "Directory of its state until the next boot")
	return f
}

// local makes a command that the program tare-registry carries out.
func local(verb string, f *pflag.FlagSet) *command.Command {
	return &command.Command{Usage: "[OPTIONS]", Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return command.Through(ctx, s, "tare-registry", []string{verb}, f, args)
		}}
}
