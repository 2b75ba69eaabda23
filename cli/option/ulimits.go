package option

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Ulimits is the flag --ulimit, name=soft[:hard]. A later one of a name
// replaces an earlier one.
type Ulimits []client.Ulimit

func (u *Ulimits) String() string { return "" }
func (u *Ulimits) Type() string   { return "ulimit" }

func (u *Ulimits) Set(s string) error {
	name, limits, ok := strings.Cut(s, "=")
	if !ok {
		return fault.New(fault.Invalid, "invalid ulimit argument: %s", s)
	}
	switch name {
	case "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack":
	default:
		return fault.New(fault.Invalid, "invalid ulimit type: %s", name)
	}
	softText, hardText, two := strings.Cut(limits, ":")
	if !two {
		hardText = softText
	}
	soft, err := strconv.ParseInt(softText, 10, 64)
	if err != nil {
		return err
	}
	hard, err := strconv.ParseInt(hardText, 10, 64)
	if err != nil {
		return err
	}
	if hard != -1 && (soft == -1 || soft > hard) {
		return fault.New(fault.Invalid, "ulimit soft limit must be less than or equal to hard limit: %d > %d", soft, hard)
	}
	*u = slices.DeleteFunc(*u, func(l client.Ulimit) bool { return l.Name == name })
	*u = append(*u, client.Ulimit{Name: name, Soft: soft, Hard: hard})
	slices.SortFunc(*u, func(a, b client.Ulimit) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
