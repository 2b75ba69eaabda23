package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/retention"
	"github.com/tarehq/tare/registry/storage"
)

// firstRound is when a registry collects after its start, if its interval is
// longer: one that is restarted each day has to collect too.
const firstRound = 10 * time.Minute

// care is the maintenance of a storage in the background.
type care struct {
	now     atomic.Pointer[keeping]
	changed chan keeping
	cancel  context.CancelFunc
	done    chan struct{}
}

// keeping is what it goes by.
type keeping struct {
	rules   retention.Rules
	collect config.Collect
}

// maintain removes what retention does not keep and what nothing needs, every
// interval and at each SIGUSR1, until the end of what it returns.
func maintain(ctx context.Context, kept, s storage.Storage, rules retention.Rules, c config.Collect, log *slog.Logger) *care {
	ctx, cancel := context.WithCancel(ctx)
	m := &care{changed: make(chan keeping), cancel: cancel, done: make(chan struct{})}
	m.now.Store(&keeping{rules, c})
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		defer close(m.done)
		defer signal.Stop(asked)
		next := every(min(c.Interval, config.Duration(firstRound)))
		for {
			select {
			case <-ctx.Done():
				return
			case k := <-m.changed:
				if k.collect.Interval != c.Interval {
					next = every(k.collect.Interval)
				}
				rules, c = k.rules, k.collect
				continue
			case <-asked:
			case <-next:
				next = every(c.Interval)
			}
			round(ctx, kept, s, rules, c, log)
		}
	}()
	return m
}

// every is nil, which never comes, for 0.
func every(interval config.Duration) <-chan time.Time {
	if interval == 0 {
		return nil
	}
	return time.After(time.Duration(interval))
}

// change has the next round, and those after it, go by something else. It waits
// for the round that runs.
func (m *care) change(rules retention.Rules, c config.Collect) {
	m.now.Store(&keeping{rules, c})
	select {
	case m.changed <- keeping{rules, c}:
	case <-m.done:
	}
}

// by is what it goes by now.
func (m *care) by() keeping { return *m.now.Load() }

func (m *care) end() {
	m.cancel()
	<-m.done
}

// round is one retention, of what is kept here, and one collection.
func round(ctx context.Context, kept, s storage.Storage, rules retention.Rules, c config.Collect, log *slog.Logger) {
	if rules.Removes() {
		err := rules.Run(ctx, kept, true, time.Duration(c.Grace), func(d retention.Deletion) {
			log.Info("removed by retention", "repository", d.Repository, "tag", d.Tag, "digest", d.Digest, "reason", d.Reason)
		})
		if err != nil && ctx.Err() == nil {
			log.Error("retention ended early", "error", err)
		}
	}
	start := time.Now()
	freed, err := s.Collect(ctx, time.Duration(c.Grace))
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Error("garbage collection ended early", "error", err)
	default:
		log.Info("collected garbage", "blobs", freed.Blobs, "uploads", freed.Uploads, "bytes", freed.Bytes, "took", time.Since(start).Round(time.Millisecond))
	}
}

func garbageCollect(ctx context.Context, out, _ io.Writer, o *options) (err error) {
	c, s, err := o.open(ctx)
	if c != nil && err != nil {
		query := url.Values{}
		if o.set("grace") {
			query.Set("grace", o.grace.String())
		}
		return askRunning(ctx, c, out, collectPath, query, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, s.Close()) }()
	return collectNow(ctx, out, s, time.Duration(c.Collect.Grace))
}

func retain(ctx context.Context, out, _ io.Writer, o *options) (err error) {
	c, s, err := o.open(ctx)
	if c != nil && err != nil {
		query := url.Values{}
		if o.dryRun {
			query.Set("dry-run", "1")
		}
		return askRunning(ctx, c, out, retentionPath, query, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, s.Close()) }()
	grace := time.Duration(0) // nobody has asked a registry that does not run
	if c.Storage.S3 != nil {
		grace = time.Duration(c.Collect.Grace)
	}
	return retainNow(ctx, out, s, rulesOf(c), !o.dryRun, grace)
}

// open opens the storage of the commands that do one thing to it, which has to
// be there.
func (o *options) open(ctx context.Context) (*config.Config, storage.Storage, error) {
	c, err := o.config()
	if err != nil {
		return nil, nil, err
	}
	if c.Storage.S3 == nil {
		if _, err := os.Stat(c.Storage.Root); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fault.New(fault.NotFound, "there is no registry in %s: give its directory with --root", c.Storage.Root)
		}
	}
	s, err := openStorage(ctx, c)
	return c, s, err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
