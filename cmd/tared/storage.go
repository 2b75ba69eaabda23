package main

import (
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// readStorageOpts reads --storage-opt: how much a container may write that does not say.
func (o *options) readStorageOpts() error {
	for _, opt := range o.StorageOpts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			return fault.New(fault.Invalid, "unable to parse storage-opt %q: want KEY=VALUE", opt)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "overlay.size", "overlay2.size":
			n, err := units.RAMInBytes(strings.TrimSpace(value))
			if err != nil || n < 0 {
				return fault.New(fault.Invalid, "invalid storage-opt %q: want a number of bytes, or one with a unit, such as 10G", opt)
			}
			o.storageSize = uint64(n)
		case "overlay.override_kernel_check", "overlay2.override_kernel_check": // long without meaning
			if _, err := strconv.ParseBool(value); err != nil {
				return fault.New(fault.Invalid, "invalid storage-opt %q: want true or false", opt)
			}
		default:
			return fault.New(fault.NotImplemented, "the storage-opt %s is not supported: overlay2.size is", key)
		}
	}
	return nil
}

// checkStorageSize refuses a bound that the storage cannot keep.
func (o *options) checkStorageSize(layers *snapshot.Store) error {
	if o.storageSize == 0 {
		return nil
	}
	if err := layers.CanLimit(); err != nil {
		return fault.New(fault.Invalid, "Storage option overlay2.size not supported. Filesystem does not support Project Quota: %w", err)
	}
	return nil
}
