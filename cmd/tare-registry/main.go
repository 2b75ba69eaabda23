// Command tare-registry is Tare's registry of images: one program, which needs
// no other, no daemon and no configuration to begin with.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
)

// Set by the linker: -X main.version=… and so on.
var (
	version   = "0.1.0-dev"
	gitCommit = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Stdout, os.Stderr, os.Args[1:])
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "tare-registry: %v\n", err)
		os.Exit(1)
	}
}

// command is one that the program has.
type command struct {
	name, args, does string
	most             int // arguments
	run              func(ctx context.Context, out, log io.Writer, o *options) error
	flags            func(*pflag.FlagSet, *options)
	help             string
}

var commands = []command{
	{"serve", "", "Serve images until told to stop", 0, serve, serveFlags,
		"Clients reach it at 127.0.0.1:5000 unless --addr says otherwise; 0.0.0.0:5000 is for all\n" +
			"interfaces, as in a container. Without --auth, and without [auth] in the configuration,\n" +
			"whoever can connect may do everything.\n\n" +
			"SIGTERM ends it when requests under way have ended; SIGUSR1 has it remove at once what\n" +
			"retention and garbage collection would remove later; SIGHUP has it read its configuration\n" +
			"again: who may do what, what binds repositories, and when garbage is collected."},
	{"start", "", "Serve images in the background", 0, startInBackground, startFlags,
		"This is a process of the user who starts it, not a container: it needs no image, which would\n" +
			"have to come from another registry first, no daemon and no root. It ends with stop, or with\n" +
			"the machine; for one that is to be there after each boot, have the system run serve."},
	{"stop", "", "End the registry in the background", 0, stopInBackground, backgroundFlags, ""},
	{"status", "", "Tell whether a registry runs in the background, and where", 0, showBackground, backgroundFlags, ""},
	{"config check", "FILE", "Check a configuration file, and tell all that is wrong with it", 1, checkConfig, nil, ""},
	{"garbage-collect", "", "Remove what no image needs any longer", 0, garbageCollect, collectFlags,
		"A registry that is running does this by itself. Where it has a directory it is asked to do it\n" +
			"now; a bucket is collected beside the registries that use it."},
	{"retention", "", "Remove the tags and manifests that [repository.retention] does not keep", 0, retain, retainFlags,
		"A registry that is running does this by itself before each garbage collection. Where it has a\n" +
			"directory it is asked to do it now, by the rules that it has read."},
	{"version", "", "Print the version", 0, printVersion, nil, ""},
}

func run(ctx context.Context, out, log io.Writer, args []string) error {
	if len(args) > 1 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	c, rest := find(args)
	if c == nil {
		return other(out, args)
	}
	o := newOptions()
	f := pflag.NewFlagSet("tare-registry "+c.name, pflag.ContinueOnError)
	f.SortFlags = true
	f.Usage = func() { c.usage(out, f) }
	if c.flags != nil {
		c.flags(f, o)
	}
	if err := f.Parse(rest); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return fault.New(fault.Invalid, "%w: see tare-registry %s --help", err, c.name)
	}
	o.args, o.flags = f.Args(), f
	if n := f.NArg(); n > c.most || n < c.most && c.args != "" {
		return fault.New(fault.Invalid, "tare-registry %s takes %s: see tare-registry %s --help", c.name, expected(c), c.name)
	}
	return c.run(ctx, out, log, o)
}

func expected(c *command) string {
	if c.args == "" {
		return "no arguments"
	}
	return c.args
}

// find gives the command that the arguments begin with.
func find(args []string) (*command, []string) {
	for i := range commands {
		words := strings.Fields(commands[i].name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == commands[i].name {
			return &commands[i], args[len(words):]
		}
	}
	switch strings.Join(args, " ") {
	case "config", "config -h", "config --help":
		return find([]string{"config", "check", "--help"})
	}
	return nil, nil
}

// other answers what is no command.
func other(out io.Writer, args []string) error {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help" && len(args) == 1 {
		fmt.Fprint(out, "Usage:  tare-registry COMMAND\n\nA registry of images: the OCI distribution specification 1.1\n\nCommands:\n")
		for _, c := range commands {
			fmt.Fprintf(out, "  %-20s%s\n", strings.TrimSpace(c.name+" "+c.args), c.does)
		}
		fmt.Fprint(out, "\nBegin with:  tare-registry serve\nRun 'tare-registry COMMAND --help' for more.\n")
		return nil
	}
	if args[0] == "--version" || args[0] == "-v" {
		return printVersion(nil, out, nil, nil)
	}
	return fault.New(fault.Invalid, "%q is no command: see tare-registry --help", strings.Join(args, " "))
}

func (c *command) usage(out io.Writer, f *pflag.FlagSet) {
	options := ""
	if f.HasFlags() {
		options = " [OPTIONS]"
	}
	fmt.Fprintf(out, "Usage:  tare-registry %s%s\n\n%s\n", strings.TrimSpace(c.name+options+" "+c.args), "", c.does)
	if c.help != "" {
		fmt.Fprintf(out, "\n%s\n", c.help)
	}
	if f.HasFlags() {
		fmt.Fprintf(out, "\nOptions:\n%s", f.FlagUsages())
	}
}

func printVersion(_ context.Context, out, _ io.Writer, _ *options) error {
	commit := gitCommit
	if commit == "" {
		commit = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					commit = s.Value[:min(12, len(s.Value))]
				}
			}
		}
	}
	_, err := fmt.Fprintf(out, "tare-registry version %s, build %s, %s/%s\n", version, commit, runtime.GOOS, runtime.GOARCH)
	return err
}
