package container

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/snapshot"
)

// Files is what containers' root file systems are asked for: what changed, all
// of it, and an image made of it. Volumes and other mounts are no part of them.
// None of this waits for other operations on the container.
type Files struct{ containers *Service }

// Changes tells what a container changed of its image, in the order of names; an
// error of visit ends it. A directory of which something changed is told too, and
// what the engine made in order to mount on it is not.
func (f *Files) Changes(ctx context.Context, nameOrID string, visit func(wire.FilesystemChange) error) error {
	r, err := f.containers.store.Find(nameOrID)
	if err != nil {
		return err
	}
	changes, err := f.open(r)
	if err != nil {
		return err
	}
	defer changes.Close()
	err = changes.Changes(ctx, func(c archive.Change) error {
		return visit(wire.FilesystemChange{Path: c.Path, Kind: wire.ChangeType(c.Kind)})
	})
	if err != nil {
		return err
	}
	return f.still(r)
}

// Export writes a container's root as a tar. It may be running, and is not
// stopped for it.
func (f *Files) Export(ctx context.Context, nameOrID string, w io.Writer) error {
	r, err := f.containers.store.Find(nameOrID)
	if err != nil {
		return err
	}
	changes, err := f.open(r)
	if err != nil {
		return err
	}
	defer changes.Close()
	if err := archive.Write(ctx, w, changes.Tree(), archive.WriteOptions{}); err != nil {
		return err
	}
	if err := f.still(r); err != nil {
		return err
	}
	f.containers.publish(r, events.ActionExport)
	return nil
}

// open opens the files, and knows where the container mounts.
func (f *Files) open(r Record) (*snapshot.Changes, error) {
	changes, err := f.containers.cfg.Snapshots.Changes(r.ID)
	if err != nil {
		return nil, err
	}
	changes.Made = append(changes.Made, strings.TrimPrefix(spec.InitTarget, "/"))
	for _, m := range r.Mounted() {
		changes.Made = append(changes.Made, strings.TrimPrefix(path.Clean(m.Destination), "/"))
	}
	for place := range r.HostConfig.Tmpfs {
		changes.Made = append(changes.Made, strings.TrimPrefix(path.Clean(place), "/"))
	}
	return changes, nil
}

// still tells whether the container has not been removed, and its files with
// it, while they were read.
func (f *Files) still(r Record) error {
	if _, err := f.containers.store.Find(r.ID); err != nil {
		return fault.New(fault.Conflict, "container %s was removed while its files were being read", r.ID)
	}
	return nil
}

// CommitOptions as in POST /commit.
type CommitOptions struct {
	Reference       string // of the image, "" for none
	Comment, Author string
	Changes         []string // Dockerfile instructions
	Config          *wire.Config
	Pause           bool // let the container stand still meanwhile
	Squash          bool
	Epoch           time.Time // SOURCE_DATE_EPOCH, zero for none
}

// Commit makes an image of a container and returns its ID.
func (f *Files) Commit(ctx context.Context, nameOrID string, o CommitOptions) (id string, err error) {
	s := f.containers
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return "", err
	}
	if o.Pause && r.State.Up() { // a paused one shall not go on before the end either
		thaw, err := f.freeze(ctx, r)
		if err != nil {
			return "", err
		}
		defer thaw()
	}
	changes, err := f.open(r)
	if err != nil {
		return "", err
	}
	defer changes.Close()
	options := image.CommitOptions{
		Parent: r.Image.Manifest, Image: r.Image.ID, Reference: o.Reference, Author: o.Author, Comment: o.Comment, Changes: o.Changes,
		Container: imageConfig(r.Config), Squash: o.Squash, Epoch: o.Epoch, Check: func() error { return f.still(r) },
	}
	if o.Config != nil {
		config := imageConfig(o.Config)
		options.Config = &config
	}
	if id, err = s.cfg.Commits.Commit(ctx, changes.Diff, options); err != nil {
		return "", err
	}
	name := ""
	if ref, err := reference.Parse(o.Reference); o.Reference != "" && err == nil {
		name = ref.Familiar()
	}
	s.publish(r, events.ActionCommit, "comment", o.Comment, "imageID", id, "imageRef", name)
	return id, nil
}

// freeze lets a running container stand still until thaw is called. Both are told as
// by Docker, but for one that is paused beside it.
func (f *Files) freeze(ctx context.Context, r Record) (thaw func(), err error) {
	s := f.containers
	keeper, ended, err := s.lives.running(r)
	if err == nil {
		err = ofRun(r, ended, keeper.Freeze(ctx))
	}
	if fault.KindOf(err) == fault.Conflict { // it ended just now
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot pause the container, commit it without pausing (pause=false): %w", err)
	}
	told := r.State == record.Running
	if told {
		s.publish(r, events.ActionPause)
	}
	return func() {
		if err := keeper.Thaw(context.WithoutCancel(ctx)); err != nil {
			s.cfg.Log.Warn("cannot let a container go on after its commit", "container", r.ID, "error", err)
			return
		}
		if now, err := s.store.Find(r.ID); told && err == nil && now.State == record.Running {
			s.publish(r, events.ActionUnPause)
		}
	}, nil
}

// imageConfig is what of a container's config an image can have.
func imageConfig(c *wire.Config) dockerspec.DockerOCIImageConfig {
	var config dockerspec.DockerOCIImageConfig
	config.User, config.Env, config.Entrypoint, config.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	config.Volumes, config.WorkingDir, config.Labels, config.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	config.ArgsEscaped = c.ArgsEscaped //nolint:staticcheck // Docker keeps it
	config.Healthcheck, config.OnBuild, config.Shell = c.Healthcheck, c.OnBuild, c.Shell
	for port := range c.ExposedPorts {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port.String()] = struct{}{}
	}
	return config
}
