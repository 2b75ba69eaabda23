package spec

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
)

// propagation is what the container's mount namespace starts with. A mount
// that shall follow the host's has to be cloned before the tie is cut.
func propagation(list []specs.Mount) (string, error) {
	out := "rprivate"
	for _, m := range list {
		if m.Type != "bind" || !slices.ContainsFunc(m.Options, func(o string) bool { return o == "slave" || o == "rslave" }) {
			continue
		}
		if err := checkFollows(m.Source); err != nil {
			return "", err
		}
		out = "rslave"
	}
	return out, nil
}

// checkFollows refuses a source below which the host's mounts are told to
// nobody.
func checkFollows(source string) error {
	if resolved, err := filepath.EvalSymlinks(source); err == nil {
		source = resolved
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	at, follows := "", false
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
			tags := fields[6 : 6+max(slices.Index(fields[6:], "-"), 0)]
			at, follows = point, slices.ContainsFunc(tags, func(t string) bool {
				return strings.HasPrefix(t, "shared:") || strings.HasPrefix(t, "master:")
			})
		}
	}
	if !follows {
		return fault.New(fault.Invalid, "path %s is mounted on %s but it is not a shared or slave mount", source, at)
	}
	return lines.Err()
}
