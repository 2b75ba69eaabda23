package registry

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Login is the command login.
func Login() *command.Command {
	f := command.NewFlags()
	o := &login{flags: f}
	f.StringVarP(&o.user, "username", "u", "", "Username")
	f.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	f.BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return &command.Command{Usage: "[OPTIONS] [SERVER]", MaxArgs: 1, Flags: f,
		Long: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.", Run: o.run}
}

type login struct {
	flags          *pflag.FlagSet
	user, password string
	stdin          bool
}

func (o *login) run(ctx context.Context, s *command.Session, args []string) error {
	if err := o.check(s); err != nil {
		return err
	}
	server := ""
	if len(args) > 0 {
		server = args[0]
	}
	server = serverOf(server)
	warnEnvironment(s)
	kept, readErr := s.Config().Credentials(server)
	if o.user == "" && o.password == "" && readErr == nil && kept.Username != "" && kept.Password != "" {
		if err := again(ctx, s, kept); err == nil {
			return nil
		}
	}
	c := client.Credentials{Username: o.user, Password: o.password, ServerAddress: server}
	if err := prompt(ctx, s, &c, kept.Username); err != nil {
		return err
	}
	return enter(ctx, s, c)
}

// check refuses flags that contradict each other and reads the password from
// stdin.
func (o *login) check(s *command.Session) error {
	switch {
	case o.flags.Changed("username") && o.user == "":
		return fault.New(fault.Invalid, "username is empty")
	case o.flags.Changed("password") && o.stdin:
		return fault.New(fault.Invalid, "conflicting options: cannot specify both --password and --password-stdin")
	case o.flags.Changed("password") && o.password == "":
		return fault.New(fault.Invalid, "password is empty")
	case o.stdin && o.user == "":
		return fault.New(fault.Invalid, "the --password-stdin option requires --username to be set")
	case o.password != "":
		fmt.Fprintln(s.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	case o.stdin:
		text, err := io.ReadAll(io.LimitReader(s.In, 1<<20))
		if err != nil {
			return err
		}
		o.password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		if o.password == "" {
			return fault.New(fault.Invalid, "password is empty")
		}
	}
	return nil
}

// serverOf gives the key that a server's credentials are kept under.
func serverOf(server string) string {
	if server == "" || server == config.DockerHub {
		return config.DockerHub
	}
	return config.ServerKey(config.Hostname(server))
}

// warnEnvironment says that what is stored now is not what will be used.
func warnEnvironment(s *command.Session) {
	if s.Getenv("DOCKER_AUTH_CONFIG") != "" {
		fmt.Fprintln(s.Err, "WARNING: DOCKER_AUTH_CONFIG is set and takes precedence over the credentials in", s.Config().Path())
	}
}

// again logs in with what is kept.
func again(ctx context.Context, s *command.Session, c client.Credentials) error {
	fmt.Fprintf(s.Err, "Authenticating with existing credentials... [Username: %s]\n\n"+
		" Info -> To login with a different account, run 'tare logout' followed by 'tare login'\n\n\n", c.Username)
	err := enter(ctx, s, c)
	if err != nil {
		fmt.Fprintf(s.Err, "Login did not succeed, error: %v\n", err)
	}
	return err
}

// enter has the daemon try the credentials, and keeps them when they are good.
func enter(ctx context.Context, s *command.Session, c client.Credentials) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	answer, err := cl.RegistryLogin(ctx, c)
	if err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		c.Password, c.IdentityToken = "", answer.IdentityToken
	}
	plain, err := s.Config().Keep(c)
	if err != nil {
		return fault.New(fault.Internal, "Error saving credentials: %w", err)
	}
	if plain {
		fmt.Fprintf(s.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"+
			"Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", s.Config().Path())
	}
	if answer.Status == "" {
		answer.Status = "Login Succeeded"
	}
	_, err = fmt.Fprintln(s.Out, answer.Status)
	return err
}

// prompt asks on the terminal for what is missing. before is the user name that
// an empty answer means.
func prompt(ctx context.Context, s *command.Session, c *client.Credentials, before string) error {
	if c.Username != "" && c.Password != "" {
		return nil
	}
	if _, ok := command.Terminal(s.In); !ok {
		return fault.New(fault.Invalid, "Error: Cannot perform an interactive login from a non TTY device")
	}
	if c.Username == "" {
		label := "Username: "
		if before != "" {
			label = fmt.Sprintf("Username (%s): ", before)
		}
		name, err := ask(ctx, s, label)
		if err != nil {
			return err
		}
		if c.Username = strings.TrimSpace(name); c.Username == "" {
			c.Username = before
		}
		if c.Username == "" {
			return fault.New(fault.Invalid, "Error: Non-null Username Required")
		}
	}
	if c.Password != "" {
		return nil
	}
	password, err := askHidden(ctx, s)
	if err != nil {
		return err
	}
	if c.Password = password; c.Password == "" {
		return fault.New(fault.Invalid, "Error: Password Required")
	}
	return nil
}

// ask prints a question and waits for a line, or for the user to interrupt.
func ask(ctx context.Context, s *command.Session, label string) (string, error) {
	var text string
	err := command.Interruptible(ctx, func(ctx context.Context) error {
		if _, err := fmt.Fprint(s.Out, label); err != nil {
			return err
		}
		type answer struct {
			line string
			err  error
		}
		got := make(chan answer, 1)
		go func() {
			line, err := bufio.NewReader(s.In).ReadString('\n')
			got <- answer{line, err}
		}()
		select {
		case a := <-got:
			text = strings.TrimRight(a.line, "\r\n")
			if a.err == io.EOF {
				a.err = nil
			}
			return a.err
		case <-ctx.Done():
			fmt.Fprintln(s.Out)
			return ctx.Err()
		}
	})
	return text, err
}

// askHidden asks for the password. The terminal stops to show what is typed
// before the question is there.
func askHidden(ctx context.Context, s *command.Session) (string, error) {
	restore, err := stream.Hide(s.In)
	if err != nil {
		return "", err
	}
	defer restore()
	text, err := ask(ctx, s, "Password: ")
	if err == nil {
		fmt.Fprintln(s.Out)
	}
	return text, err
}
