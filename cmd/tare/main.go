// Command tare is the client of the engine.
package main

import (
	"context"
	"os"
	"runtime"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
)

// Set by the linker: -X main.version=… and so on.
var (
	version   = "dev"
	gitCommit = "unknown"
)

func main() {
	// A command asks, waits and prints. The threads that the Go runtime starts to use
	// other processors cost it a tenth of its life.
	runtime.GOMAXPROCS(1)
	s := &command.Session{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Program: os.Args[0], Version: version, Commit: gitCommit}
	os.Exit(cli.Main(context.Background(), s, os.Args[1:]))
}
