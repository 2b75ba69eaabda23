package criu

import (
	"path"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
)

// home is the group of some processes in a hierarchy: a CgMemberEntry.
type home struct {
	controllers []string
	path        string
	top         string // that of the processes' cgroup namespace; "" where it is the host's
}

// readSet is about one CgSetEntry, where processes are. It adds the groups to homes.
func readSet(entry []byte, homes *[]home) error {
	var inner error
	err := walk(entry, func(number int, _ uint64, value []byte) {
		if number == 2 && inner == nil { // ctls
			var h home
			if h, inner = readHome(value); inner == nil {
				*homes = append(*homes, h)
			}
		}
	})
	if err != nil {
		return err
	}
	return inner
}

func readHome(entry []byte) (h home, err error) {
	prefix := uint64(0)
	var name, group []byte
	err = walk(entry, func(number int, n uint64, value []byte) {
		switch {
		case number == 1 && value != nil:
			name = value
		case number == 2 && value != nil:
			group = value
		case number == 3 && value == nil: // cgns_prefix
			prefix = n
		}
	})
	if err == nil {
		err = within(name, false)
	}
	if err == nil {
		err = within(group, true)
	}
	if err != nil {
		return h, err
	}
	h.controllers, h.path = strings.Split(string(name), ","), string(group)
	if path.Clean("/"+h.path) != h.path || prefix > uint64(len(h.path)) {
		return h, fault.New(fault.Invalid, "the control group's name %q is none", h.path)
	}
	h.top = h.path[:prefix]
	if rest := h.path[prefix:]; rest != "" && rest[0] != '/' {
		return h, fault.New(fault.Invalid, "the cgroup namespace's name %q is none of a group", h.top)
	}
	return h, nil
}

// topOf is the group of a hierarchy that all processes are in or below: their cgroup
// namespace's, or else the innermost; "" for none. Where the hierarchy is not the
// container's, none may be below it.
func topOf(homes []home, controllers []string, ours bool) (string, error) {
	top, namespace, first := "", "", true
	for _, h := range homes {
		if !slices.ContainsFunc(h.controllers, func(c string) bool { return slices.Contains(controllers, c) }) {
			continue
		}
		if first {
			top, namespace, first = h.path, h.top, false
		}
		if h.top != namespace {
			return "", fault.New(fault.Invalid, "processes are in several cgroup namespaces, %q and %q", namespace, h.top)
		}
		if !ours && h.path != top {
			return "", fault.New(fault.Invalid, "processes are in the control groups %q and %q of a hierarchy in which the container has none", top, h.path)
		}
		for top != "/" && h.path != top && !strings.HasPrefix(h.path, top+"/") {
			top = path.Dir(top)
		}
	}
	if namespace != "" {
		top = namespace
	}
	return top, nil
}
