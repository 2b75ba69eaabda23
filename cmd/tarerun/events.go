package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun"
)

// event is one line of the events command.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// oomLook is how often a shortage of memory is looked for.
const oomLook = 100 * time.Millisecond

func runEvents(g *settings, args []string) error {
	f := newFlags("events")
	once := f.Bool("stats", false, "")
	interval := f.Duration("interval", 5*time.Second, "")
	c, err := onlyContainer(g, f, args)
	if err != nil {
		return err
	}
	id := c.State().ID
	switch {
	case *interval <= 0:
		return fault.New(fault.Invalid, "duration interval must be greater than 0")
	case c.State().Status == specs.StateStopped:
		return fault.New(fault.Conflict, "container with id %s is not running", id)
	case *once:
		return showStats(c, id)
	}
	ooms := c.OOMs()
	next := time.Now().Add(*interval)
	for c.State().Status != specs.StateStopped {
		if more(&ooms, c.OOMs()) {
			if err := printLine(event{Type: "oom", ID: id}); err != nil {
				return err
			}
		}
		if !time.Now().Before(next) {
			if err := showStats(c, id); errors.Is(err, fs.ErrNotExist) {
				return nil // it ended meanwhile
			} else if err != nil {
				return err
			}
			next = next.Add(*interval)
		}
		time.Sleep(min(oomLook, max(time.Until(next), 0)))
	}
	return nil
}

// more tells whether a count has grown. It falls too, when a shortage is over.
func more(last *uint64, n uint64) bool {
	before := *last
	*last = n
	return n > before
}

func showStats(c *ocirun.Container, id string) error {
	s, err := c.Stats()
	if err != nil {
		return err
	}
	return printLine(event{"stats", id, s})
}

func printLine(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "write JSON: %w", err)
	}
	_, err = os.Stdout.Write(append(b, '\n'))
	return err
}
