package server

import (
	"context"
	"net/http"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/container/listing"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/server/version"
)

// usageHandlers answer what takes how much space, and which of it nobody needs.
type usageHandlers struct {
	containers Listing
	images     Inventory
	volumes    Volumes
	logs       Logs
	builder    Builder
}

func (h *usageHandlers) routes() []route {
	return []route{{method: "GET", pattern: "/system/df", handle: h.df}}
}

func (h *usageHandlers) df(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	wanted := map[system.DiskUsageObject]bool{}
	if !r.version.Before(42) {
		for _, kind := range r.Form["type"] {
			switch k := system.DiskUsageObject(kind); k {
			case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
				wanted[k] = true
			default:
				return fault.New(fault.Invalid, "unknown object type: %s", kind)
			}
		}
	}
	usage := system.DiskUsage{}
	want := func(k system.DiskUsageObject) bool { return len(wanted) == 0 || wanted[k] }
	var err error
	if want(system.ImageObject) {
		if usage.ImageUsage, err = h.images.Usage(r.Context()); err != nil {
			return err
		}
	}
	if want(system.ContainerObject) {
		if usage.ContainerUsage, err = h.containerUsage(r.Context()); err != nil {
			return err
		}
	}
	if want(system.VolumeObject) {
		if usage.VolumeUsage, err = h.volumes.Usage(r.Context()); err != nil {
			return err
		}
	}
	if want(system.BuildCacheObject) {
		if usage.BuildCacheUsage, err = h.builder.Usage(r.Context()); err != nil {
			return err
		}
	}
	var logs *version.LogUsage
	if len(wanted) == 0 {
		logs = h.logUsage(r.flag("verbose"))
	}
	return writeJSON(w, http.StatusOK, r.version.Usage(usage, logs, r.flag("verbose")))
}

func (h *usageHandlers) containerUsage(ctx context.Context) (*wire.DiskUsage, error) {
	list, err := h.containers.List(ctx, listing.Options{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	u := &wire.DiskUsage{TotalCount: int64(len(list)), Items: list}
	for _, c := range list {
		u.TotalSize += c.SizeRw
		switch c.State {
		case wire.StateRunning, wire.StatePaused, wire.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u, nil
}

func (h *usageHandlers) logUsage(items bool) *version.LogUsage {
	list := h.logs.Sizes()
	u := &version.LogUsage{TotalCount: int64(len(list))}
	for _, l := range list {
		u.TotalSize += l.Size
		if l.Running {
			u.ActiveCount++
		} else {
			u.Reclaimable += l.Size
		}
	}
	if items {
		u.Items = list
	}
	return u
}
