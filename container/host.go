package container

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/nofile"
)

// host is what does not change of the host while the daemon runs.
type host struct {
	boot       string             // random(4) boot_id
	groups     *cgroupfs.Layout   // its control groups
	countsSwap bool               // the kernel can limit it
	files      *specs.POSIXRlimit // limit of open files of containers that ask for none
}

func lookAtHost() (h host, err error) {
	limit, err := nofile.Original()
	if err != nil {
		return h, fmt.Errorf("cannot find the limit of open files: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return h, err
	}
	groups, err := cgroupfs.Host()
	if err != nil {
		return h, err
	}
	return host{boot: strings.TrimSpace(string(boot)), groups: groups, countsSwap: groups.CountsSwap(),
		files: &specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: limit.Cur, Hard: limit.Max}}, nil
}
