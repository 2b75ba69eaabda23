// Package cli is the command line of tare: it reads the flags before the
// command, finds the command by its words, builds that one and runs it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// Main runs one command line, without the program's name, and returns the exit
// code. Errors have been printed.
func Main(ctx context.Context, s *command.Session, args []string) int {
	err := run(ctx, s, args)
	if err == nil {
		return 0
	}
	var exit *command.Exit
	if !errors.As(err, &exit) {
		exit = &command.Exit{Code: 1, Err: err}
	}
	if exit.Err != nil {
		fmt.Fprintln(s.Err, called(s, strings.TrimRight(exit.Err.Error(), "\n")))
	}
	return exit.Code
}

func run(ctx context.Context, s *command.Session, args []string) error {
	globals := command.NewFlags()
	globals.SetInterspersed(false)
	version := globalFlags(globals, &s.Options)
	help := globals.Bool("help", false, "Print usage")
	if err := globals.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return rootHelp(s, s.Out, globals)
		}
		return badFlags(err, "Usage:  tare [OPTIONS] COMMAND [ARG...]", "tare")
	}
	words := globals.Args()
	switch {
	case *version:
		product := "Tare"
		if s.Name() == "docker" {
			product = "Docker" // what reads it looks for that word
		}
		_, err := fmt.Fprintf(s.Out, "%s version %s, build %s\n", product, s.Version, s.Commit)
		return err
	case len(words) > 0 && words[0] == "help":
		return helpFor(s, words[1:], globals)
	case len(words) == 0 && *help:
		return rootHelp(s, s.Out, globals)
	case len(words) == 0:
		return rootHelp(s, s.Err, globals) // nothing was asked for
	case *help:
		return helpFor(s, words, globals)
	}
	switch words[0] {
	case "completion":
		return completion(s, words[1:])
	case "__complete":
		return complete(ctx, s, words[1:])
	}
	e, used, noun := find(words)
	if e == nil || byPlugin(s, words) {
		if args := pluginArgs(words, noun); args != nil && !lists(s, words) {
			return runPlugin(s, words, args)
		}
		return unknown(s, words, noun)
	}
	return call(ctx, s, e, words[:used], words[used:])
}

// globalFlags adds the flags before the command.
func globalFlags(f *pflag.FlagSet, o *command.Options) (version *bool) {
	f.StringVar(&o.ConfigDir, "config", "", "Location of client config files")
	f.StringVarP(&o.Context, "context", "c", "", "Name of the context to use to connect to the daemon (overrides TARE_HOST and DOCKER_HOST)")
	f.BoolVarP(&o.Debug, "debug", "D", false, "Enable debug mode")
	f.StringArrayVarP(&o.Hosts, "host", "H", nil, "Daemon socket to connect to")
	f.StringVarP(&o.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	f.BoolVar(&o.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	f.StringVar(&o.CA, "tlscacert", "", "Trust certs signed only by this CA")
	f.StringVar(&o.Cert, "tlscert", "", "Path to TLS certificate file")
	f.StringVar(&o.Key, "tlskey", "", "Path to TLS key file")
	f.VarPF(&optional{to: &o.TLSVerify}, "tlsverify", "", "Use TLS and verify the remote").NoOptDefVal = "true"
	return f.BoolP("version", "v", false, "Print version information and quit")
}

// optional is a boolean flag that knows whether it was given.
type optional struct{ to **bool }

func (o *optional) Type() string { return "bool" }
func (o *optional) String() string {
	if o.to == nil || *o.to == nil {
		return "false"
	}
	return fmt.Sprint(**o.to)
}

func (o *optional) Set(s string) error {
	value := s == "true" || s == "1"
	if !value && s != "false" && s != "0" {
		return fault.New(fault.Invalid, "invalid boolean %q", s)
	}
	*o.to = &value
	return nil
}

// call builds the command, parses its flags, checks its arguments and runs it.
func call(ctx context.Context, s *command.Session, e *entry, words, args []string) error {
	if err := checkLevel(s.Options.LogLevel); err != nil {
		return err
	}
	c := e.build()
	name := strings.Join(words, " ")
	help := false
	if c.Flags.Lookup("help") == nil {
		c.Flags.BoolVar(&help, "help", false, "Print usage")
	}
	usage := "Usage:  tare " + name + " " + c.Usage
	if err := c.Flags.Parse(args); errors.Is(err, pflag.ErrHelp) || help {
		return commandHelp(s, e, c, name)
	} else if err != nil {
		return badFlags(err, usage, "tare "+name)
	}
	if err := checkArgs(c, name, usage); err != nil {
		return err
	}
	return c.Run(ctx, s, c.Flags.Args())
}

func checkLevel(level string) error {
	switch strings.ToLower(level) {
	case "", "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
		return nil
	}
	return fault.New(fault.Invalid, "unable to parse logging level: %s", level)
}

func badFlags(err error, usage, name string) error {
	return &command.Exit{Code: 125, Err: fmt.Errorf("%w\n\n%s\n\nRun '%s --help' for more information", err, usage, name)}
}

// checkArgs checks the number of arguments, in Docker's words.
func checkArgs(c *command.Command, name, usage string) error {
	n := c.Flags.NArg()
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	var problem string
	see := "Run"
	switch {
	case n >= c.MinArgs && (c.MaxArgs < 0 || n <= c.MaxArgs):
		return nil
	case c.MaxArgs == 0:
		problem = "accepts no arguments"
	case c.MinArgs == c.MaxArgs:
		problem = "requires " + plural(c.MinArgs)
	case n < c.MinArgs && c.MaxArgs < 0:
		problem, see = "requires at least "+plural(c.MinArgs), "See"
	case c.MinArgs == 0:
		problem = "requires at most " + plural(c.MaxArgs)
	default:
		problem = fmt.Sprintf("requires at least %d and at most %s", c.MinArgs, plural(c.MaxArgs))
	}
	return fmt.Errorf("tare: 'tare %s' %s\n\n%s\n\n%s 'tare %s --help' for more information", name, problem, usage, see, name)
}

// unknown answers words that name no command.
func unknown(s *command.Session, words []string, noun bool) error {
	if noun && len(words) == 1 {
		return groupHelp(s, s.Err, words[0])
	}
	if noun {
		if strings.HasPrefix(words[1], "-") {
			if words[1] == "--help" || words[1] == "-h" {
				return groupHelp(s, s.Out, words[0])
			}
			return badFlags(fmt.Errorf("unknown flag: %s", words[1]), "Usage:  tare "+words[0]+" COMMAND", "tare "+words[0])
		}
		if err := refusal(words[0] + " " + words[1]); err != nil {
			return err
		}
		return fmt.Errorf("tare: unknown command: tare %s %s\n\nUsage:  tare %s COMMAND\n\nRun 'tare %s --help' for more information",
			words[0], words[1], words[0], words[0])
	}
	if err := refusal(words[0]); err != nil {
		return err
	}
	return fmt.Errorf("tare: unknown command: tare %s\n\nRun 'tare --help' for more information", words[0])
}

// refusal says why a command is not there, if that is known.
func refusal(command string) error {
	for _, r := range refused {
		if r.command == command {
			return fault.New(fault.NotImplemented, "tare: 'tare %s' %s", command, r.why)
		}
	}
	return nil
}

// helpFor prints the help of what the words name.
func helpFor(s *command.Session, words []string, globals *pflag.FlagSet) error {
	if len(words) == 0 || words[0] == "--help" {
		return rootHelp(s, s.Out, globals)
	}
	if words[0] == "completion" {
		_, err := io.WriteString(s.Out, completionHelp)
		return err
	}
	e, used, noun := find(words)
	if args := pluginArgs(words, noun); e == nil && args != nil {
		return runPlugin(s, words, append(args, "--help"))
	}
	switch {
	case e != nil:
		c := e.build()
		c.Flags.Bool("help", false, "Print usage")
		return commandHelp(s, e, c, strings.Join(words[:used], " "))
	case noun:
		return groupHelp(s, s.Out, words[0])
	}
	return unknown(s, words, false)
}
