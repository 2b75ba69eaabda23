package build

import (
	"encoding/json"

	wire "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/internal/cgroupfs"
)

// Limits bound the steps of a job beyond what its definition says, as the builder
// of old lets its clients. They change no key: who has them in vain gets an error.
type Limits struct {
	Memory, MemorySwap             int64 // bytes
	CPUShares, CPUPeriod, CPUQuota int64
	CpusetCpus, CpusetMems         string
	// Network is one of the daemon's, or "container:" with a container's name;
	// "" is the default bridge.
	Network string
}

// limits are those of a vertex: the job's, or in their place what the front end says of
// this one.
func (j *Job) limits(v *vertex) *Limits {
	l := j.options.Limits
	r := v.meta.GetLinuxResources()
	if r == nil {
		return &l
	}
	if r.Memory != 0 || r.MemorySwap != 0 {
		l.Memory, l.MemorySwap = r.Memory, r.MemorySwap
	}
	for _, n := range []struct {
		to   *int64
		from int64
	}{{&l.CPUShares, int64(r.CpuShares)}, {&l.CPUPeriod, int64(r.CpuPeriod)}, {&l.CPUQuota, r.CpuQuota}} {
		if n.from != 0 {
			*n.to = n.from
		}
	}
	if r.CpusetCpus != "" {
		l.CpusetCpus = r.CpusetCpus
	}
	if r.CpusetMems != "" {
		l.CpusetMems = r.CpusetMems
	}
	return &l
}

// set puts the limits into a step's request, where they are Docker's to refuse.
func (l *Limits) set(h *wire.HostConfig) error {
	h.Memory, h.MemorySwap = l.Memory, l.MemorySwap
	h.CPUShares, h.CPUPeriod, h.CPUQuota = l.CPUShares, l.CPUPeriod, l.CPUQuota
	h.CpusetCpus, h.CpusetMems = l.CpusetCpus, l.CpusetMems
	if err := spec.CheckLimits(h); err != nil || h.Memory == 0 {
		return err
	}
	if h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory // as much swap as memory
	}
	groups, err := cgroupfs.Host()
	if err == nil && !groups.CountsSwap() {
		h.MemorySwap = -1
	}
	return err
}

// flight names an execution that jobs share: those with other limits have one of
// their own, since it may fail by them.
func (l *Limits) flight(key digest.Digest) digest.Digest {
	if *l == (Limits{}) {
		return key
	}
	text, _ := json.Marshal(l) // numbers and strings
	return digest.FromString(key.String() + string(text))
}
