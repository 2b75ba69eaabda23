// Package create is what clients say of a container that is to be made, before anything
// of the machine is looked at: what it leaves to the daemon, to the image and to Docker's
// defaults, what can never work, and what is warned of.
package create

import (
	"maps"
	"path"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/config"
)

// Request is what POST /containers/create carries.
type Request struct {
	Name             string // "" for a made-up one
	Platform         string // os[/architecture[/variant]], "" for any
	Config           *wire.Config
	HostConfig       *wire.HostConfig
	NetworkingConfig *wirenet.NetworkingConfig
}

// MergeImage fills what the user left open with the image's config, by
// Docker's rules: a given entrypoint hides the image's command too.
func MergeImage(c *wire.Config, img catalog.Image) {
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

// Settle fills in what the request leaves open: by the daemon's settings, then by
// Docker's defaults.
func (req *Request) Settle(settings *Settings) error {
	settings.fill(req)
	if err := normalize(req); err != nil {
		return err
	}
	if config := req.Config; config.Image == "" && len(config.Cmd) == 0 && len(config.Entrypoint) == 0 {
		return fault.New(fault.Invalid, "no command specified")
	}
	return nil
}

// normalize fills what is missing in a request with Docker's defaults.
func normalize(req *Request) error {
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
