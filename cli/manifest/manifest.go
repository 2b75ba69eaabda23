// Package manifest holds the commands about manifest lists. They only check
// their command lines: the program tare-manifest, which lies beside this one,
// talks to registries.
package manifest

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
)

// program is what carries the commands out.
const program = "tare-manifest"

// Annotate is the command manifest annotate.
func Annotate() *command.Command {
	f := command.NewFlags()
	f.String("arch", "", "Set architecture")
	f.String("os", "", "Set operating system")
	f.StringSlice("os-features", nil, "Set operating system feature")
	f.String("os-version", "", "Set operating system version")
	f.String("variant", "", "Set architecture variant")
	return through("annotate", "[OPTIONS] MANIFEST_LIST MANIFEST", 2, 2, f)
}

// Create is the command manifest create.
func Create() *command.Command {
	f := command.NewFlags()
	f.BoolP("amend", "a", false, "Amend an existing manifest list")
	f.Bool("insecure", false, "Allow communication with an insecure registry")
	return through("create", "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]", 2, -1, f)
}

// Inspect is the command manifest inspect.
func Inspect() *command.Command {
	f := command.NewFlags()
	f.Bool("insecure", false, "Allow communication with an insecure registry")
	f.BoolP("verbose", "v", false, "Output additional info including layers and platform")
	return through("inspect", "[OPTIONS] [MANIFEST_LIST] MANIFEST", 1, 2, f)
}

// Push is the command manifest push.
func Push() *command.Command {
	f := command.NewFlags()
	f.Bool("insecure", false, "Allow push to an insecure registry")
	f.BoolP("purge", "p", false, "Remove the local manifest list after push")
	return through("push", "[OPTIONS] MANIFEST_LIST", 1, 1, f)
}

// Rm is the command manifest rm.
func Rm() *command.Command {
	return through("rm", "MANIFEST_LIST [MANIFEST_LIST...]", 1, -1, command.NewFlags())
}

// through makes a command that the program carries out.
func through(verb, usage string, least, most int, f *pflag.FlagSet) *command.Command {
	return &command.Command{Usage: usage, MinArgs: least, MaxArgs: most, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return command.Through(ctx, s, program, []string{"--config=" + s.ConfigDir(), verb}, f, args)
		}}
}
