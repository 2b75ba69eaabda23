package contexts

import (
	"context"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
)

// Update is the command context update.
func Update() *command.Command {
	f := command.NewFlags()
	var description string
	var docker map[string]string
	f.StringVar(&description, "description", "", "Description of the context")
	f.StringToStringVar(&docker, "docker", nil, "Set the docker endpoint")
	return &command.Command{
		Usage: "[OPTIONS] CONTEXT", MinArgs: 1, MaxArgs: 1, Flags: f,
		Long:    "Update a context" + endpointKeys,
		Example: `tare context update far --docker "host=ssh://me@far"`,
		Run: func(_ context.Context, s *command.Session, args []string) error {
			store := config.NewContexts(s.ConfigDir())
			if err := config.CheckName(args[0]); err != nil {
				return err
			}
			c, err := store.Get(args[0])
			if err != nil {
				return err
			}
			if f.Changed("description") {
				c.Describe(description)
			}
			var material config.Material
			if docker != nil {
				if material, err = setDocker(s, c, docker); err != nil {
					return err
				}
			}
			if err := store.Put(c, material); err != nil {
				return err
			}
			return told(s, args[0], "Successfully updated context %q")
		},
	}
}
