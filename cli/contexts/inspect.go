package contexts

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/cli/format"
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
			inspector, err := format.NewInspector(text)
			if err != nil {
				return &command.Exit{Code: 64, Err: err}
			}
			if len(args) == 0 {
				args = []string{s.ContextName()}
			}
			var found [][]byte
			failed := command.Each(args, func(name string) error {
				raw, err := inspect(s, name)
				if err == nil {
					found = append(found, raw)
				}
				return err
			})
			out, err := inspector.Render(found)
			if _, werr := io.WriteString(s.Out, out); err == nil {
				err = werr
			}
			return errors.Join(err, failed)
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
