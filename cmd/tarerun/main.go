// Tarerun runs OCI bundles with runc's command line.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/internal/single" // a step of a container's life is a list of system calls
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/ocirun"
)

const defaultRoot = "/run/tarerun"

// settings are the options before the command.
type settings struct {
	root, log, logFormat string
	debug, systemd       bool
	rootless             bool // control groups that may not be made are done without
}

// command is one word of the command line.
type command struct {
	name, args, does string
	run              func(g *settings, args []string) error
}

var commands []command

func init() {
	commands = []command{
		{"create", "[flags] ID", "make a container, without starting its process", runCreate},
		{"start", "ID", "start the process of a created container", runStart},
		{"run", "[flags] ID", "create and start a container", runRun},
		{"exec", "[flags] ID COMMAND [ARG...]", "start another process in a container", runExec},
		{"kill", "[--all] ID [SIGNAL]", "send a signal, SIGTERM by default", runKill},
		{"delete", "[--force] ID...", "remove stopped containers", runDelete},
		{"state", "ID", "show the state as JSON", runState},
		{"list", "[-q] [--format table|json]", "list containers", runList},
		{"ps", "[--format table|json] ID [PS OPTIONS]", "list a container's processes", runPs},
		{"pause", "ID", "stop all processes of a container", runPause},
		{"resume", "ID", "let them go on", runResume},
		{"update", "[flags] ID", "change the limits of a container", runUpdate},
		{"events", "[--stats] [--interval TIME] ID", "show statistics and shortages of memory as JSON lines", runEvents},
		{"spec", "[-b DIR] [--rootless]", "write a config.json to begin with", runSpec},
		{"features", "", "show what this runtime supports as JSON", runFeatures},
		{"checkpoint", "[flags] ID", "write a container's processes to files, by CRIU", runCheckpoint},
		{"restore", "[flags] ID", "make a container of such files, which goes on", runRestore},
	}
}

func main() {
	if name := single.Settings(); name != "" {
		os.Unsetenv(name) // hooks inherit the environment
	}
	thread.Slack = single.Slack()
	os.Exit(run(os.Args[1:]))
}

// exitCode ends the program with the code of a container's process.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(args []string) int {
	g := &settings{}
	flags := newFlags("tarerun")
	flags.StringVar(&g.root, "root", home(), "")
	flags.StringVar(&g.log, "log", "", "")
	flags.StringVar(&g.logFormat, "log-format", "text", "")
	flags.BoolVar(&g.debug, "debug", false, "")
	flags.BoolVar(&g.systemd, "systemd-cgroup", false, "")
	manager := flags.String("cgroup-manager", "cgroupfs", "")
	rootless := flags.String("rootless", "auto", "")
	showVersion := flags.Bool("version", false, "")
	flags.BoolVar(showVersion, "v", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(os.Stdout)
		fmt.Printf("\nOPTIONS:\n   %s\n", strings.Join(optionLines(flags), "\n   "))
		return 0
	case err != nil:
	case *showVersion:
		fmt.Println("tarerun version " + version + "\ncommit: " + gitCommit + "\nspec: " + specVersion)
		return 0
	case *manager != "" && *manager != "cgroupfs" && *manager != "systemd":
		err = fault.New(fault.Invalid, "--cgroup-manager %q is not known; use cgroupfs or systemd", *manager)
	case !g.setRootless(*rootless):
		err = fault.New(fault.Invalid, "--rootless %q is not known; use true, false or auto", *rootless)
	case g.logFormat != "text" && g.logFormat != "json":
		err = fault.New(fault.Invalid, "--log-format %q is not known; use text or json", g.logFormat)
	default:
		g.systemd = g.systemd || *manager == "systemd"
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

// setRootless reads --rootless; auto is yes for who is not root, or in a user
// namespace alone.
func (g *settings) setRootless(word string) bool {
	if word == "auto" {
		maps, _ := procfs.Read("/proc/self/uid_map")
		g.rootless = os.Geteuid() != 0 || strings.Join(strings.Fields(string(maps)), " ") != "0 0 4294967295"
		return true
	}
	on, err := strconv.ParseBool(word)
	g.rootless = on
	return err == nil
}

// home is where the state lies unless --root says so: below the user's own
// directory for an ordinary user.
func home() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if user := os.Getenv("USER"); dir == "" || os.Geteuid() == 0 && (user == "" || user == "root") {
		return defaultRoot
	}
	return filepath.Join(dir, "tarerun")
}

func dispatch(g *settings, args []string) error {
	if len(args) == 0 {
		help(os.Stderr)
		return exitCode(1)
	}
	for _, c := range commands {
		if c.name == args[0] {
			g.trace("%s %q", c.name, args[1:])
			ocirun.KeepFilters(g.root)
			err := c.run(g, args[1:])
			if errors.Is(err, flag.ErrHelp) { // which Usage has answered
				return nil
			}
			return err
		}
	}
	if args[0] == "help" {
		if len(args) > 1 && args[1] != "help" {
			return dispatch(g, []string{args[1], "--help"})
		}
		help(os.Stdout)
		return nil
	}
	return fault.New(fault.Invalid, "No help topic for '%s': tarerun has no such command; see tarerun --help", args[0])
}

func help(w io.Writer) {
	fmt.Fprintf(w, "NAME:\n   %s - Open Container Initiative runtime of Tare\n\n", filepath.Base(os.Args[0]))
	fmt.Fprintln(w, "USAGE:\n   tarerun [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND\n\nCOMMANDS:")
	for _, c := range commands {
		fmt.Fprintf(w, "   %-50s %s\n", c.name+" "+c.args, c.does)
	}
}

func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() { helpOn(os.Stdout, f) }
	return f
}

// helpOn shows how a command is used.
func helpOn(w io.Writer, f *flag.FlagSet) {
	for _, c := range commands {
		if c.name != f.Name() {
			continue
		}
		fmt.Fprintf(w, "NAME:\n   %s %s - %s\n\nUSAGE:\n   tarerun %s %s\n", filepath.Base(os.Args[0]), c.name, c.does, c.name, c.args)
		if options := optionLines(f); len(options) > 0 {
			fmt.Fprintf(w, "\nOPTIONS:\n   %s\n", strings.Join(options, "\n   "))
		}
	}
}

// optionLines gives a line for each flag, with what it does; two that set the
// same value are names of one.
func optionLines(f *flag.FlagSet) []string {
	var lines []string
	at := map[flag.Value]int{}
	f.VisitAll(func(o *flag.Flag) {
		text := "--" + o.Name
		if len(o.Name) == 1 {
			text = "-" + o.Name
		}
		if b, ok := o.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
			text += " value"
		}
		if reflect.TypeOf(o.Value).Comparable() {
			if i, ok := at[o.Value]; ok {
				lines[i] += ", " + text
				return
			}
			at[o.Value] = len(lines)
		}
		lines = append(lines, text)
	})
	width := 0
	for i, line := range lines {
		if short, long, two := strings.Cut(line, ", "); two && len(short) < len(long) {
			lines[i] = long + ", " + short
		}
		width = max(width, len(lines[i]))
	}
	sort.Strings(lines)
	for i, line := range lines {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "--"), ",")
		name, _, _ = strings.Cut(name, " ")
		lines[i] = fmt.Sprintf("%-*s  %s", width, line, usage(f.Name(), name))
	}
	return lines
}

// parse reads flags that may stand before and after the arguments, and gives
// the arguments.
func parse(f *flag.FlagSet, args []string) ([]string, error) {
	var out []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		rest := f.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(out, rest...), nil
		}
		if len(rest) == 0 {
			return out, nil
		}
		out, args = append(out, rest[0]), rest[1:]
	}
}

// report tells a failure on standard error and in the log, in the form that
// callers of runc parse.
func (g *settings) report(err error) {
	if g.root == defaultRoot && os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; set XDG_RUNTIME_DIR, or name a directory of your own by --root", err)
	}
	fmt.Fprintln(os.Stderr, "tarerun: "+err.Error())
	if g.log != "" {
		g.write("error", err.Error())
	}
}

// warn tells what does not stop a command, in the log if there is one.
func (g *settings) warn(text string) {
	if g.log == "" {
		fmt.Fprintln(os.Stderr, "tarerun: warning: "+text)
		return
	}
	g.write("warning", text)
}

// trace tells what happens, if --debug wants it.
func (g *settings) trace(format string, args ...any) {
	if g.debug {
		g.write("debug", fmt.Sprintf(format, args...))
	}
}

// traceSteps tells the steps of a container's init, if --debug wants them.
func (g *settings) traceSteps(c *ocirun.Container) {
	if g.debug {
		for line := range strings.Lines(c.Program()) {
			g.trace("init: %s", strings.TrimSuffix(line, "\n"))
		}
	}
}

// write adds a line to the log, or to standard error without one.
func (g *settings) write(level, text string) {
	line := fmt.Appendf(nil, "time=%q level=%s msg=%q\n", time.Now().Format(time.RFC3339), level, text)
	if g.logFormat == "json" {
		line, _ = json.Marshal(map[string]string{"level": level, "msg": text, "time": time.Now().Format(time.RFC3339)})
		line = append(line, '\n')
	}
	if g.log == "" {
		_, _ = os.Stderr.Write(line)
		return
	}
	f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.Write(line)
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tarerun: "+err.Error())
	}
}

// onlyID reads the flags of a command that takes one container.
func onlyID(f *flag.FlagSet, args []string) (string, error) {
	ids, err := parse(f, args)
	if err != nil {
		return "", err
	}
	if len(ids) != 1 {
		return "", fault.New(fault.Invalid, "tarerun %s takes one container ID", f.Name())
	}
	return ids[0], nil
}

// onlyContainer reads the flags of a command that takes one existing container.
func onlyContainer(g *settings, f *flag.FlagSet, args []string) (*ocirun.Container, error) {
	id, err := onlyID(f, args)
	if err != nil {
		return nil, err
	}
	return ocirun.Load(g.root, id)
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
