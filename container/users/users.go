// Package users decides what the IDs of containers are outside: the host's, those of the
// daemon's map, another container's whose namespaces are shared, or some that nobody has.
package users

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// IDs say what the IDs of containers may be outside.
type IDs struct {
	// Remap is what they are of containers that ask for nothing; nil for the same.
	Remap *userns.Map
	// Auto is the user whose ranges of subuid(5) and subgid(5) those have for
	// themselves that ask for it.
	Auto string
	// SubUIDs and SubGIDs are these files.
	SubUIDs, SubGIDs string
}

// The modes of HostConfig.UsernsMode beside "" and Docker's host: podman's word.
const (
	usernsHost = "host"
	usernsAuto = "auto"
)

// autoSize is how many IDs those have that do not say: all that images use to have,
// nobody (65534) and Debian's dynamic users among them.
const autoSize = 1 << 16

// parseAuto reads auto[:size=N].
func parseAuto(mode wire.UsernsMode) (size uint32, auto bool, err error) {
	word, options, given := strings.Cut(string(mode), ":")
	if word != usernsAuto {
		return 0, false, nil
	}
	size = autoSize
	if !given {
		return size, true, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		if key != "size" || err != nil || n == 0 || n >= 1<<31 {
			return 0, true, fault.New(fault.Invalid, "invalid UsernsMode %q: %q is not known: want auto or auto:size=N, with N IDs for the container", mode, option)
		}
		size = uint32(n)
	}
	return size, true, nil
}

// Check refuses what cannot be in a user namespace, in Docker's words. The runtime is
// to make the container; without a path it is the built-in one.
func (u *IDs) Check(h *wire.HostConfig, runtime supervise.Runtime) error {
	_, auto, err := parseAuto(h.UsernsMode)
	switch {
	case err != nil:
		return err
	case !auto && !h.UsernsMode.Valid():
		return fault.New(fault.Invalid, "invalid UsernsMode %q: want host, auto or auto:size=N", h.UsernsMode)
	case h.UsernsMode == usernsHost, !auto && u.Remap == nil:
		return nil
	case h.Privileged:
		return fault.New(fault.Invalid, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode.IsHost():
		return fault.New(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode.IsHost():
		return fault.New(fault.Invalid, "cannot share the host PID namespace when user namespaces are enabled")
	case runtime.Path != "" && !mapsOwners(runtime):
		return fault.New(fault.NotImplemented, "the runtime %s cannot be used for a container with a user namespace: by its own account (%s features) it does not map the owners of volumes (runc does from 1.2 on); use the built-in one, or --userns=host", h.Runtime, runtime.Path)
	}
	return nil
}

// Allotment gives IDs to containers, and keeps apart those of containers that are being
// made. Those that are made have theirs in their records: they are free again when
// nobody has a record with them. It is safe for concurrent use.
type Allotment struct {
	ids   IDs
	store *record.Store

	mu     sync.Mutex
	coming map[string]userns.Map // by the container's ID
}

// New begins with the IDs that the records have.
func New(ids IDs, store *record.Store) *Allotment {
	return &Allotment{ids: ids, store: store, coming: map[string]userns.Map{}}
}

// Settle tells that a container has its record, or will never have one.
func (a *Allotment) Settle(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.coming, id)
}

// Give decides what the IDs of a new container are outside. They are its own until
// Settle is called.
func (a *Allotment) Give(r *record.Record) error {
	if r.HostConfig.UsernsMode == usernsHost {
		return nil
	}
	size, auto, err := parseAuto(r.HostConfig.UsernsMode)
	if err != nil {
		return err
	}
	if shared, err := a.share(r, auto || a.ids.Remap != nil); shared || err != nil {
		return err
	}
	if !auto {
		r.Users = a.ids.Remap
		return nil
	}
	r.Users, err = a.allot(r.ID, size)
	return err
}

// share has a container that shares a namespace with another be in the user
// namespace of that one, which owns the namespace, as Docker does.
func (a *Allotment) share(r *record.Record, wants bool) (shared bool, err error) {
	h := r.HostConfig
	var first *record.Record
	for _, id := range []string{h.NetworkMode.ConnectedContainer(), h.PidMode.Container(), h.IpcMode.Container()} {
		if id == "" {
			continue
		}
		other, err := a.store.Find(id)
		if err != nil {
			return false, fault.New(fault.Invalid, "%w", err) // not NotFound, by which clients know a missing image
		}
		if other.Users == nil && wants {
			return false, fault.New(fault.Invalid, "container %s, whose namespace is to be shared, is in the host's user namespace: use --userns=host", other.Name)
		}
		if first != nil && a.owner(first) != a.owner(&other) {
			return false, fault.New(fault.Invalid, "the containers %s and %s, whose namespaces are to be shared, are in different user namespaces", first.Name, other.Name)
		}
		first = &other
	}
	if first == nil || first.Users == nil {
		return first != nil, nil
	}
	r.Users, r.UsersOf = first.Users, first.ID
	return true, nil
}

// owner is the container whose user namespace it is, "" for the host's.
func (a *Allotment) owner(r *record.Record) string {
	if r.Users == nil {
		return ""
	}
	for r.UsersOf != "" {
		other, err := a.store.Find(r.UsersOf)
		if err != nil {
			return r.UsersOf
		}
		r = &other
	}
	return r.ID
}

// allot finds IDs that no other container has.
func (a *Allotment) allot(id string, size uint32) (*userns.Map, error) {
	u := &a.ids
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := slices.Collect(maps.Values(a.coming))
	for _, r := range a.store.All() {
		if r.Users != nil {
			taken = append(taken, *r.Users)
		}
	}
	m := userns.Map{}
	for _, kind := range []struct {
		file string
		to   *[]userns.Range
		of   func(userns.Map) []userns.Range
	}{
		{u.SubUIDs, &m.UIDs, func(m userns.Map) []userns.Range { return m.UIDs }},
		{u.SubGIDs, &m.GIDs, func(m userns.Map) []userns.Range { return m.GIDs }},
	} {
		spans, err := userns.Subordinate(kind.file, u.Auto)
		if err != nil {
			return nil, err
		}
		if len(spans) == 0 {
			return nil, fault.New(fault.Invalid, "--userns=auto needs IDs to give to containers: add a line %s:2147483648:1073741824, or of other IDs that nobody has, to %s", u.Auto, kind.file)
		}
		var used []userns.Range
		for _, other := range taken {
			used = append(used, kind.of(other)...)
		}
		first, ok := userns.Free(spans, used, size)
		if !ok {
			return nil, fault.New(fault.Unavailable, "no %d IDs in a row are left of those of %s in %s: remove containers that have some, ask for fewer by --userns=auto:size=N, or add a line", size, u.Auto, kind.file)
		}
		*kind.to = []userns.Range{{Host: first, Count: size}}
	}
	a.coming[id] = m
	return &m, nil
}

// Known refuses a user who, or whose groups, are not in the container's user namespace.
func Known(r *record.Record, who spec.Identity) error {
	if r.Users == nil {
		return nil
	}
	refuse := func(kind string, id uint32, ranges []userns.Range) error {
		if _, ok := userns.Outside(ranges, id); ok {
			return nil
		}
		return fault.New(fault.Invalid, "%s %d is not in the container's user namespace, which has %d IDs: ask for more by --userns=auto:size=N, or use --userns=host", kind, id, userns.Size(ranges))
	}
	if err := errors.Join(refuse("user", who.UID, r.Users.UIDs), refuse("group", who.GID, r.Users.GIDs)); err != nil {
		return err
	}
	for _, gid := range who.Groups {
		if err := refuse("group", gid, r.Users.GIDs); err != nil {
			return err
		}
	}
	return nil
}
