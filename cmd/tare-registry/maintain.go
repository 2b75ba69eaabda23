package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docker/go-units"

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
	m := &care{make(chan keeping), cancel, make(chan struct{})}
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
	select {
	case m.changed <- keeping{rules, c}:
	case <-m.done:
	}
}

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
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, s.Close()) }()
	freed, err := s.Collect(ctx, time.Duration(c.Collect.Grace))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "removed %d blobs and %d uploads: %s\n", freed.Blobs, freed.Uploads, units.HumanSize(float64(freed.Bytes)))
	return err
}

func retain(ctx context.Context, out, _ io.Writer, o *options) (err error) {
	c, s, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, s.Close()) }()
	grace := time.Duration(0) // nobody has asked a registry that does not run
	if c.Storage.S3 != nil {
		grace = time.Duration(c.Collect.Grace)
	}
	n := 0
	err = rulesOf(c).Run(ctx, s, !o.dryRun, grace, func(d retention.Deletion) {
		n++
		fmt.Fprintln(out, d)
	})
	if err != nil {
		return err
	}
	verb := "removed"
	if o.dryRun {
		verb = "would remove"
	}
	_, err = fmt.Fprintf(out, "%s %d tags and manifests\n", verb, n)
	return err
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
