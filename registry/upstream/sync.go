package upstream

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
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
