package container

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Ls is the command container ls, or ps.
func Ls() *command.Command {
	f := command.NewFlags()
	o := &ls{filter: option.NewFilter(f)}
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&o.format, "format", "", option.FormatTable)
	f.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	f.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Example: `tare ps -a --filter status=exited --format "{{.Names}} {{.Status}}"`, Run: o.run}
}

type ls struct {
	all, latest, noTrunc, quiet, size bool
	last                              int
	format                            string
	filter                            *option.Filter
}

func (o *ls) run(ctx context.Context, s *command.Session, _ []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	text := o.format
	if text == "" && !o.quiet {
		text = s.Config().PsFormat
	}
	if text != "" && o.quiet {
		// A template that is wrong is told of even then.
		if _, err := usesSize(text); err != nil {
			return err
		}
		fmt.Fprintln(s.Err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
		if text != "raw" {
			text = ""
		}
	}
	list := client.ListOptions{All: o.all, Limit: o.last, Filters: o.filter.Filters}
	if o.latest && o.last == -1 {
		list.Limit = 1
	}
	if o.format != "" && o.format != "json" {
		if list.Size, err = usesSize(o.format); err != nil {
			return err
		}
	}
	// The sizes cost the daemon a walk: only when they are shown.
	list.Size = o.size || list.Size || strings.Contains(text, ".Size")
	if (text == "" || text == "table") && !list.Size {
		var rows []any
		err := cl.ContainerLines(ctx, list, func(c *client.ContainerLine) { rows = append(rows, newLine(c, !o.noTrunc)) })
		if err != nil {
			return err
		}
		return table(false).Write(s.Out, text, o.quiet, rows)
	}
	containers, err := cl.ContainerList(ctx, list)
	if err != nil {
		return err
	}
	rows := make([]any, len(containers))
	for i := range containers {
		rows[i] = NewRow(&containers[i], !o.noTrunc)
	}
	return table(o.size).Write(s.Out, text, o.quiet, rows)
}

// usesSize tells whether a template shows the size, by executing it for a row without
// anything else, and thereby whether it can be executed at all.
func usesSize(text string) (bool, error) {
	const size = "the size"
	tmpl, err := format.Parse(text)
	if err != nil {
		return false, fmt.Errorf("failed to parse template: %w", err)
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, Row{Size: size}); err != nil {
		return false, fmt.Errorf("failed to execute template: %w", err)
	}
	return strings.Contains(b.String(), size), nil
}

func table(size bool) format.Table {
	t := format.Table{
		Columns: map[string]string{"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND",
			"CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS",
			"Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS",
			"Platform": "PLATFORM"},
		Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
		Quiet:   "{{.ID}}",
		Raw:     "container_id=ID image=Image command=Command created_at=CreatedAt state=State status=Status names=Names labels=Labels ports=Ports",
	}
	if size {
		t.Default += "\t{{.Size}}"
		t.Raw += " size=Size"
	}
	return t
}

// Row is a listed container as a template sees it. The fields are those of
// docker ps --format json.
type Row struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform                                                                     *client.Platform
	Ports, RunningFor, Size, State, Status                                       string

	labels map[string]string
}

// Label returns the value of one label.
func (r Row) Label(name string) string { return r.labels[name] }

// newLine renders what a plain table shows of a container; short cuts what is
// long.
func newLine(c *client.ContainerLine, short bool) Row {
	r := Row{ID: c.Id, Image: c.Image, Command: c.Command, RunningFor: format.Ago(c.Created), Ports: displayPorts(c.Ports), Status: c.Status}
	if r.Image == "" {
		r.Image = "<no image>"
	} else if short {
		r.Image = shortImage(c)
	}
	if short {
		r.ID = format.ShortID(c.Id)
		r.Command = format.Ellipsis(c.Command, 20)
	}
	r.Command = strconv.Quote(r.Command)
	var names []string
	for _, name := range c.Names {
		name = strings.TrimPrefix(name, "/")
		// A link's name has the linking container's in front.
		if !short || !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	r.Names = strings.Join(names, ",")
	return r
}

// NewRow renders a container; short cuts what is long.
func NewRow(c *client.ContainerSummary, short bool) Row {
	r := newLine(&c.ContainerLine, short)
	r.CreatedAt, r.State = time.Unix(c.Created, 0).String(), c.State
	r.Labels, r.labels = format.Labels(c.Labels), c.Labels
	if d := c.ImageManifestDescriptor; d != nil {
		r.Platform = d.Platform
	}
	r.Size = format.Size(float64(c.SizeRw))
	if c.SizeRootFs > 0 {
		r.Size += " (virtual " + format.Size(float64(c.SizeRootFs)) + ")"
	}
	volumes := 0
	var mounts []string
	for _, m := range c.Mounts {
		if m.Driver == "local" {
			volumes++
		}
		name := cmp.Or(m.Name, m.Source)
		if short {
			name = format.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(volumes)
	if c.NetworkSettings != nil {
		var networks []string
		for name := range c.NetworkSettings.Networks {
			networks = append(networks, name)
		}
		slices.Sort(networks)
		r.Networks = strings.Join(networks, ",")
	}
	return r
}

// shortImage shortens an image that is named by its ID or by a digest.
func shortImage(c *client.ContainerLine) string {
	if id := format.ShortID(c.ImageID); id != "" && id == format.ShortID(c.Image) {
		return id
	}
	name, _, _ := strings.Cut(c.Image, "@")
	return name
}

// displayPorts renders ports: neighbours that are published under their own
// number, or not at all, are joined to ranges.
func displayPorts(ports []client.PortSummary) string {
	if len(ports) == 0 {
		return ""
	}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b client.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.IP, b.IP),
			cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	type span struct{ first, last uint16 }
	type place struct{ ip, proto string }
	open := map[place]*span{}
	var order []place
	var out, moved []string
	show := func(p place, s span) string {
		text := strconv.Itoa(int(s.first))
		if s.last > s.first {
			text += "-" + strconv.Itoa(int(s.last))
		}
		if p.ip != "" {
			text = net.JoinHostPort(p.ip, text) + "->" + text
		}
		return text + "/" + p.proto
	}
	for _, port := range ports {
		if port.IP != "" && port.PublicPort != port.PrivatePort {
			moved = append(moved, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(port.IP, strconv.Itoa(int(port.PublicPort))), port.PrivatePort, port.Type))
			continue
		}
		at := place{port.IP, port.Type}
		switch s := open[at]; {
		case s == nil:
			open[at] = &span{port.PrivatePort, port.PrivatePort}
			order = append(order, at)
		case port.PrivatePort == s.last+1:
			s.last++
		default:
			out = append(out, show(at, *s))
			*s = span{port.PrivatePort, port.PrivatePort}
		}
	}
	for _, at := range order {
		out = append(out, show(at, *open[at]))
	}
	return strings.Join(append(out, moved...), ", ")
}
