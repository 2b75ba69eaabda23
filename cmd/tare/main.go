// Command tare is the client of the engine.
package main

import (
	"context"
	"os"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
)

// version is set by the linker.
var version = "dev"

func main() {
	s := &command.Session{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version}
	os.Exit(cli.Main(context.Background(), s, os.Args[1:]))
}
