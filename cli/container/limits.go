package container

import (
	"encoding/csv"
	"math/big"
	"os"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// fillLimits adds what is limited by the kernel.
func (c *createFlags) fillLimits(r *client.CreateRequest) error {
	h := r.HostConfig
	h.Memory, h.MemorySwap, h.MemoryReservation = c.memory.N, c.memorySwap.N, c.memoryReserve.N
	if c.swappiness != -1 {
		if c.swappiness < -1 || c.swappiness > 100 {
			return fault.New(fault.Invalid, "invalid value: %d. Valid memory swappiness range is 0-100", c.swappiness)
		}
		h.MemorySwappiness = &c.swappiness
	}
	h.NanoCpus, h.CpuShares, h.CpuPeriod, h.CpuQuota = int64(c.cpus), c.cpuShares, c.cpuPeriod, c.cpuQuota
	h.CpuRealtimePeriod, h.CpuRealtimeRuntime = c.cpuRTPeriod, c.cpuRTRuntime
	h.CpusetCpus, h.CpusetMems = c.cpusetCPUs, c.cpusetMems
	h.OomScoreAdj = c.oomScore
	if c.noOOM {
		h.OomKillDisable = &c.noOOM
	}
	if c.pids != 0 {
		h.PidsLimit = &c.pids
	}
	h.Ulimits = c.ulimits
	h.BlkioWeight = c.blkioWeight
	for _, w := range c.weightDevices.Values {
		weight, err := parseWeight(w)
		if err != nil {
			return err
		}
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, weight)
	}
	for _, t := range []struct {
		from  *option.List
		parse func(string) (client.ThrottleDevice, error)
		to    *[]client.ThrottleDevice
	}{{c.readBps, parseBytesRate, &h.BlkioDeviceReadBps}, {c.writeBps, parseBytesRate, &h.BlkioDeviceWriteBps},
		{c.readIOps, parseRate, &h.BlkioDeviceReadIOps}, {c.writeIOps, parseRate, &h.BlkioDeviceWriteIOps}} {
		for _, v := range t.from.Values {
			rate, err := t.parse(v)
			if err != nil {
				return err
			}
			*t.to = append(*t.to, rate)
		}
	}
	return nil
}

// fillDevices adds --device, --device-cgroup-rule and --gpus.
func (c *createFlags) fillDevices(r *client.CreateRequest) error {
	h := r.HostConfig
	var cdi []string
	for _, d := range c.devices.Values {
		if vendor, rest, ok := strings.Cut(d, "/"); ok && vendor != "" && strings.Contains(rest, "=") {
			cdi = append(cdi, d)
			continue
		}
		m, err := parseDevice(d)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, m)
	}
	if len(cdi) > 0 {
		h.DeviceRequests = append(h.DeviceRequests, client.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	h.DeviceCgroupRules = c.deviceRules.Values
	for _, g := range c.gpus.Values {
		request, err := parseGPU(g)
		if err != nil {
			return err
		}
		h.DeviceRequests = append(h.DeviceRequests, request)
	}
	return nil
}

// parseDevice reads path[:path in the container][:permissions].
func parseDevice(s string) (client.DeviceMapping, error) {
	parts := strings.Split(s, ":")
	m := client.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	valid := func(mode string) bool { return mode != "" && strings.Trim(mode, "rwm") == "" && len(mode) <= 3 }
	switch len(parts) {
	case 1:
	case 2:
		if valid(parts[1]) {
			m.CgroupPermissions = parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 3:
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
		if !valid(parts[2]) {
			return m, fault.New(fault.Invalid, "bad mode specified: %s", parts[2])
		}
	default:
		return m, fault.New(fault.Invalid, "invalid device specification: %s", s)
	}
	// A directory stands for the devices in it, which the daemon finds out.
	if _, err := os.Lstat(m.PathOnHost); err != nil && !strings.HasPrefix(m.PathOnHost, "/") {
		return m, fault.New(fault.Invalid, "invalid device specification: %s: the path must be absolute", s)
	}
	return m, nil
}

// parseGPU reads all, a number, or count=N,device=ID,capabilities=X,driver=D,
// options=K=V; a field with commas of its own stands in quotes.
func parseGPU(s string) (client.DeviceRequest, error) {
	r := client.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return r, fault.New(fault.Invalid, "invalid GPU request %q: %w", s, err)
	}
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			key, value = "count", field
		}
		if seen[key] {
			return r, fault.New(fault.Invalid, "gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "count":
			if r.Count, err = gpuCount(value); err != nil {
				return r, err
			}
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "driver":
			r.Driver = value
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			pairs, err := csv.NewReader(strings.NewReader(value)).Read()
			if err != nil {
				return r, fault.New(fault.Invalid, "failed to read gpu options: %w", err)
			}
			r.Options = (&option.List{Values: pairs}).Map()
		default:
			return r, fault.New(fault.Invalid, "unexpected key '%s' in '%s'", key, field)
		}
	}
	if !seen["count"] && len(r.DeviceIDs) == 0 {
		r.Count = 1
	}
	return r, nil
}

// gpuCount is -1 for all.
func gpuCount(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "invalid count (%s): value must be either \"all\" or an integer", s)
	}
	return n, nil
}

// cpus is the flag --cpus, in units of 10⁻⁹ CPUs.
type cpus int64

func (c *cpus) String() string {
	if *c == 0 {
		return ""
	}
	return new(big.Rat).SetFrac64(int64(*c), 1e9).FloatString(3)
}

func (c *cpus) Type() string { return "decimal" }

func (c *cpus) Set(s string) error {
	v, ok := new(big.Rat).SetString(s)
	if !ok {
		return fault.New(fault.Invalid, "failed to parse %s as a rational number", s)
	}
	nano := v.Mul(v, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return fault.New(fault.Invalid, "value is too precise")
	}
	*c = cpus(nano.Num().Int64())
	return nil
}
