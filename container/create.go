package container

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/undo"
)

// CreateRequest is what POST /containers/create carries.
type CreateRequest struct {
	Name             string // "" for a made-up one
	Platform         string // os[/architecture[/variant]], "" for any
	Config           *wire.Config
	HostConfig       *wire.HostConfig
	NetworkingConfig *wirenet.NetworkingConfig
}

// Create makes a container from an image. When it returns without an error
// the container survives power loss, unless it is one that removes itself.
func (s *Service) Create(ctx context.Context, req CreateRequest) (id string, warnings []string, err error) {
	c := &creation{containers: s, req: &req}
	if err := c.settle(); err != nil {
		return "", nil, err
	}
	h := req.HostConfig
	warnings = slices.Concat(discardSwap(h, s.host.countsSwap), discard(h, s.host.groups.Unified()))
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
	return r.ID, slices.Concat(warnings, limitWarnings(h), platformWarnings(c.image, req.Platform), portWarnings(h)), nil
}

// creation is one container that is being made: from the request, by the image,
// a record.
type creation struct {
	containers *Service
	req        *CreateRequest
	image      image.Image
}

// settle fills in what the request leaves open and refuses what can never work.
func (c *creation) settle() error {
	c.containers.cfg.Defaults.get().fill(c.req)
	if err := normalize(c.req); err != nil {
		return err
	}
	if config := c.req.Config; config.Image == "" && len(config.Cmd) == 0 && len(config.Entrypoint) == 0 {
		return fault.New(fault.Invalid, "no command specified")
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

// portWarnings are Docker's words about ports that a network without an address
// of its own cannot publish.
func portWarnings(h *wire.HostConfig) []string {
	mode := h.NetworkMode
	if (mode.IsHost() || mode.IsNone()) && (len(h.PortBindings) > 0 || h.PublishAllPorts) {
		return []string{fmt.Sprintf("Published ports are discarded when using %s network mode", mode)}
	}
	return nil
}

// discard drops the limits that cgroup v2 does not have, with Docker's words.
func discard(h *wire.HostConfig, cgroup2 bool) (warnings []string) {
	if !cgroup2 {
		return nil
	}
	if h.MemorySwappiness != nil {
		h.MemorySwappiness = nil
		warnings = append(warnings, "Your kernel does not support memory swappiness capabilities, or the cgroup is not mounted. Memory swappiness discarded.")
	}
	if *h.OomKillDisable {
		h.OomKillDisable = new(bool)
		warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
	}
	return warnings
}

// discardSwap drops the limit of swap where the kernel does not count it, with
// Docker's words.
func discardSwap(h *wire.HostConfig, counted bool) (warnings []string) {
	if counted || h.Memory == 0 || h.MemorySwap == -1 {
		return nil
	}
	h.MemorySwap = -1
	return []string{"Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."}
}

// limitWarnings are Docker's words about limits that can do harm.
func limitWarnings(h *wire.HostConfig) []string {
	if *h.OomKillDisable && h.Memory == 0 {
		return []string{"OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."}
	}
	return nil
}

// platformWarnings are Docker's words about an image that this machine may not
// be able to run, and nobody asked for.
func platformWarnings(img image.Image, wanted string) []string {
	own, machine, foreign := img.Foreign()
	if wanted != "" || !foreign {
		return nil
	}
	return []string{fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested", own, machine)}
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
	furnished, err := c.furnish(ctx, r, &back)
	if err != nil {
		return err
	}
	if err := s.store.Add(r); err != nil {
		return err
	}
	s.links.Add(r)
	if err := furnished.publish(); err != nil { // the container is there: it gets its volumes by its start
		s.cfg.Log.Error("a volume of a new container cannot be named", "container", r.ID, "err", err)
	}
	return nil
}

// record makes the record: the request, with the image's config below it and
// every default filled in.
func (c *creation) record() (*Record, error) {
	s, req, img := c.containers, c.req, c.image
	config := *req.Config
	mergeImage(&config, img)
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

// mergeImage fills what the user left open with the image's config, by
// Docker's rules: a given entrypoint hides the image's command too.
func mergeImage(c *wire.Config, img image.Image) {
	ic := img.Config.Config
	if c.User == "" {
		c.User = ic.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = ic.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = ic.StopSignal
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = ic.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = ic.Entrypoint
		}
	} else if c.Entrypoint[0] == "" && len(c.Entrypoint) == 1 { // --entrypoint ""
		c.Entrypoint = nil
	}
	if c.Shell == nil {
		c.Shell = ic.Shell
	}
	c.Healthcheck = config.FillHealth(c.Healthcheck, ic.Healthcheck)
	c.Env = mergeEnv(ic.Env, c.Env)
	for k, v := range ic.Labels {
		if _, set := c.Labels[k]; !set {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		}
	}
	for p := range ic.ExposedPorts {
		if port, err := wirenet.ParsePort(p); err == nil {
			if c.ExposedPorts == nil {
				c.ExposedPorts = wirenet.PortSet{}
			}
			c.ExposedPorts[port] = struct{}{}
		}
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if len(ic.Volumes) > 0 {
		all := maps.Clone(ic.Volumes)
		maps.Copy(all, c.Volumes)
		c.Volumes = all
	}
}

// mergeEnv puts the image's variables behind the user's, those that the user
// did not name.
func mergeEnv(image, user []string) []string {
	named := map[string]bool{}
	for _, kv := range user {
		key, _, _ := strings.Cut(kv, "=")
		named[key] = true
	}
	env := slices.Clone(user)
	for _, kv := range image {
		if key, _, _ := strings.Cut(kv, "="); !named[key] {
			env = append(env, kv)
		}
	}
	return env
}

// normalize fills what is missing in a request with Docker's defaults.
func normalize(req *CreateRequest) error {
	if req.Config == nil {
		return fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	config := *req.Config
	req.Config = &config
	h := &wire.HostConfig{}
	if req.HostConfig != nil {
		copied := *req.HostConfig
		h = &copied
	}
	req.HostConfig = h
	if h.NetworkMode == "" || h.NetworkMode == wirenet.NetworkDefault {
		h.NetworkMode = wirenet.NetworkBridge
	}
	if config.NetworkDisabled {
		h.NetworkMode, req.NetworkingConfig = wirenet.NetworkNone, nil
	}
	if h.IpcMode == "" {
		h.IpcMode = wire.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = wire.CgroupnsModePrivate
		if seesAllGroups(h) {
			h.CgroupnsMode = wire.CgroupnsModeHost
		}
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = wire.RestartPolicyDisabled
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory // as much swap as memory
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 { // the kernel's own
		h.MemorySwappiness = nil
	}
	if h.OomKillDisable == nil {
		h.OomKillDisable = new(bool)
	}
	plain := slices.Contains(h.SecurityOpt, "systempaths=unconfined") || slices.Contains(h.SecurityOpt, "systempaths:unconfined")
	if !h.Privileged && !plain {
		masked, readonly := spec.SystemPaths()
		if h.MaskedPaths == nil {
			h.MaskedPaths = masked
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = readonly
		}
	}
	if len(config.Volumes) == 0 {
		config.Volumes = nil
	}
	if config.WorkingDir != "" {
		if !path.IsAbs(config.WorkingDir) {
			return fault.New(fault.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", config.WorkingDir)
		}
		config.WorkingDir = path.Clean(config.WorkingDir)
	}
	return nil
}
