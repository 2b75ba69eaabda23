package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// retry is how long after a run that failed the next one is, at most. A run that
// somebody else has begun counts for as long.
const retry = time.Hour

// glance is how long a schedule sleeps at most: the clock may be set, and others
// that have the same record may have been faster.
const glance = 5 * time.Minute

// patience is what the record has to take the end of a run.
const patience = 10 * time.Second

// next is when a sync is due that ran last at a time; the zero time is never.
func (c Sync) next(last time.Time) time.Time {
	if last.IsZero() {
		return last
	}
	at, err := time.Parse(clock, c.At)
	if err != nil {
		return last.Add(c.Interval)
	}
	day := time.Date(last.Year(), last.Month(), last.Day(), at.Hour(), at.Minute(), 0, 0, last.Location())
	if !day.After(last) {
		day = day.AddDate(0, 0, 1)
	}
	return day.AddDate(0, 0, max(0, int(c.Interval/(24*time.Hour))-1))
}

// due is when a sync is due by what is recorded. What ran or began in the future
// did so by a clock that was wrong: it does not count.
func (c Sync) due(r runs, now time.Time) time.Time {
	at := time.Time{}
	if last := r.Ran[c.key()]; !last.After(now.Add(c.Interval)) {
		at = c.next(last.Local())
	}
	if begun := r.Begun[c.key()]; !begun.IsZero() && !begun.After(now.Add(c.pause())) {
		if over := begun.Add(c.pause()); over.After(at) {
			at = over
		}
	}
	return at
}

// pause is how long a run that failed or did not end keeps the next one away.
func (c Sync) pause() time.Duration { return min(retry, c.Interval/4) }

// key is what a sync is known by in the record of runs.
func (c Sync) key() string {
	words := []string{c.Upstream, c.Prefix}
	for _, r := range c.Repositories {
		words = append(words, r.String())
	}
	return strings.Join(words, " ")
}

// Schedule runs syncs when they are due.
type Schedule struct {
	s      *Storage
	list   []Sync
	peers  []*peer // of each
	record Record
	alone  bool // nobody else has the record: what is begun in it, a process that has ended began
	log    *slog.Logger
}

// Schedule checks the syncs. In the record is when each has run, and who runs it
// now where several schedules have the same; nil has them run at each start.
func (s *Storage) Schedule(list []Sync, record Record) (*Schedule, error) {
	c := &Schedule{s: s, list: list, record: record, log: s.log}
	_, c.alone = record.(File)
	for _, one := range list {
		i := slices.IndexFunc(s.peers, func(p *peer) bool { return p.Name == one.Upstream })
		_, _, copies := s.route(one.Prefix + "/x")
		switch {
		case i < 0:
			return nil, fault.New(fault.Invalid, "a sync is from the upstream %q, and there is none of that name", one.Upstream)
		case !storage.ValidRepository(one.Prefix):
			return nil, fault.New(fault.Invalid, "a sync from %s: %q cannot begin the names of repositories: want a prefix such as %q", one.Upstream, one.Prefix, "mirror")
		case copies || s.refuse(one.Prefix+"/x") != nil:
			return nil, fault.New(fault.Invalid, "a sync from %s: what is below %q is fetched when it is asked for: choose another prefix", one.Upstream, one.Prefix)
		}
		if one.Interval <= 0 {
			return nil, fault.New(fault.Invalid, "a sync from %s has no interval", one.Upstream)
		}
		if _, err := time.Parse(clock, one.At); err != nil && one.At != "" {
			return nil, fault.New(fault.Invalid, "a sync from %s: %q is no time of day: want one such as %q", one.Upstream, one.At, "03:00")
		}
		for _, text := range one.Platforms {
			if n := strings.Count(text, "/"); n < 1 || n > 2 {
				return nil, fault.New(fault.Invalid, "a sync from %s: %q is no platform: want one such as %q", one.Upstream, text, "linux/amd64")
			}
		}
		c.peers = append(c.peers, s.peers[i])
	}
	return c, nil
}

// Run runs the syncs, one at a time, until ctx ends.
func (c *Schedule) Run(ctx context.Context) {
	if len(c.list) == 0 {
		return
	}
	known, _ := parseRuns(nil)
	earliest := make([]time.Time, len(c.list)) // of those that have run
	for first := true; ctx.Err() == nil; first = false {
		c.load(ctx, &known, first)
		now := time.Now()
		due := make([]time.Time, len(c.list))
		for i, one := range c.list {
			if due[i] = one.due(known, now); due[i].Before(earliest[i]) {
				due[i] = earliest[i]
			}
		}
		i := slices.IndexFunc(due, slices.MinFunc(due, time.Time.Compare).Equal)
		if wait := due[i].Sub(now); wait > 0 {
			sleep(ctx, min(wait, glance))
			continue
		}
		earliest[i] = c.perform(ctx, i, &known)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// errBegun says that somebody else runs the sync, or just has.
var errBegun = errors.New("another registry runs the sync")

// perform runs a sync unless somebody else does. Before the time that it gives
// it is not to run again, whatever the record says.
func (c *Schedule) perform(ctx context.Context, i int, known *runs) (earliest time.Time) {
	one, began := c.list[i], time.Now()
	earliest = began.Add(one.pause())
	err := c.change(ctx, func(r *runs) error {
		if one.due(*r, began).After(began) {
			return errBegun
		}
		r.Begun[one.key()] = began
		return nil
	})
	switch {
	case errors.Is(err, errBegun):
		return began.Add(min(glance, one.pause()))
	case err != nil:
		c.log.Warn("cannot record that a sync runs", "error", err)
	}
	failed := c.sync(ctx, one, c.peers[i])
	if failed == nil {
		known.Ran[one.key()] = began
	}
	// A registry that ends lets others go on at once.
	ctx, release := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer release()
	err = c.change(ctx, func(r *runs) error {
		if r.Begun[one.key()].Equal(began) {
			delete(r.Begun, one.key())
		}
		if failed == nil {
			r.Ran[one.key()] = began
		}
		return nil
	})
	if err != nil {
		c.log.Error("cannot record when a sync ran", "error", err)
	}
	if next := one.next(began); next.Before(earliest) {
		return next
	}
	return earliest
}

// load reads when each sync ran last, for what is known. What cannot be read or
// understood has not run, as far as it is not known.
func (c *Schedule) load(ctx context.Context, known *runs, tell bool) {
	if c.record == nil {
		return
	}
	var r runs
	data, err := c.record.Read(ctx)
	if err == nil {
		r, err = c.parse(data)
	}
	if err != nil {
		if tell && ctx.Err() == nil {
			c.log.Warn("it is not known when syncs ran: they run now", "error", err)
		}
		return
	}
	for key, at := range known.Ran { // if it could not be recorded
		if r.Ran[key].Before(at) {
			r.Ran[key] = at
		}
	}
	*known = r
}

func (c *Schedule) parse(data []byte) (runs, error) {
	r, err := parseRuns(data)
	if c.alone {
		clear(r.Begun)
	}
	return r, err
}

func (c *Schedule) change(ctx context.Context, f func(*runs) error) error {
	if c.record == nil {
		return nil
	}
	return c.record.Change(ctx, func(data []byte) ([]byte, error) {
		r, _ := c.parse(data) // what is no record is replaced
		if err := f(&r); err != nil {
			return nil, err
		}
		return json.Marshal(r)
	})
}
