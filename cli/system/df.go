package system

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/container"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/image"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/cli/volume"
	"github.com/tarehq/tare/client"
)

// Df is the command system df.
func Df() *command.Command {
	f := command.NewFlags()
	var text string
	var verbose bool
	f.StringVar(&text, "format", "", option.FormatTable)
	f.BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f, Long: "Show disk usage",
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			usage, err := cl.DiskUsage(ctx, verbose)
			if err != nil {
				return err
			}
			if verbose {
				return dfVerbose(s.Out, text, &usage)
			}
			return dfSummary(s.Out, text, &usage)
		},
	}
}

// dfRow is one kind of object as a template sees it.
type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func dfSummary(out io.Writer, text string, u *client.SystemUsage) error {
	rows := []any{
		summed("Images", u.ImageUsage, true),
		summed("Containers", u.ContainerUsage, true),
		summed("Local Volumes", u.VolumeUsage, true),
		summed("Build Cache", u.BuildCacheUsage, false),
	}
	if u.LogUsage != nil && text == "" { // a format is written for Docker's rows
		rows = append(rows, summed("Container Logs", u.LogUsage, true))
	}
	t := format.Table{
		Columns: map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
		Default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
		Raw:     "type=Type total=TotalCount active=Active size=Size reclaimable=Reclaimable",
	}
	return t.Write(out, text, false, rows)
}

// summed renders the sums of a kind; what the daemon knows nothing of is zero.
func summed[T any](kind string, u *client.Usage[T], share bool) dfRow {
	if u == nil {
		u = &client.Usage[T]{}
	}
	r := dfRow{Type: kind, TotalCount: decimal(u.TotalCount), Active: decimal(u.ActiveCount),
		Size: format.SizeFine(float64(u.TotalSize)), Reclaimable: format.SizeFine(float64(u.Reclaimable))}
	if share && u.TotalSize > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", int(float64(u.Reclaimable)/float64(u.TotalSize)*100))
	}
	return r
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// dfObjects is what a template of df -v sees.
type dfObjects struct {
	Images     []image.Row
	Containers []container.Row
	Volumes    []volume.Row
	BuildCache []cacheRow
	Logs       []logRow
}

// logRow is the log of one container.
type logRow struct{ ID, Name, Driver, Size string }

type cacheRow struct {
	CacheType, CreatedAt, CreatedSince, Description, ID, InUse, LastUsedAt, LastUsedSince, Parent, Shared, Size, UsageCount string
}

func dfVerbose(out io.Writer, text string, u *client.SystemUsage) error {
	table := text == "" || text == "table"
	o := objectsOf(u, table)
	if !table {
		line, err := format.Execute(text, o)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, line) // as Docker's client, which ends no line here
		return err
	}
	var b strings.Builder
	b.WriteString("Images space usage:\n\n")
	if err := section(&b, imageColumns, "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", o.Images); err != nil {
		return err
	}
	b.WriteString("\nContainers space usage:\n\n")
	if err := section(&b, containerColumns, "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", o.Containers); err != nil {
		return err
	}
	b.WriteString("\nLocal Volumes space usage:\n\n")
	if err := section(&b, volumeColumns, "{{.Name}}\t{{.Links}}\t{{.Size}}", o.Volumes); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nBuild cache usage: %s\n\n", summed("", u.BuildCacheUsage, false).Size)
	if err := section(&b, cacheColumns, "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}", o.BuildCache); err != nil {
		return err
	}
	if u.LogUsage != nil {
		b.WriteString("\nContainer logs space usage:\n\n")
		if err := section(&b, logColumns, "{{.Name}}\t{{.Driver}}\t{{.Size}}", o.Logs); err != nil {
			return err
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

var (
	logColumns   = map[string]string{"Name": "CONTAINER", "Driver": "LOG DRIVER", "Size": "SIZE"}
	imageColumns = map[string]string{"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
		"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS"}
	containerColumns = map[string]string{"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "LocalVolumes": "LOCAL VOLUMES",
		"Size": "SIZE", "RunningFor": "CREATED", "Status": "STATUS", "Names": "NAMES"}
	volumeColumns = map[string]string{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
	cacheColumns  = map[string]string{"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
		"LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED"}
)

func section[T any](out io.Writer, columns map[string]string, row string, list []T) error {
	rows := make([]any, len(list))
	for i := range list {
		rows[i] = list[i]
	}
	return format.Table{Columns: columns, Default: row}.Write(out, "", false, rows)
}

func objectsOf(u *client.SystemUsage, short bool) dfObjects {
	o := dfObjects{Images: []image.Row{}, Containers: []container.Row{}, Volumes: []volume.Row{}, BuildCache: []cacheRow{}, Logs: []logRow{}}
	if u.ImageUsage != nil {
		for i := range u.ImageUsage.Items {
			o.Images = append(o.Images, image.NewRow(&u.ImageUsage.Items[i], short))
		}
	}
	if u.ContainerUsage != nil {
		for i := range u.ContainerUsage.Items {
			c := &u.ContainerUsage.Items[i]
			row := container.NewRow(c, short)
			row.Size = format.Size(float64(c.SizeRw))
			o.Containers = append(o.Containers, row)
		}
	}
	if u.VolumeUsage != nil {
		for i := range u.VolumeUsage.Items {
			o.Volumes = append(o.Volumes, volume.NewRow(&u.VolumeUsage.Items[i]))
		}
	}
	if u.BuildCacheUsage != nil {
		records := slices.Clone(u.BuildCacheUsage.Items)
		slices.SortStableFunc(records, func(a, b client.CacheRecord) int { return strings.Compare(lastUse(&a), lastUse(&b)) })
		for i := range records {
			o.BuildCache = append(o.BuildCache, newCacheRow(&records[i], short))
		}
	}
	if u.LogUsage != nil {
		for _, l := range u.LogUsage.Items {
			o.Logs = append(o.Logs, logRow{l.ID, l.Name, l.Driver, format.Size(float64(l.Size))})
		}
	}
	return o
}

func lastUse(r *client.CacheRecord) string {
	if r.LastUsedAt != nil {
		return *r.LastUsedAt
	}
	return ""
}

func newCacheRow(c *client.CacheRecord, short bool) cacheRow {
	r := cacheRow{ID: c.ID, CacheType: c.Type, Description: c.Description, InUse: strconv.FormatBool(c.InUse), Shared: strconv.FormatBool(c.Shared),
		Size: format.Size(float64(c.Size)), UsageCount: strconv.Itoa(c.UsageCount), Parent: strings.Join(c.Parents, ", ")}
	if t, err := time.Parse(time.RFC3339Nano, c.CreatedAt); err == nil {
		r.CreatedAt, r.CreatedSince = t.String(), format.Ago(t.Unix())
	}
	if t, err := time.Parse(time.RFC3339Nano, lastUse(c)); err == nil {
		r.LastUsedAt, r.LastUsedSince = t.String(), format.Ago(t.Unix())
	}
	if short {
		r.ID = format.ShortID(r.ID)
		if c.InUse {
			r.ID += "*"
		}
	}
	return r
}
