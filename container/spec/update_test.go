package spec

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/blkiodev"
	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

func TestChange(t *testing.T) {
	many, none := int64(20), int64(0)
	full := wire.Resources{Memory: 100 << 20, MemorySwap: 200 << 20, MemoryReservation: 50 << 20, CPUShares: 512, CPUPeriod: 50_000, CPUQuota: 10_000,
		CpusetCpus: "0", CpusetMems: "0", PidsLimit: &many, BlkioWeight: 300, CPURealtimePeriod: 1000, CPURealtimeRuntime: 500}
	for _, test := range []struct {
		name     string
		from, to wire.Resources
		want     string
	}{
		{"nothing", full, full, `{}`},
		{"all", wire.Resources{}, full, `{"memory":{"limit":104857600,"reservation":52428800,"swap":209715200},` +
			`"cpu":{"shares":512,"quota":10000,"period":50000,"realtimeRuntime":500,"realtimePeriod":1000,"cpus":"0","mems":"0"},` +
			`"pids":{"limit":20},"blockIO":{"weight":300}}`},
		{"swap brings memory", full, wire.Resources{Memory: 100 << 20, MemorySwap: -1, MemoryReservation: 50 << 20, CPUShares: 512, CPUPeriod: 50_000, CPUQuota: 10_000,
			CpusetCpus: "0", CpusetMems: "0", PidsLimit: &many, BlkioWeight: 300, CPURealtimePeriod: 1000, CPURealtimeRuntime: 500},
			`{"memory":{"limit":104857600,"swap":-1}}`},
		{"back to none", wire.Resources{Memory: 1, MemorySwap: 2, MemoryReservation: 1, CPUShares: 2, NanoCPUs: 5e8, PidsLimit: &many, BlkioWeight: 20}, wire.Resources{PidsLimit: &none},
			`{"memory":{"limit":-1,"reservation":-1,"swap":-1},"cpu":{"shares":1024,"quota":-1,"period":100000},"pids":{"limit":-1},"blockIO":{"weight":100}}`},
		{"part of the CPUs", wire.Resources{}, wire.Resources{NanoCPUs: 15e8}, `{"cpu":{"quota":150000,"period":100000}}`},
		{"no limit either way", wire.Resources{}, wire.Resources{PidsLimit: &none}, `{}`},
	} {
		change, err := Change(&test.from, &test.to)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(change)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, want %s, %v", test.name, got, test.want, err)
		}
	}
}

func TestChangedRates(t *testing.T) {
	rate := func(minor int64, n uint64) specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: n}
		d.Major, d.Minor = 7, minor
		return d
	}
	from := []specs.LinuxThrottleDevice{rate(0, 10), rate(1, 20), rate(2, 30)}
	to := []specs.LinuxThrottleDevice{rate(1, 20), rate(2, 31), rate(3, 40)}
	if got, want := changedRates(from, to), []specs.LinuxThrottleDevice{rate(2, 31), rate(3, 40), rate(0, 0)}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	gone := wire.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/dev/no-such-disk", Rate: 5}}}
	if change, err := Change(&gone, &wire.Resources{}); err != nil || change.BlockIO != nil {
		t.Errorf("a disk that has gone: %+v, %v", change, err)
	}
	if _, err := Change(&wire.Resources{}, &gone); !errors.Is(err, fault.Invalid) {
		t.Errorf("a disk that is not there: %v", err)
	}
}
