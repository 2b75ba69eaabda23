package container

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
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

// check refuses what cannot be in a user namespace, in Docker's words. The runtime is
// to make the container; without a path it is the built-in one.
func (u *IDs) check(h *wire.HostConfig, runtime supervise.Runtime) error {
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

// allotment keeps apart the IDs of containers that are being made. Those that are
// made have theirs in their records: they are free again when nobody has a record
// with them.
type allotment struct {
	mu     sync.Mutex
	coming map[string]userns.Map // by the container's ID
}

// settle tells that a container has its record, or will never have one.
func (a *allotment) settle(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.coming, id)
}

// giveUsers decides what the IDs of a new container are outside.
func (s *Service) giveUsers(r *Record) error {
	if r.HostConfig.UsernsMode == usernsHost {
		return nil
	}
	size, auto, err := parseAuto(r.HostConfig.UsernsMode)
	if err != nil {
		return err
	}
	if shared, err := s.shareUsers(r, auto || s.cfg.IDs.Remap != nil); shared || err != nil {
		return err
	}
	if !auto {
		r.Users = s.cfg.IDs.Remap
		return nil
	}
	r.Users, err = s.allot(r.ID, size)
	return err
}

// shareUsers has a container that shares a namespace with another be in the user
// namespace of that one, which owns the namespace, as Docker does.
func (s *Service) shareUsers(r *Record, wants bool) (shared bool, err error) {
	h := r.HostConfig
	var first *Record
	for _, id := range []string{h.NetworkMode.ConnectedContainer(), h.PidMode.Container(), h.IpcMode.Container()} {
		if id == "" {
			continue
		}
		other, err := s.store.find(id)
		if err != nil {
			return false, forCreate(err)
		}
		if other.Users == nil && wants {
			return false, fault.New(fault.Invalid, "container %s, whose namespace is to be shared, is in the host's user namespace: use --userns=host", other.Name)
		}
		if first != nil && s.usersOwner(first) != s.usersOwner(&other) {
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

// usersOwner is the container whose user namespace it is, "" for the host's.
func (s *Service) usersOwner(r *Record) string {
	if r.Users == nil {
		return ""
	}
	for r.UsersOf != "" {
		other, err := s.store.find(r.UsersOf)
		if err != nil {
			return r.UsersOf
		}
		r = &other
	}
	return r.ID
}

// allot finds IDs that no other container has.
func (s *Service) allot(id string, size uint32) (*userns.Map, error) {
	u, a := &s.cfg.IDs, &s.users
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := slices.Collect(maps.Values(a.coming))
	for _, r := range s.store.all() {
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
	if a.coming == nil {
		a.coming = map[string]userns.Map{}
	}
	a.coming[id] = m
	return &m, nil
}

// knows tells whether a user and their groups are in the container's user namespace.
func (r *Record) knows(who spec.Identity) error {
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

// makeUsers makes the container's user namespace, or opens the one that it shares, and
// on wish makes its network namespace in it, which is nil for the host's user namespace.
func (b *bundle) makeUsers(net bool) (_ *os.File, err error) {
	switch {
	case b.r.Users == nil:
		return nil, nil
	case b.r.UsersOf != "":
		if err = b.joinUsers(); err == nil {
			b.users.Net, err = userns.NetworkIn(b.users.User)
		}
		return b.users.Net, err
	}
	if b.users, err = userns.Make(b.r.Users, net); err != nil {
		return nil, fault.New(fault.Internal, "%w", err)
	}
	return b.users.Net, nil
}

// joinUsers opens the user namespace that the container shares with another, or makes
// its own if nothing needed that before.
func (b *bundle) joinUsers() error {
	switch {
	case b.r.Users == nil || b.users.User != nil:
		return nil
	case b.r.UsersOf == "":
		_, err := b.makeUsers(false)
		return err
	}
	other, err := b.join(b.r.UsersOf, "user")
	if err != nil {
		return fmt.Errorf("the user namespace of another container is to be shared: %w", err)
	}
	b.users.User = other.file
	return nil
}

// seenBy is what a mount is shown to.
func seenBy(m *userns.Map, ns *os.File) *overlayfs.Users {
	uid, gid := m.Root()
	return &overlayfs.Users{FD: int(ns.Fd()), UID: uid, GID: gid}
}

// seenBy is what the run's mounts are shown to, nil for the host's user namespace.
func (b *bundle) seenBy() *overlayfs.Users {
	if b.r.Users == nil {
		return nil
	}
	return seenBy(b.r.Users, b.users.User)
}
