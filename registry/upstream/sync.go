package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
)

// Sync says which images are copied from an upstream, as ordinary ones, and
// when.
type Sync struct {
	Upstream string // its name
	// Prefix begins the names here. No copy of an upstream may have names below it.
	Prefix string
	// Repositories are names at upstream, or patterns if it has a catalog.
	Repositories pattern.List
	Tags         pattern.List // nil is all
	Platforms    []string     // "os/architecture[/variant]" of what indexes name; nil is all
	Referrers    bool         // signatures, SBOMs and what else refers to the images
	Interval     time.Duration
	// At is the time of day, "03:00", for intervals of whole days; "" counts from
	// the last run.
	At string
}

// clock is the form of Sync.At.
const clock = "15:04"

// retry is how long after a run that failed the next one is, at most.
const retry = time.Hour

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
	s     *Storage
	list  []Sync
	peers []*peer // of each
	file  string
	log   *slog.Logger
}

// Schedule checks the syncs. In the file is recorded when each has run; "" has
// them run at each start.
func (s *Storage) Schedule(list []Sync, file string) (*Schedule, error) {
	c := &Schedule{s: s, list: list, file: file, log: s.log}
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
	last := c.load()
	due := make([]time.Time, len(c.list))
	for i, one := range c.list {
		due[i] = one.next(last[one.key()])
	}
	for ctx.Err() == nil {
		i := slices.IndexFunc(due, slices.MinFunc(due, time.Time.Compare).Equal)
		timer := time.NewTimer(time.Until(due[i]))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		began, one := time.Now(), c.list[i]
		err := c.sync(ctx, one, c.peers[i])
		if due[i] = one.next(began); err != nil {
			if again := began.Add(min(retry, one.Interval/4)); again.Before(due[i]) {
				due[i] = again
			}
			continue
		}
		last[one.key()] = began
		if err := c.save(last); err != nil {
			c.log.Error("cannot record when a sync ran", "error", err)
		}
	}
}

// sync runs one. What fails does not keep the rest; the error is of the last
// thing that has failed.
func (c *Schedule) sync(ctx context.Context, one Sync, p *peer) (failed error) {
	began := time.Now()
	log := c.log.With("upstream", p.Name)
	log.Info("a sync begins", "repositories", len(one.Repositories))
	paths, err := c.repositories(ctx, one, p)
	if err != nil {
		failed = err
		log.Error("cannot list the repositories to sync", "error", err)
	}
	total := copied{}
	for _, path := range paths {
		all, err := c.repository(ctx, one, p, path, log)
		failed = cmp.Or(err, failed)
		total.add(all)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	log.Info("a sync has ended", "repositories", len(paths), "images", total.images, "blobs", total.blobs, "bytes", total.bytes,
		"failures", total.failures, "took", time.Since(began).Round(time.Millisecond))
	return failed
}

// repository copies the tags of one, each with a line of its own.
func (c *Schedule) repository(ctx context.Context, one Sync, p *peer, path string, log *slog.Logger) (total copied, failed error) {
	repo := one.Prefix + "/" + path
	log = log.With("repository", repo)
	tags, err := c.tags(ctx, one, p, path)
	if err == nil && !storage.ValidRepository(repo) {
		err = fault.New(fault.Invalid, "%s is too long for the name of a repository", repo)
	}
	if err != nil {
		total.failures++
		log.Error("cannot sync a repository", "error", err)
		return total, err
	}
	for _, tag := range tags {
		began := time.Now()
		k := &copier{s: c.s, p: p, sync: one, path: path, repo: repo, log: log.With("tag", tag)}
		d, err := k.image(ctx, tag)
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		total.add(k.copied)
		switch {
		case err != nil:
			failed = err
			total.failures++
			log.Error("an image was not synced", "tag", tag, "error", err)
		case !k.changed:
			total.images++
			log.Info("an image is as it was", "tag", tag, "digest", d)
		default:
			total.images++
			log.Info("an image was synced", "tag", tag, "digest", d, "blobs", k.blobs, "bytes", k.bytes, "took", time.Since(began).Round(time.Millisecond))
		}
	}
	return total, failed
}

// literal tells whether a pattern is a name.
func literal(p pattern.Pattern) bool { return !strings.ContainsAny(p.String(), `*?[\`) }

// chosen gives the names that a list is about. Others than those that it spells
// out are looked for in what all lists.
func chosen(list pattern.List, all func() ([]string, error)) ([]string, error) {
	var names []string
	var open pattern.List
	for _, p := range list {
		if literal(p) {
			names = append(names, p.String())
		} else {
			open = append(open, p)
		}
	}
	var err error
	if open != nil || list == nil {
		var found []string
		found, err = all()
		for _, name := range found {
			if list == nil || open.Match(name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// repositories gives those of a sync, as far as they can be listed.
func (c *Schedule) repositories(ctx context.Context, one Sync, p *peer) ([]string, error) {
	return chosen(one.Repositories, func() ([]string, error) {
		cred, err := p.credentials()
		if err != nil {
			return nil, err
		}
		names, err := p.client.Catalog(ctx, p.domain, cred)
		return names, p.failed(ctx, err)
	})
}

func (c *Schedule) tags(ctx context.Context, one Sync, p *peer, path string) ([]string, error) {
	return chosen(one.Tags, func() ([]string, error) {
		r, err := p.repository(path)
		if err != nil {
			return nil, err
		}
		tags, err := r.Tags(ctx)
		return tags, p.failed(ctx, err)
	})
}

// load reads when each sync ran last. What cannot be read has not run.
func (c *Schedule) load() map[string]time.Time {
	last := map[string]time.Time{}
	if c.file == "" {
		return last
	}
	data, err := os.ReadFile(c.file)
	if err == nil {
		err = json.Unmarshal(data, &last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("it is not known when syncs ran: they run now", "file", c.file, "error", err)
		return map[string]time.Time{}
	}
	return last
}

func (c *Schedule) save(last map[string]time.Time) error {
	if c.file == "" {
		return nil
	}
	data, err := json.Marshal(last)
	if err != nil {
		return err
	}
	return atomicfile.Write(c.file, data, 0o600)
}
