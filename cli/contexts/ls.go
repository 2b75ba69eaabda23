package contexts

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
)

// defaultDescription is what the context that is not stored is listed as.
const defaultDescription = "Current DOCKER_HOST based configuration"

// longestError is how much of an error a list shows, in characters.
const longestError = 45

// Ls is the command context ls.
func Ls() *command.Command {
	f := command.NewFlags()
	var text string
	var quiet bool
	f.StringVar(&text, "format", "", option.FormatTable)
	f.BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f,
		Run: func(_ context.Context, s *command.Session, _ []string) error { return ls(s, text, quiet) },
	}
}

// row is a context as a template sees it.
type row struct {
	Current                                  bool
	Description, DockerEndpoint, Error, Name string
}

func ls(s *command.Session, text string, quiet bool) error {
	if err := s.CheckHost(); err != nil {
		return err
	}
	if quiet {
		text = ""
	}
	rows, err := rowsOf(s)
	if err != nil {
		return err
	}
	list := make([]any, len(rows))
	for i := range rows {
		list[i] = rows[i]
	}
	t := format.Table{
		Columns: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"},
		Default: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
		Quiet:   "{{.Name}}",
	}
	if err := t.Write(s.Out, text, quiet, list); err != nil {
		return err
	}
	if variable, _ := s.HostVariable(); variable != "" {
		fmt.Fprintf(s.Err, "Warning: %s environment variable overrides the active context. To use a context, "+
			"either set the global --context flag, or unset %s environment variable.\n", variable, variable)
	}
	return nil
}

// rowsOf lists the stored contexts, the default one, and the one in use even if
// it is not there.
func rowsOf(s *command.Session) ([]row, error) {
	stored, err := config.NewContexts(s.ConfigDir()).List()
	if err != nil {
		return nil, err
	}
	rows := []row{{Name: config.DefaultContext, Description: defaultDescription}}
	if e, err := s.DefaultEndpoint(); err != nil {
		rows[0].Error = format.Ellipsis(err.Error(), longestError)
	} else {
		rows[0].DockerEndpoint = e.Host
	}
	current := s.ContextName()
	found := current == config.DefaultContext
	for _, c := range stored {
		r := row{Name: c.Name, Description: c.Description()}
		e, err := c.Docker()
		if r.DockerEndpoint = e.Host; err != nil {
			r.Error = format.Ellipsis(err.Error(), longestError)
		}
		found = found || c.Name == current
		rows = append(rows, r)
	}
	if !found {
		_, err := config.NewContexts(s.ConfigDir()).Get(current)
		rows = append(rows, row{Name: current, Error: format.Ellipsis(fmt.Sprint(err), longestError)})
	}
	for i := range rows {
		rows[i].Current = rows[i].Name == current
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.Name, b.Name) })
	return rows, nil
}
