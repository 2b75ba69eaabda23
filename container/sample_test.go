package container

import (
	"testing"

	wire "github.com/moby/moby/api/types/container"
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
