package container

import (
	"fmt"
	"os"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
)

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
