// Command tare is the client of the engine.
package main

import (
	"context"
	"os"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/internal/single" // a command asks, waits and prints
	"github.com/tarehq/tare/internal/thread"
)

// Set by the linker: -X main.version=… and so on.
var (
	version   = "dev"
	gitCommit = "unknown"
)

func main() {
	if name := single.Settings(); name != "" {
		os.Unsetenv(name) // plugins inherit the environment
	}
	thread.Slack = single.Slack()
	s := &command.Session{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Program: os.Args[0], Version: version, Commit: gitCommit}
	os.Exit(cli.Main(context.Background(), s, os.Args[1:]))
}
