package image

import (
	"context"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// History is the command history.
func History() *command.Command {
	f := command.NewFlags()
	o := &history{}
	f.StringVar(&o.format, "format", "", option.FormatTable)
	f.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	f.StringVar(&o.platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return &command.Command{Usage: "[OPTIONS] IMAGE", MinArgs: 1, MaxArgs: 1, Flags: f, Run: o.run}
}

type history struct {
	human, noTrunc, quiet bool
	format, platform      string
}

// step is one step as a template sees it.
type step struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func (o *history) run(ctx context.Context, s *command.Session, args []string) error {
	if err := checkPlatform(o.platform); err != nil {
		return err
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	items, err := cl.ImageHistory(ctx, args[0], o.platform)
	if err != nil {
		return err
	}
	rows := make([]any, len(items))
	for i := range items {
		rows[i] = o.step(&items[i])
	}
	t := format.Table{
		Columns: map[string]string{"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
			"Size": "SIZE", "Comment": "COMMENT"},
		Default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
		Quiet:   "{{.ID}}",
	}
	if !o.human {
		t.Default = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return t.Write(s.Out, o.format, o.quiet, rows)
}

func (o *history) step(h *client.ImageHistoryItem) step {
	r := step{ID: h.Id, Comment: h.Comment, CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " ")}
	if h.Created > 0 {
		r.CreatedAt, r.CreatedSince = time.Unix(h.Created, 0).Format(time.RFC3339), format.Ago(h.Created)
	} else {
		r.CreatedSince = "N/A"
	}
	if !o.human {
		r.CreatedSince = r.CreatedAt
	}
	if !o.noTrunc {
		r.ID, r.CreatedBy = format.ShortID(h.Id), format.Ellipsis(r.CreatedBy, 45)
	}
	if o.human {
		r.Size = format.Size(float64(h.Size))
	} else {
		r.Size = count(h.Size)
	}
	return r
}
