// Tarerun runs OCI bundles with runc's command line.
package main

// The Go runtime's look at the CPU limits of the own control group reads four
// files at every start.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/fault"
)

// settings are the options before the command.
type settings struct {
	root, log, logFormat string
	debug, systemd       bool
}

// command is one word of the command line.
type command struct {
	name, usage string
	run         func(g *settings, args []string) error
}

var commands []command

func init() {
	commands = []command{
		{"create", "create [flags] ID: make a container, without starting its process", runCreate},
		{"start", "start ID: start the process of a created container", runStart},
		{"run", "run [flags] ID: create and start a container", runRun},
		{"exec", "exec [flags] ID COMMAND [ARG...]: start another process in a container", runExec},
		{"kill", "kill [--all] ID [SIGNAL]: send a signal, SIGTERM by default", runKill},
		{"delete", "delete [--force] ID...: remove stopped containers", runDelete},
		{"state", "state ID: show the state as JSON", runState},
		{"list", "list [-q] [--format table|json]: list containers", runList},
		{"ps", "ps [--format table|json] ID [PS OPTIONS]: list a container's processes", runPs},
		{"pause", "pause ID: stop all processes of a container", runPause},
		{"resume", "resume ID: let them go on", runResume},
		{"spec", "spec [-b DIR]: write a config.json to begin with", runSpec},
		{"features", "features: show what this runtime supports as JSON", runFeatures},
	}
}

func main() { os.Exit(run(os.Args[1:])) }

// exitCode ends the program with the code of a container's process.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(args []string) int {
	g := &settings{}
	flags := newFlags("tarerun")
	flags.StringVar(&g.root, "root", "/run/tarerun", "")
	flags.StringVar(&g.log, "log", "", "")
	flags.StringVar(&g.logFormat, "log-format", "text", "")
	flags.BoolVar(&g.debug, "debug", false, "")
	flags.BoolVar(&g.systemd, "systemd-cgroup", false, "")
	rootless := flags.String("rootless", "auto", "")
	showVersion := flags.Bool("version", false, "")
	flags.BoolVar(showVersion, "v", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(os.Stdout)
		return 0
	case err != nil:
	case *showVersion:
		fmt.Println("tarerun version " + version + "\nspec: " + specVersion)
		return 0
	case g.systemd:
		err = fault.New(fault.NotImplemented, "--systemd-cgroup is not supported yet")
	case *rootless != "auto" && *rootless != "false":
		err = fault.New(fault.NotImplemented, "--rootless is not supported yet")
	case g.logFormat != "text" && g.logFormat != "json":
		err = fault.New(fault.Invalid, "--log-format %q is not known; use text or json", g.logFormat)
	default:
		err = dispatch(g, flags.Args())
	}
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	g.report(err)
	if flags.Arg(0) == "exec" {
		return 255 // told apart from what a process would exit with
	}
	return 1
}

func dispatch(g *settings, args []string) error {
	if len(args) == 0 {
		help(os.Stderr)
		return exitCode(1)
	}
	for _, c := range commands {
		if c.name == args[0] {
			err := c.run(g, args[1:])
			if errors.Is(err, flag.ErrHelp) {
				fmt.Println("tarerun " + c.usage)
				return nil
			}
			return err
		}
	}
	switch args[0] {
	case "help":
		help(os.Stdout)
		return nil
	case "update", "events", "checkpoint", "restore":
		return fault.New(fault.NotImplemented, "tarerun %s is not supported yet", args[0])
	}
	return fault.New(fault.Invalid, "tarerun has no command %q; see tarerun --help", args[0])
}

func help(w io.Writer) {
	fmt.Fprintln(w, "tarerun [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND")
	for _, c := range commands {
		fmt.Fprintln(w, "  "+c.usage)
	}
}

func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// report tells a failure on standard error and in the log, in the form that
// callers of runc parse.
func (g *settings) report(err error) {
	fmt.Fprintln(os.Stderr, "tarerun: "+err.Error())
	if g.log == "" {
		return
	}
	f, openErr := os.OpenFile(g.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if openErr != nil {
		fmt.Fprintln(os.Stderr, "tarerun: "+openErr.Error())
		return
	}
	now := time.Now().Format(time.RFC3339)
	if g.logFormat == "json" {
		b, _ := json.Marshal(map[string]string{"level": "error", "msg": err.Error(), "time": now})
		_, openErr = f.Write(append(b, '\n'))
	} else {
		_, openErr = fmt.Fprintf(f, "time=%q level=error msg=%q\n", now, err.Error())
	}
	if closeErr := f.Close(); openErr != nil || closeErr != nil {
		fmt.Fprintln(os.Stderr, "tarerun: the log "+g.log+" could not be written")
	}
}

// oneID takes the only argument of a command.
func oneID(name string, args []string) (string, error) {
	f := newFlags(name)
	if err := f.Parse(args); err != nil {
		return "", err
	}
	if f.NArg() != 1 {
		return "", fault.New(fault.Invalid, "tarerun %s takes one container ID", name)
	}
	return f.Arg(0), nil
}

// writePidFile is atomic: who waits for the file never reads half a number.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, []byte(fmt.Sprint(pid)), 0o666); err != nil {
		return fault.New(fault.Internal, "write the pid file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fault.New(fault.Internal, "write the pid file: %w", err)
	}
	return nil
}
