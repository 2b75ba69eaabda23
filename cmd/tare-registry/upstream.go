package main

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/bucket"
	"github.com/tarehq/tare/registry/upstream"
	"github.com/tarehq/tare/remote"
)

// copies has the storage fetch what it lacks where the configuration has
// upstreams. When that fails the storage is closed.
func copies(c *config.Config, kept storage.Storage, log *slog.Logger) (storage.Storage, error) {
	if len(c.Upstreams) == 0 {
		return kept, nil
	}
	u := upstream.Config{Storage: kept, MaxBlob: int64(c.Limits.Blob), Log: log}
	if c.Storage.S3 == nil {
		u.Spool = c.Storage.Root
	}
	if at, err := url.Parse(c.HTTP.URL); err == nil && at.Host != "" {
		u.Own = []string{at.Host}
	}
	for _, one := range c.Upstreams {
		u.Upstreams = append(u.Upstreams, upstream.Upstream{
			Name: one.Name, URL: one.URL, Prefix: one.Prefix, Namespaces: one.Namespaces, Repositories: one.Repositories,
			Credentials: credentials(one), CA: one.CA, HostsDir: one.HostsDir, Insecure: one.Insecure,
			TagTTL: time.Duration(one.TagTTL), Unused: time.Duration(one.Unused),
		})
	}
	s, err := upstream.New(u)
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return s, nil
}

// credentials reads those of an upstream when they are used: they may change.
func credentials(u config.Upstream) func() (remote.Credentials, error) {
	if u.Username == "" && !u.Identity.Set() {
		return nil
	}
	return func() (cred remote.Credentials, err error) {
		cred.Username = u.Username
		if cred.Password, err = u.Password.Read(); err == nil {
			cred.IdentityToken, err = u.Identity.Read()
		}
		return cred, err
	}
}

// syncs is where it is recorded when syncs ran, in the storage as it was opened.
func syncs(c *config.Config, opened storage.Storage) upstream.Record {
	if b, ok := opened.(*bucket.Storage); ok {
		return b.Record("syncs")
	}
	return upstream.File(filepath.Join(c.Storage.Root, "syncs.json"))
}

// schedule copies on the configuration's schedule. The function that it returns
// ends that.
func schedule(ctx context.Context, c *config.Config, record upstream.Record, s storage.Storage) (end func(), err error) {
	if len(c.Syncs) == 0 {
		return func() {}, nil
	}
	u, ok := s.(*upstream.Storage)
	if !ok {
		return nil, fault.New(fault.Invalid, "there are syncs, and no upstreams")
	}
	var list []upstream.Sync
	for _, one := range c.Syncs {
		if one.Prefix == "" {
			one.Prefix = one.Upstream
		}
		list = append(list, upstream.Sync{
			Upstream: one.Upstream, Prefix: one.Prefix, Repositories: one.Repositories, Tags: one.Tags, Platforms: one.Platforms,
			Referrers: one.Referrers, Interval: time.Duration(one.Interval), At: one.At,
		})
	}
	plan, err := u.Schedule(list, record)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		plan.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}, nil
}
