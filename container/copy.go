package container

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/view"
	"github.com/tarehq/tare/fault"
)

// noFile gives an error of place Docker's words, and its kinds.
func noFile(err error, a view.Path, container string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "Could not find the file %s in container %s", a.Given, container)
	}
	return err
}

// Stat tells what a path of a container leads to, running or not.
func (f *Files) Stat(ctx context.Context, nameOrID, given string) (stat wire.PathStat, err error) {
	err = f.at(ctx, nameOrID, given, func(_ Record, v *seen, a view.Path, place *os.File, st *unix.Stat_t) error {
		stat, err = v.Stat(a, st)
		return noFile(err, a, nameOrID)
	})
	return stat, err
}

// Archive writes what a path of a container leads to as a tar, whose names begin
// with the last part of the path. begin is told what it is, before anything is
// written, and gives the writer; without it there was no archive.
func (f *Files) Archive(ctx context.Context, nameOrID, given string, begin func(wire.PathStat) (io.Writer, error)) error {
	return f.at(ctx, nameOrID, given, func(r Record, v *seen, a view.Path, place *os.File, st *unix.Stat_t) error {
		stat, err := v.Stat(a, st)
		if err != nil {
			return noFile(err, a, nameOrID)
		}
		f.containers.publish(r, events.ActionArchivePath)
		w, err := begin(stat)
		if err != nil {
			return err
		}
		if err := archive.WriteOne(ctx, w, place, a.Name, archive.WriteOptions{Seconds: true, Users: r.Users}); err != nil {
			return err
		}
		return f.still(r)
	})
}

// at finds the place of a path for a reader.
func (f *Files) at(ctx context.Context, nameOrID, given string, use func(Record, *seen, view.Path, *os.File, *unix.Stat_t) error) error {
	r, err := f.containers.store.Find(nameOrID)
	if err != nil {
		return err
	}
	v, err := f.see(ctx, r, false)
	if err != nil {
		return err
	}
	defer v.close()
	a := view.Ask(given)
	place, st, err := v.Place(a)
	if errors.Is(err, fs.ErrNotExist) && v.sources == nil && hides(r) {
		below, errBelow := f.mounted(ctx, &r, false)
		if errBelow != nil {
			return noFile(err, a, nameOrID)
		}
		defer below.close()
		v = below
		place, st, err = v.Place(a)
	}
	if err != nil {
		return noFile(err, a, nameOrID)
	}
	defer place.Close()
	return use(r, v, a, place, &st)
}

// hides tells whether a container that runs has file systems in memory, which hide what
// was copied to their places before its start. Docker finds that, and nothing in them.
func hides(r Record) bool {
	return len(r.HostConfig.Tmpfs) > 0 || slices.ContainsFunc(r.Mounted(), func(m spec.Mount) bool { return m.Type == mount.TypeTmpfs })
}

// ExtractOptions as in PUT /containers/{id}/archive.
type ExtractOptions struct {
	KeepKinds bool // no directory in the place of something else, nor the other way round
	ToUser    bool // all belongs to the container's user instead of those of the archive
}

// Extract unpacks a tar, compressed or not, in a directory of a container.
func (f *Files) Extract(ctx context.Context, nameOrID, given string, o ExtractOptions, r io.Reader) error {
	record, err := f.containers.store.Find(nameOrID)
	if err != nil {
		return err
	}
	v, err := f.see(ctx, record, true)
	if err != nil {
		return err
	}
	defer v.close()
	a := view.Ask(given)
	if err := v.Writable(a); err != nil {
		return noFile(err, a, nameOrID)
	}
	options := archive.Options{Whiteouts: archive.NoWhiteouts, Dir: a.Dir(), KeepKinds: o.KeepKinds, Users: record.Users}
	if o.ToUser && record.Config.User != "" {
		if options.Owner, err = v.Owner(record.Config.User); err != nil {
			return err
		}
	}
	if err := v.Unpack(ctx, r, options); err != nil {
		return err
	}
	f.containers.publish(record, events.ActionExtractToDir)
	return nil
}
