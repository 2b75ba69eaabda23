package container

import (
	"fmt"
	"os"
	"path/filepath"
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
	return host{boot: strings.TrimSpace(string(boot)), groups: groups, countsSwap: countsSwap(groups.Unified()),
		files: &specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: limit.Cur, Hard: limit.Max}}, nil
}

// countsSwap looks whether the kernel accounts for swap: for version 1 of control
// groups it has to be told so when it boots (swapaccount=1).
func countsSwap(cgroup2 bool) bool {
	file := "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
	if cgroup2 {
		group, err := os.ReadFile("/proc/self/cgroup") // "0::/path"; the root group has no limits
		_, path, ok := strings.Cut(strings.TrimSpace(string(group)), "0::")
		if err != nil || !ok || path == "/" {
			return true
		}
		file = filepath.Join("/sys/fs/cgroup", path, "memory.swap.max")
	}
	_, err := os.Stat(file)
	return err == nil
}
