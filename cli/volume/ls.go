// Package volume holds the commands about volumes, one operation per file.
package volume

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Ls is the command volume ls.
func Ls() *command.Command {
	f := command.NewFlags()
	o := &ls{filter: option.NewFilter(f)}
	f.BoolVar(&o.cluster, "cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
	f.StringVar(&o.format, "format", "", option.FormatTable)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only display volume names")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Example: "tare volume ls --filter dangling=true", Run: o.run}
}

type ls struct {
	cluster, quiet bool
	format         string
	filter         *option.Filter
}

func (o *ls) run(ctx context.Context, s *command.Session, _ []string) error {
	if o.cluster {
		return fault.New(fault.NotImplemented, "--cluster needs a swarm, which tared cannot be part of")
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	text := o.format
	if text == "" && !o.quiet {
		text = s.Config().VolumesFormat
	}
	rows, warnings, err := o.rows(ctx, cl, text)
	if err != nil {
		return err
	}
	t := format.Table{
		Columns: map[string]string{"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
			"Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS"},
		Default: "{{.Driver}}\t{{.Name}}",
		Quiet:   "{{.Name}}",
		Raw:     "name=Name driver=Driver",
	}
	if err := t.Write(s.Out, text, o.quiet, rows); err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(s.Err, "WARNING: %s\n", w)
	}
	return nil
}

// rows are the volumes by their names, with no more than a plain list shows where
// no template asks for it.
func (o *ls) rows(ctx context.Context, cl *client.Client, text string) (rows []any, warnings []string, err error) {
	if text == "" || text == "table" || o.quiet && strings.HasPrefix(text, "table ") {
		lines, warnings, err := cl.VolumeLines(ctx, o.filter.Filters)
		slices.SortFunc(lines, func(a, b client.VolumeLine) int { return cmp.Compare(a.Name, b.Name) })
		rows = make([]any, len(lines))
		for i := range lines {
			rows[i] = lines[i]
		}
		return rows, warnings, err
	}
	volumes, warnings, err := cl.VolumeList(ctx, o.filter.Filters)
	slices.SortFunc(volumes, func(a, b client.Volume) int { return cmp.Compare(a.Name, b.Name) })
	rows = make([]any, len(volumes))
	for i := range volumes {
		rows[i] = NewRow(&volumes[i])
	}
	return rows, warnings, err
}

// Row is a volume as a template sees it. The fields are those of docker volume ls
// --format json.
type Row struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string

	labels map[string]string
}

// Label returns the value of one label.
func (r Row) Label(name string) string { return r.labels[name] }

// NewRow renders a volume.
func NewRow(v *client.Volume) Row {
	const no = "N/A"
	r := Row{Name: v.Name, Driver: v.Driver, Mountpoint: v.Mountpoint, Scope: v.Scope, Links: no, Size: no,
		Availability: no, Group: no, Status: no, Labels: format.Labels(v.Labels), labels: v.Labels}
	if u := v.UsageData; u != nil {
		if u.RefCount >= 0 {
			r.Links = strconv.FormatInt(u.RefCount, 10)
		}
		if u.Size >= 0 {
			r.Size = format.Size(float64(u.Size))
		}
	}
	return r
}
