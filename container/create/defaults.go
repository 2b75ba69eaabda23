package create

import (
	"net/netip"
	"slices"
	"sync/atomic"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/supervise"
)

// Settings is what the daemon was told to give containers that ask for nothing
// else, and the runtimes that they may ask for. The zero value is Docker's
// defaults with no runtime at all.
type Settings struct {
	Runtimes       map[string]supervise.Runtime // by name; the built-in one has no path
	DefaultRuntime string

	// Written into the record of a new container.
	Ulimits      []*wire.Ulimit // for each name that the request does not have
	ShmSize      int64          // bytes; 0 for 64 MiB
	IpcMode      wire.IpcMode
	CgroupnsMode wire.CgroupnsMode

	// Looked up at each start.
	StorageSize     uint64 // bytes that a container may write; 0 for any number
	Init            bool
	NoNewPrivileges bool
	Seccomp         string // "" for the built-in profile, "unconfined", or a profile as JSON
	DNS             []netip.Addr
	DNSOptions      []string
	DNSSearch       []string
	HostGateways    []netip.Addr // what host-gateway stands for; none for the bridge's address
	PublishIP       netip.Addr   // of ports that name no address of the host
	OOMAdjusted     bool         // the daemon has an oom_score_adj of its own, which containers are not to inherit
}

// Defaults holds the settings that are in force. They are replaced as a whole,
// while containers are made and started.
type Defaults struct{ now atomic.Pointer[Settings] }

// NewDefaults begins with s.
func NewDefaults(s Settings) *Defaults {
	d := &Defaults{}
	d.Set(s)
	return d
}

// Set puts s in force for the next create and the next start.
func (d *Defaults) Set(s Settings) { d.now.Store(&s) }

// Get gives those in force, which nobody changes.
func (d *Defaults) Get() *Settings { return d.now.Load() }

// seesAllGroups tells that a container that does not say has the host's namespace
// of control groups: a privileged one on cgroup v1, as engines before v2 had it.
func seesAllGroups(h *wire.HostConfig) bool {
	unified, err := cgroupfs.Unified()
	return h.Privileged && err == nil && !unified
}

// fill writes into a request what it leaves to the daemon.
func (s *Settings) fill(req *Request) {
	h := &wire.HostConfig{}
	if req.HostConfig != nil {
		copied := *req.HostConfig
		h = &copied
	}
	req.HostConfig = h
	if h.ShmSize == 0 {
		h.ShmSize = s.ShmSize
	}
	if h.IpcMode == "" {
		h.IpcMode = s.IpcMode
	}
	if h.CgroupnsMode == "" && !seesAllGroups(h) {
		h.CgroupnsMode = s.CgroupnsMode
	}
	h.Ulimits = slices.Clone(h.Ulimits)
	for _, limit := range s.Ulimits {
		if !slices.ContainsFunc(h.Ulimits, func(u *wire.Ulimit) bool { return u != nil && u.Name == limit.Name }) {
			copied := *limit
			h.Ulimits = append(h.Ulimits, &copied)
		}
	}
}

// WantsInit tells whether the container's first process is the init program.
func (s *Settings) WantsInit(h *wire.HostConfig) bool {
	if h.Init != nil {
		return *h.Init
	}
	return s.Init && h.PidMode == ""
}
