package client

import (
	"context"
	"net/url"
)

// DiskUsage tells what takes how much of the disk. A kind that was not asked
// for, or that the daemon does not have, is nil.
type DiskUsage struct {
	ImageUsage      *Usage[ImageSummary]     `json:",omitempty"`
	ContainerUsage  *Usage[ContainerSummary] `json:",omitempty"`
	VolumeUsage     *Usage[Volume]           `json:",omitempty"`
	BuildCacheUsage *Usage[CacheRecord]      `json:",omitempty"`
}

// SystemUsage is DiskUsage with what Tare's daemon tells beyond Docker's.
type SystemUsage struct {
	DiskUsage
	LogUsage *Usage[LogSize] `json:",omitempty"`
}

// LogSize is how much disk a container's log takes, in bytes.
type LogSize struct {
	ID, Name, Driver string
	Running          bool
	Size             int64
}

// Usage is the disk space of one kind of object, in bytes. Items are listed
// only where they are asked for.
type Usage[T any] struct {
	ActiveCount int64 `json:",omitempty"`
	TotalCount  int64 `json:",omitempty"`
	Reclaimable int64 `json:",omitempty"`
	TotalSize   int64 `json:",omitempty"`
	Items       []T   `json:",omitempty"`
}

// Volume is one volume.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string
	Scope      string
	CreatedAt  string `json:",omitempty"`
	Labels     map[string]string
	Options    map[string]string
	UsageData  *VolumeUsage `json:",omitempty"`
}

// VolumeUsage is how much a volume holds for how many; -1 is not known.
type VolumeUsage struct {
	RefCount int64
	Size     int64 // bytes
}

// CacheRecord is one part of the build cache. Times are RFC 3339.
type CacheRecord struct {
	ID          string
	Parents     []string `json:" Parents,omitempty"` // the API's own space
	Type        string
	Description string
	InUse       bool
	Shared      bool
	Size        int64 // bytes
	CreatedAt   string
	LastUsedAt  *string
	UsageCount  int
}

// oldDiskUsage is the answer before API 1.52: the objects alone.
type oldDiskUsage struct {
	SystemUsage
	LayersSize int64
	Images     []ImageSummary
	Containers []ContainerSummary
	Volumes    []Volume
	BuildCache []CacheRecord
}

// DiskUsage asks what takes the disk's space, with the objects themselves where
// items says so.
func (c *Client) DiskUsage(ctx context.Context, items bool) (SystemUsage, error) {
	query := url.Values{}
	flag(query, "verbose", items)
	old, err := fetch[oldDiskUsage](ctx, c, "GET", "/system/df", query, nil)
	if err != nil {
		return SystemUsage{}, err
	}
	if old.ImageUsage == nil && old.Images != nil {
		old.ImageUsage = old.images()
	}
	if old.ContainerUsage == nil && old.Containers != nil {
		old.ContainerUsage = old.containers()
	}
	if old.VolumeUsage == nil && old.Volumes != nil {
		old.VolumeUsage = old.volumes()
	}
	if old.BuildCacheUsage == nil && old.BuildCache != nil {
		old.BuildCacheUsage = old.cache()
	}
	return old.SystemUsage, nil
}

// images counts as reclaimable what the images in use do not have to
// themselves, as Docker's client did.
func (o *oldDiskUsage) images() *Usage[ImageSummary] {
	u := &Usage[ImageSummary]{TotalCount: int64(len(o.Images)), TotalSize: o.LayersSize, Reclaimable: o.LayersSize, Items: o.Images}
	for i := range o.Images {
		if image := &o.Images[i]; image.Containers > 0 {
			u.ActiveCount++
			if image.Size >= 0 && image.SharedSize >= 0 {
				u.Reclaimable -= image.Size - image.SharedSize
			}
		}
	}
	return u
}

func (o *oldDiskUsage) containers() *Usage[ContainerSummary] {
	u := &Usage[ContainerSummary]{TotalCount: int64(len(o.Containers)), Items: o.Containers}
	for i := range o.Containers {
		c := &o.Containers[i]
		u.TotalSize += c.SizeRw
		switch c.State {
		case "running", "paused", "restarting":
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

func (o *oldDiskUsage) volumes() *Usage[Volume] {
	u := &Usage[Volume]{TotalCount: int64(len(o.Volumes)), Items: o.Volumes}
	for i := range o.Volumes {
		data := o.Volumes[i].UsageData
		if data == nil {
			continue
		}
		size := max(data.Size, 0)
		u.TotalSize += size
		if data.RefCount > 0 {
			u.ActiveCount++
		} else if data.RefCount == 0 {
			u.Reclaimable += size
		}
	}
	return u
}

func (o *oldDiskUsage) cache() *Usage[CacheRecord] {
	u := &Usage[CacheRecord]{TotalCount: int64(len(o.BuildCache)), Items: o.BuildCache}
	for i := range o.BuildCache {
		r := &o.BuildCache[i]
		if !r.Shared {
			u.TotalSize += r.Size
		}
		if r.InUse {
			u.ActiveCount++
		} else if !r.Shared {
			u.Reclaimable += r.Size
		}
	}
	return u
}
