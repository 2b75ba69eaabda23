package contexts

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/cli/option"
)

// Inspect is the command context inspect.
func Inspect() *command.Command {
	f := command.NewFlags()
	var text string
	f.StringVarP(&text, "format", "f", "", option.FormatInspect)
	return &command.Command{
		Usage: "[OPTIONS] [CONTEXT...]", MaxArgs: -1, Flags: f,
		Run: func(_ context.Context, s *command.Session, args []string) error {
			if len(args) == 0 {
				args = []string{s.ContextName()}
			}
			return command.Inspect(s, text, args, func(name string) ([]byte, error) { return inspect(s, name) })
		},
	}
}

// inspected is what is shown of a context.
type inspected struct {
	config.Context
	TLSMaterial map[string][]string // the names of the files by endpoint
	Storage     struct{ MetadataPath, TLSPath string }
}

func inspect(s *command.Session, name string) ([]byte, error) {
	c, material, err := copied(s, name)
	if err != nil {
		return nil, err
	}
	shown := inspected{Context: *c, TLSMaterial: map[string][]string{}}
	for endpoint, files := range material {
		shown.TLSMaterial[endpoint] = slices.Sorted(maps.Keys(files))
	}
	store := config.NewContexts(s.ConfigDir())
	shown.Storage.MetadataPath, shown.Storage.TLSPath = store.MetaDir(name), store.TLSDir(name)
	if name == config.DefaultContext {
		const memory = "<IN MEMORY>"
		shown.Storage.MetadataPath, shown.Storage.TLSPath = memory, memory
	}
	return json.Marshal(shown)
}
