package main

import (
	"context"
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
	return follow(c, id, *interval)
}

// follow tells of shortages when they come and of statistics from time to time,
// until the container ends.
func follow(c *ocirun.Container, id string, interval time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ooms, err := c.NotifyOOM(ctx)
	if err != nil {
		ooms = nil // a container without a memory group is never told of
	}
	ended := make(chan error, 1)
	go func() { ended <- c.AwaitExit(ctx) }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case _, open := <-ooms:
			if !open {
				ooms = nil
			} else if err := printLine(event{Type: "oom", ID: id}); err != nil {
				return err
			}
		case <-tick.C:
			if err := showStats(c, id); errors.Is(err, fs.ErrNotExist) {
				return nil // it ended meanwhile
			} else if err != nil {
				return err
			}
		}
	}
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
