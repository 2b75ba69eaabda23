// Command tare-buildx is the client of builds: tare starts it for the command
// build where Docker's buildx is not installed, and calls it as it calls that. It
// links BuildKit's client, so that tare itself need not: it lends the daemon the
// user's directory, of which only what changed is sent, and secrets, keys and
// credentials, shows what happens, and writes what was built.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	_ "github.com/tarehq/tare/internal/single" // most builds end before they would gain by more
	"github.com/tarehq/tare/internal/thread"
)

var version = "0.1.0-dev"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 1 && args[0] == "docker-cli-plugin-metadata" {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"SchemaVersion": "0.1.0", "Vendor": "Tare", "Version": version, "ShortDescription": "Build with tare"})
		return 0
	}
	s := &command.Session{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Program: "tare", Version: version}
	global := pflag.NewFlagSet("tare-buildx", pflag.ContinueOnError)
	global.SetInterspersed(false)
	global.BoolVarP(&s.Options.Debug, "debug", "D", false, "Enable debug mode")
	global.StringVarP(&s.Options.LogLevel, "log-level", "l", "info", "Set the logging level")
	global.StringVar(&s.Options.CA, "tlscacert", "", "Trust certs signed only by this CA")
	global.StringVar(&s.Options.Cert, "tlscert", "", "Path to TLS certificate file")
	global.StringVar(&s.Options.Key, "tlskey", "", "Path to TLS key file")
	global.BoolVar(&s.Options.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	verify := global.Bool("tlsverify", false, "Use TLS and verify the remote")
	global.Usage = func() {
		fmt.Print("Usage:  tare-buildx [OPTIONS] build [OPTIONS] PATH | URL | -\n\nStart a build. Only this command of buildx is here: tare build calls it.\nSee tare-buildx build --help for its own options.\n\nOptions:\n" + global.FlagUsages())
	}
	switch err := global.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return failed(err)
	}
	if !s.Options.Debug { // libraries' warnings are about their own words and files
		logrus.SetLevel(logrus.ErrorLevel)
		log.SetOutput(io.Discard) // HTTP/2's, of connections that end
	}
	if global.Changed("tlsverify") {
		s.Options.TLSVerify = verify
	}
	args = global.Args()
	if len(args) > 0 && args[0] == "buildx" {
		args = args[1:]
	}
	if len(args) == 0 || args[0] != "build" && args[0] != "b" {
		return failed(fmt.Errorf("tare-buildx only builds: for other commands of buildx put the program docker-buildx into %s/cli-plugins", s.ConfigDir()))
	}
	return buildOnce(s, args[1:])
}

// buildOnce is the command build; it returns the exit code.
func buildOnce(s *command.Session, args []string) int {
	b, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return failed(err)
	}
	long := time.AfterFunc(100*time.Millisecond, thread.Processors) // many files, or output that is packed
	defer long.Stop()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	code := make(chan int, 1)
	go func() {
		sig := <-interrupts
		code <- 128 + int(sig.(syscall.Signal))
		cancel(fmt.Errorf("%s", sig))
		<-interrupts // who asks twice does not wait
		os.Exit(1)
	}()
	err = b.run(ctx, s)
	select {
	case n := <-code:
		fmt.Fprintln(os.Stderr, "ERROR: failed to build:", context.Cause(ctx))
		return n
	default:
	}
	if err == nil {
		return 0
	}
	for _, source := range errdefs.Sources(err) { // the lines of the Dockerfile
		_ = source.Print(os.Stderr)
	}
	return failed(fmt.Errorf("failed to build: %w", err))
}

func failed(err error) int {
	var exit *command.Exit
	if errors.As(err, &exit) {
		return exit.Code
	}
	fmt.Fprintln(os.Stderr, "ERROR:", err)
	return 1
}
