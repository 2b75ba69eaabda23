package spec

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
)

// propagation is what the container's mount namespace starts with. A mount that
// shall follow the host's has to be cloned before the tie is cut, and one that the
// host follows is only tied as long as nothing above it cuts it.
func propagation(list []Mount) (string, error) {
	out := "rprivate"
	for _, m := range list {
		switch m.Propagation {
		case mount.PropagationSlave, mount.PropagationRSlave:
			if err := checkTied(m.Source, "it is not a shared or slave mount", "shared:", "master:"); err != nil {
				return "", err
			}
			if out != "shared" {
				out = "rslave"
			}
		case mount.PropagationShared, mount.PropagationRShared:
			if err := checkTied(m.Source, "it is not a shared mount", "shared:"); err != nil {
				return "", err
			}
			out = "shared"
		}
	}
	return out, nil
}

// checkTied refuses a source below which mounts are not told as they have to be:
// none of the tags is on the mount that it is in.
func checkTied(source, why string, tags ...string) error {
	if resolved, err := filepath.EvalSymlinks(source); err == nil {
		source = resolved
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	at, tied := "", false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// id parent device root mount-point options [tag:value]… - …
		fields := strings.Fields(lines.Text())
		if len(fields) < 7 {
			continue
		}
		point := procfs.Unescape(fields[4])
		// Of two at one place the later one is on top.
		if len(point) >= len(at) && (point == "/" || source == point || strings.HasPrefix(source, point+"/")) {
			has := fields[6 : 6+max(slices.Index(fields[6:], "-"), 0)]
			at, tied = point, slices.ContainsFunc(tags, func(tag string) bool {
				return slices.ContainsFunc(has, func(t string) bool { return strings.HasPrefix(t, tag) })
			})
		}
	}
	if !tied {
		return fault.New(fault.Invalid, "path %s is mounted on %s but %s", source, at, why)
	}
	return lines.Err()
}
