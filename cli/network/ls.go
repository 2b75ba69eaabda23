// Package network holds the commands about networks, one operation per file.
package network

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Ls is the command network ls.
func Ls() *command.Command {
	f := command.NewFlags()
	o := &ls{filter: option.NewFilter(f)}
	f.StringVar(&o.format, "format", "", option.FormatTable)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate the output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only display network IDs")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Example: "tare network ls --filter driver=bridge", Run: o.run}
}

type ls struct {
	noTrunc, quiet bool
	format         string
	filter         *option.Filter
}

func (o *ls) run(ctx context.Context, s *command.Session, _ []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	text := o.format
	if text == "" && !o.quiet {
		text = s.Config().NetworksFormat
	}
	networks, err := cl.NetworkList(ctx, o.filter.Filters)
	if err != nil {
		return err
	}
	slices.SortFunc(networks, func(a, b client.NetworkSummary) int { return cmp.Compare(a.Name, b.Name) })
	rows := make([]any, len(networks))
	for i := range networks {
		rows[i] = newRow(&networks[i], !o.noTrunc)
	}
	t := format.Table{
		Columns: map[string]string{"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT"},
		Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
		Quiet:   "{{.ID}}",
		Raw:     "network_id=ID name=Name driver=Driver scope=Scope",
	}
	return t.Write(s.Out, text, o.quiet, rows)
}

// row is a network as a template sees it. The fields are those of docker network
// ls --format json.
type row struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
}

// Label returns the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

func newRow(n *client.NetworkSummary, short bool) row {
	r := row{ID: n.Id, Name: n.Name, Driver: n.Driver, Scope: n.Scope, IPv4: strconv.FormatBool(n.EnableIPv4), IPv6: strconv.FormatBool(n.EnableIPv6),
		Internal: strconv.FormatBool(n.Internal), Labels: format.Labels(n.Labels), CreatedAt: n.Created, labels: n.Labels}
	if t, err := time.Parse(time.RFC3339Nano, n.Created); err == nil {
		r.CreatedAt = t.String()
	}
	if short {
		r.ID = format.ShortID(n.Id)
	}
	return r
}
