package keeper

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// update changes limits of the container. One change waits for the other, so
// that a refused one takes back no more than its own.
func (k *keeper) update(ctx context.Context, r *specs.LinuxResources) error {
	k.limits.Lock()
	defer k.limits.Unlock()
	switch phase := k.current().Phase; phase {
	case supervise.PhaseCreated, supervise.PhaseRunning:
	default:
		return fault.New(fault.Conflict, "the limits of a container that is %s cannot be changed", phase)
	}
	return k.box.update(context.WithoutCancel(ctx), r)
}
