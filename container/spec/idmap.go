package spec

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
)

// IDMap says that a mount shows its files as those of other owners, which they
// keep on disk (mount_setattr(2), MOUNT_ATTR_IDMAP). Without maps of its own the
// owner of what is mounted is shown as the container's user, and the other way
// round: what that user makes belongs to the owner on disk.
type IDMap struct {
	UIDs, GIDs []IDRange `json:",omitempty"`
}

// IDRange is some IDs on disk and what they are in the container.
type IDRange struct{ Disk, Shown, Count uint32 }

// idmapWord is the word of -v and --mount.
const idmapWord = "idmap"

// maxRanges is how many a map may have, user_namespaces(7).
const maxRanges = 340

// parseIDMap reads idmap[=uids=DISK-SHOWN-COUNT[#…][;gids=…]]. Groups are mapped as
// users where they have no map of their own.
func parseIDMap(word string) (*IDMap, error) {
	text, explicit := strings.CutPrefix(word, idmapWord+"=")
	if !explicit {
		return &IDMap{}, nil
	}
	bad := func(why string) error {
		return fault.New(fault.Invalid, "invalid %q: %s: want idmap=uids=DISK-SHOWN-COUNT, with #DISK-SHOWN-COUNT for more and ;gids=… for groups", word, why)
	}
	m := &IDMap{}
	for part := range strings.SplitSeq(text, ";") {
		kind, ranges, _ := strings.Cut(part, "=")
		to := map[string]*[]IDRange{"uids": &m.UIDs, "gids": &m.GIDs}[kind]
		if to == nil || *to != nil {
			return nil, bad(strconv.Quote(part) + " is neither uids= nor gids=, once each")
		}
		var err error
		if *to, err = parseRanges(ranges); err != nil {
			return nil, bad(err.Error())
		}
	}
	if m.UIDs == nil {
		return nil, bad("there is no map of users")
	}
	if m.GIDs == nil {
		m.GIDs = m.UIDs
	}
	return m, nil
}

func parseRanges(text string) ([]IDRange, error) {
	var list []IDRange
	for one := range strings.SplitSeq(text, "#") {
		var r IDRange
		numbers := strings.Split(one, "-")
		if len(numbers) != 3 {
			return nil, fault.New(fault.Invalid, "%q is not three numbers", one)
		}
		for i, to := range []*uint32{&r.Disk, &r.Shown, &r.Count} {
			n, err := strconv.ParseUint(numbers[i], 10, 32)
			if err != nil {
				return nil, fault.New(fault.Invalid, "%q is no ID", numbers[i])
			}
			*to = uint32(n)
		}
		if end := uint64(max(r.Disk, r.Shown)) + uint64(r.Count); r.Count == 0 || end > lastID {
			return nil, fault.New(fault.Invalid, "%q is no range of IDs", one)
		}
		list = append(list, r)
	}
	if len(list) > maxRanges {
		return nil, fault.New(fault.Invalid, "there are %d ranges, more than %d", len(list), maxRanges)
	}
	for _, start := range []func(IDRange) uint32{func(r IDRange) uint32 { return r.Disk }, func(r IDRange) uint32 { return r.Shown }} {
		sorted := slices.SortedFunc(slices.Values(list), func(a, b IDRange) int { return cmp.Compare(start(a), start(b)) })
		for i := 1; i < len(sorted); i++ {
			if uint64(start(sorted[i-1]))+uint64(sorted[i-1].Count) > uint64(start(sorted[i])) {
				return nil, fault.New(fault.Invalid, "two ranges overlap")
			}
		}
	}
	return list, nil
}

// lastID is the one that is none.
const lastID = 1<<32 - 1

// idsFor maps one owner to one user, and all others to themselves. Nobody can have
// the owner's ID in the container, nor the user's on disk: root in it makes nothing
// that is root's outside. When the two are one there is nothing to map.
func idsFor(owner, user uint32) []IDRange {
	low, high := min(owner, user), max(owner, user)
	list := []IDRange{{Disk: owner, Shown: user, Count: 1}}
	for _, r := range []struct{ from, to uint32 }{{0, low}, {low + 1, high}, {high + 1, lastID}} {
		if r.from < r.to {
			list = append(list, IDRange{r.from, r.from, r.to - r.from})
		}
	}
	return list
}

// mappings is the map as the runtime takes it: the container's IDs are those on
// disk there (runtime specification, config.md, "uidMappings").
func mappings(list []IDRange) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(list))
	for i, r := range list {
		out[i] = specs.LinuxIDMapping{ContainerID: r.Disk, HostID: r.Shown, Size: r.Count}
	}
	return out
}

// on puts the map on a mount of what the owner has, for the container's user: one
// of users, unless that is nil.
func (m *IDMap) on(out *specs.Mount, owner Owner, user Identity, users *userns.Map) {
	uids, gids := m.UIDs, m.GIDs
	if uids == nil {
		if owner.UID == user.UID && owner.GID == user.GID && users == nil {
			return
		}
		uids, gids = idsFor(owner.UID, user.UID), idsFor(owner.GID, user.GID)
	}
	if users != nil {
		uids, gids = within(uids, users.UIDs), within(gids, users.GIDs)
	}
	out.UIDMappings, out.GIDMappings = mappings(uids), mappings(gids)
}

// within is a map whose IDs in the container are those of a user namespace: what
// these are outside. Those that it does not have are left out.
func within(list []IDRange, users []userns.Range) []IDRange {
	var out []IDRange
	for _, r := range list {
		for _, u := range users {
			first, end := max(r.Shown, u.ID), min(uint64(r.Shown)+uint64(r.Count), uint64(u.ID)+uint64(u.Count))
			if uint64(first) < end {
				out = append(out, IDRange{Disk: r.Disk + (first - r.Shown), Shown: u.Host + (first - u.ID), Count: uint32(end - uint64(first))})
			}
		}
	}
	return out
}

// outside is the map of a user namespace as the runtime takes it. As that of a mount
// it has the owners on disk be IDs of the container.
func outside(users []userns.Range) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(users))
	for i, u := range users {
		out[i] = specs.LinuxIDMapping{ContainerID: u.ID, HostID: u.Host, Size: u.Count}
	}
	return out
}

// Owner is whom something on the host belongs to.
type Owner struct{ UID, GID uint32 }
