package container

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/undo"
)

// Create makes a container from an image. When it returns without an error
// the container survives power loss, unless it is one that removes itself.
func (s *Service) Create(ctx context.Context, req create.Request) (id string, warnings []string, err error) {
	c := &creation{containers: s, req: &req}
	if err := c.settle(); err != nil {
		return "", nil, err
	}
	h := req.HostConfig
	warnings = slices.Concat(create.DiscardSwap(h, s.host.countsSwap), create.Discard(h, s.host.groups.Unified()))
	if c.image, err = s.cfg.Images.ResolvePlatform(ctx, req.Config.Image, req.Platform); err != nil {
		return "", nil, err
	}
	r, err := c.record()
	if err != nil {
		return "", nil, err
	}
	if r.Image.ChainID, err = s.cfg.Images.Unpacked(ctx, c.image); err != nil {
		return "", nil, err
	}
	if err := c.make(ctx, r); err != nil {
		return "", nil, err
	}
	s.publish(*r, events.ActionCreate)
	return r.ID, slices.Concat(warnings, req.Warnings(c.image)), nil
}

// creation is one container that is being made: from the request, by the image,
// a record.
type creation struct {
	containers *Service
	req        *create.Request
	image      catalog.Image
}

// settle fills in what the request leaves open and refuses what can never work.
func (c *creation) settle() error {
	if err := c.req.Settle(c.containers.cfg.Defaults.Get()); err != nil {
		return err
	}
	if err := c.labelling(c.req.HostConfig); err != nil {
		return err
	}
	c.nameNetworks()
	if err := c.check(); err != nil {
		return err
	}
	c.shareByID()
	return nil
}

// shareByID makes the ID of each container whose namespace is shared, as Docker
// does. A name can come to mean another, even one that shares with this one.
func (c *creation) shareByID() {
	h := c.req.HostConfig
	id := func(mode, nameOrID string) string {
		if other, err := c.containers.store.Find(nameOrID); nameOrID != "" && err == nil {
			return "container:" + other.ID
		}
		return mode
	}
	h.PidMode = wire.PidMode(id(string(h.PidMode), h.PidMode.Container()))
	h.IpcMode = wire.IpcMode(id(string(h.IpcMode), h.IpcMode.Container()))
	h.NetworkMode = wire.NetworkMode(id(string(h.NetworkMode), h.NetworkMode.ConnectedContainer()))
}

// make gives the container its name, its directory and its writable layer,
// and acknowledges it by its record. On failure nothing stays.
func (c *creation) make(ctx context.Context, r *Record) (err error) {
	s := c.containers
	var back undo.Stack
	defer back.OnError(&err)
	if err := s.store.Claim(r); err != nil {
		return err
	}
	back.Push(func() error { s.store.Unreserve(r.Name, r.ID); return nil })
	if err := s.users.Give(r); err != nil {
		return err
	}
	defer s.users.Settle(r.ID)
	if err := os.Mkdir(s.store.Path(r.ID), 0o710); err != nil {
		return err
	}
	back.Push(func() error { return os.RemoveAll(s.store.Path(r.ID)) })
	if _, err := s.cfg.Snapshots.Prepare(r.ID, r.Image.ChainID); err != nil {
		return err
	}
	back.Push(func() error { return s.cfg.Snapshots.Remove(r.ID) })
	if err := s.limitStorage(r); err != nil {
		return err
	}
	if err := c.label(r, &back); err != nil {
		return err
	}
	furnished, err := s.Mounts.Furnish(ctx, r, &back)
	if err != nil {
		return err
	}
	if err := s.store.Add(r); err != nil {
		return err
	}
	s.links.Add(r)
	if err := furnished.Publish(); err != nil { // the container is there: it gets its volumes by its start
		s.cfg.Log.Error("a volume of a new container cannot be named", "container", r.ID, "err", err)
	}
	return nil
}

// record makes the record: the request, with the image's config below it and
// every default filled in.
func (c *creation) record() (*Record, error) {
	s, req, img := c.containers, c.req, c.image
	config := *req.Config
	create.MergeImage(&config, img)
	r := &Record{
		Spec: record.Spec{
			ID:         idgen.New(),
			Name:       strings.TrimPrefix(req.Name, "/"),
			Created:    time.Now().UTC(),
			Config:     &config,
			HostConfig: req.HostConfig,
			Image:      record.Image{ID: img.ID, Manifest: img.Manifest, OS: img.Platform.OS},
			Runtime:    req.HostConfig.Runtime,
			Boot:       s.host.boot,
		},
		Progress: record.Progress{State: record.Created},
	}
	var err error
	if req.HostConfig.NetworkMode.IsBridge() {
		if r.Links, err = s.links.Find(req.HostConfig.Links); err != nil {
			return nil, err
		}
	}
	if n := req.NetworkingConfig; n != nil {
		r.Networks = record.Wishes(n.EndpointsConfig)
	}
	if config.Hostname == "" && !req.HostConfig.UTSMode.IsHost() && !req.HostConfig.NetworkMode.IsHost() {
		config.Hostname = r.ID[:12]
	}
	argv := append(slices.Clone(config.Entrypoint), config.Cmd...)
	if len(argv) == 0 {
		return nil, fault.New(fault.Invalid, "no command specified")
	}
	r.Path, r.Args = argv[0], argv[1:]
	return r, nil
}
