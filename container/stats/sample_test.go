package stats

import (
	"os"
	"reflect"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/internal/cgroupfs"
)

func TestInterfaces(t *testing.T) {
	got := interfaces([]byte(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    9       9    0    0    0     0          0         0        9       9    0    0    0     0       0          0
  eth0:1101      12    3    4    0     0          0         0     5005       6    7    8    0     0       0          0
`))
	want := wire.NetworkStats{RxBytes: 1101, RxPackets: 12, RxErrors: 3, RxDropped: 4, TxBytes: 5005, TxPackets: 6, TxErrors: 7, TxDropped: 8}
	if len(got) != 1 || got["eth0"] != want {
		t.Errorf("%+v", got)
	}
}

func TestMachineCPU(t *testing.T) {
	before, cpus := machineCPU()
	if cpus == 0 || before == 0 {
		t.Fatalf("%d ns on %d processors", before, cpus)
	}
	if after, _ := machineCPU(); after < before {
		t.Errorf("%d ns, then %d", before, after)
	}
	if machineMemory() < 1<<20 {
		t.Errorf("%d bytes of memory", machineMemory())
	}
}

// On version 2 the API has less: what Docker has there.
func TestUnifiedSample(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/memory.events", []byte("max 4\noom 6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stats := &cgroupfs.Stats{Memory: cgroupfs.MemoryStats{Usage: cgroupfs.MemoryUse{Limit: cgroupfs.NoLimit, Usage: 100, Max: 200, Failures: 4}}}
	stats.IO.Bytes = []cgroupfs.IOEntry{{Major: 8, Op: "Read", Value: 1}, {Major: 8, Op: "Write", Value: 2}, {Major: 8, Op: "Discard", Value: 3}}
	unified := &Sampler{groups: &cgroupfs.Layout{V2: &cgroupfs.Hierarchy{}}, memory: 1000}
	group := cgroupfs.Group{"": dir}
	if m := unified.memoryStats(stats, group); m.Usage != 100 || m.Limit != 1000 || m.MaxUsage != 0 || m.Failcnt != 6 {
		t.Errorf("%+v", m)
	}
	want := wire.BlkioStats{IoServiceBytesRecursive: []wire.BlkioStatEntry{{Major: 8, Op: "read", Value: 1}, {Major: 8, Op: "write", Value: 2}}}
	if got := unified.blkioStats(stats, group); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	v1 := &Sampler{groups: &cgroupfs.Layout{V1: []cgroupfs.Hierarchy{{Controllers: []string{"blkio"}}}}, memory: 1000}
	if m := v1.memoryStats(stats, cgroupfs.Group{}); m.MaxUsage != 200 || m.Failcnt != 4 {
		t.Errorf("v1: %+v", m)
	}
	if got := v1.blkioStats(stats, cgroupfs.Group{}); len(got.IoServiceBytesRecursive) != 3 || got.SectorsRecursive == nil {
		t.Errorf("v1: %+v", got)
	}
}
