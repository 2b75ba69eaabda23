package system

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Events is the command events.
func Events() *command.Command {
	f := command.NewFlags()
	filter := option.NewFilter(f)
	var text string
	var o client.EventsOptions
	f.StringVar(&text, "format", "", option.FormatPlain)
	f.StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	f.StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f, Example: "tare events --since 10m --filter event=die --format json",
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			var err error
			if o.Since, err = option.Timestamp(o.Since, "since"); err != nil {
				return err
			}
			if o.Until, err = option.Timestamp(o.Until, "until"); err != nil {
				return err
			}
			o.Filters = filter.Filters
			show, err := eventPrinter(s.Out, text)
			if err != nil {
				return err
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			return cl.Events(ctx, o, show)
		},
	}
}

// namedEvent has the older names of an event's fields too, for templates made for them.
type namedEvent struct {
	client.Event
	Status string `json:"-"`
	ID     string `json:"-"`
	From   string `json:"-"`
}

func eventPrinter(out io.Writer, text string) (func(client.Event, json.RawMessage) error, error) {
	switch text {
	case "":
		return func(e client.Event, _ json.RawMessage) error {
			_, err := io.WriteString(out, eventLine(e))
			return err
		}, nil
	case "json":
		return func(_ client.Event, raw json.RawMessage) error {
			_, err := fmt.Fprintf(out, "%s\n", raw)
			return err
		}, nil
	}
	t, err := format.Parse(text)
	if err != nil {
		return nil, command.BadTemplate(fmt.Errorf("Error parsing format: %w", err))
	}
	if err := t.Execute(io.Discard, namedEvent{}); err != nil {
		return nil, command.BadTemplate(fmt.Errorf("Error parsing format: %w", err))
	}
	return func(e client.Event, raw json.RawMessage) error {
		v := namedEvent{e, e.Action, e.Actor.ID, e.Actor.Attributes["image"]}
		var b strings.Builder
		if err := t.Execute(&b, v); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		_, err := io.WriteString(out, b.String()+"\n")
		return err
	}, nil
}

// eventLine renders an event for people: its time, kind, actor and attributes.
func eventLine(e client.Event) string {
	var b strings.Builder
	if t := time.Unix(0, e.TimeNano); e.TimeNano != 0 {
		b.WriteString(t.Format("2006-01-02T15:04:05.000000000Z07:00") + " ")
	} else if e.Time != 0 {
		b.WriteString(time.Unix(e.Time, 0).Format("2006-01-02T15:04:05.000000000Z07:00") + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		parts := make([]string, 0, len(e.Actor.Attributes))
		for key, value := range e.Actor.Attributes {
			parts = append(parts, key+"="+value)
		}
		slices.Sort(parts)
		b.WriteString(" (" + strings.Join(parts, ", ") + ")")
	}
	b.WriteByte('\n')
	return b.String()
}
