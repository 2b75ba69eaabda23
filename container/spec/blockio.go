package spec

import (
	"github.com/moby/moby/api/types/blkiodev"
	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// blockIO is how much of the disks the container gets, nil for all that is
// free. The kernel knows disks by their numbers alone.
func blockIO(h *wire.HostConfig) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	if h.BlkioWeight != 0 {
		weight := h.BlkioWeight
		b.Weight = &weight
	}
	for _, d := range h.BlkioWeightDevice {
		if d == nil {
			return nil, fault.New(fault.Invalid, "invalid BlkioWeightDevice: null")
		}
		if d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return nil, fault.New(fault.Invalid, "Range of blkio weight is from 10 to 1000: the device %s has %d", d.Path, d.Weight)
		}
		major, minor, err := disk("BlkioWeightDevice", d.Path)
		if err != nil {
			return nil, err
		}
		weight := d.Weight
		w := specs.LinuxWeightDevice{Weight: &weight}
		w.Major, w.Minor = major, minor
		b.WeightDevice = append(b.WeightDevice, w)
	}
	for _, t := range []struct {
		field string
		from  []*blkiodev.ThrottleDevice
		to    *[]specs.LinuxThrottleDevice
	}{
		{"BlkioDeviceReadBps", h.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice},
		{"BlkioDeviceWriteBps", h.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{"BlkioDeviceReadIOps", h.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice},
		{"BlkioDeviceWriteIOps", h.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			if d == nil {
				return nil, fault.New(fault.Invalid, "invalid %s: null", t.field)
			}
			major, minor, err := disk(t.field, d.Path)
			if err != nil {
				return nil, err
			}
			limit := specs.LinuxThrottleDevice{Rate: d.Rate}
			limit.Major, limit.Minor = major, minor
			*t.to = append(*t.to, limit)
		}
	}
	if b.Weight == nil && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+
		len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return nil, nil
	}
	return b, nil
}

// disk finds the numbers of a disk of the host.
func disk(field, path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fault.New(fault.Invalid, "invalid %s: stat %s: %w", field, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fault.New(fault.Invalid, "invalid %s: %s is no block device", field, path)
	}
	return int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev))), nil
}
