package container

import (
	"github.com/docker/go-units"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// storageSize is how much a container may write into its own layer, in bytes;
// 0 for no limit.
func storageSize(h *wire.HostConfig) (uint64, error) {
	for option := range h.StorageOpt {
		if option != "size" {
			return 0, fault.New(fault.Invalid, "unknown option %s (StorageOpt): size is known", option)
		}
	}
	text, asked := h.StorageOpt["size"]
	if !asked {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "invalid size %q (StorageOpt): want a number of bytes, or one with a unit, such as 10G", text)
	}
	return uint64(n), nil
}

// checkStorage refuses a limit that the storage cannot keep.
func checkStorage(layers Snapshots, h *wire.HostConfig) error {
	if len(h.StorageOpt) == 0 {
		return nil
	}
	if _, err := storageSize(h); err != nil {
		return err
	}
	return layers.CanLimit()
}

// storageLimit is the container's limit, or that of all that say nothing; 0 for none.
func (s *Service) storageLimit(r *Record) (uint64, error) {
	if len(r.HostConfig.StorageOpt) == 0 {
		return s.cfg.Defaults.Get().StorageSize, nil
	}
	return storageSize(r.HostConfig)
}

// limitStorage puts the container's limit in force.
func (s *Service) limitStorage(r *Record) error {
	size, err := s.storageLimit(r)
	if err != nil || size == 0 {
		return err
	}
	return s.cfg.Snapshots.Limit(r.ID, size)
}
