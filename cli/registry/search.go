package registry

import (
	"context"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Search is the command search.
func Search() *command.Command {
	f := command.NewFlags()
	o := &search{filter: option.NewFilter(f)}
	f.StringVar(&o.format, "format", "", "Pretty-print search using a Go template")
	f.IntVar(&o.limit, "limit", 0, "Max number of search results")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	return &command.Command{Usage: "[OPTIONS] TERM", MinArgs: 1, MaxArgs: 1, Flags: f, Run: o.run}
}

type search struct {
	format  string
	limit   int
	noTrunc bool
	filter  *option.Filter
}

func (o *search) run(ctx context.Context, s *command.Session, args []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	found, err := cl.ImageSearch(ctx, args[0], o.limit, o.filter.Filters, s.Credentials(domainOf(args[0])))
	if err != nil {
		return err
	}
	rows := make([]any, len(found))
	for i := range found {
		rows[i] = o.row(&found[i])
	}
	t := format.Table{
		Columns: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"},
		Default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
	}
	return t.Write(s.Out, o.format, false, rows)
}

// domainOf is the registry that a search's term names, as in reg.example/term.
func domainOf(term string) string {
	domain, _, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(domain, ".:") && domain != "localhost" {
		return "docker.io"
	}
	return domain
}

// row is one repository as a template sees it. IsOfficial is a mark in tables
// and a word in JSON.
type row struct{ Description, IsOfficial, Name, StarCount string }

func (o *search) row(r *client.SearchResult) row {
	text := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.Description)
	if !o.noTrunc {
		text = format.Ellipsis(text, 45)
	}
	official := ""
	switch {
	case o.format == "json":
		official = strconv.FormatBool(r.IsOfficial)
	case r.IsOfficial:
		official = "[OK]"
	}
	return row{Description: text, Name: r.Name, StarCount: strconv.Itoa(r.StarCount), IsOfficial: official}
}
