package build

import (
	"os"

	"github.com/moby/buildkit/solver/pb"

	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
)

// remapped is the user namespace of a step, nil for the host's.
type remapped struct {
	m  *userns.Map
	ns *os.File
}

// remap gives the step its user namespace: the one that its place on the network is of, or
// with no place there one where the daemon remaps users. A step that was granted the host's network or all
// privileges is in the host's, without which it could not have them.
func (s *step) remap() (err error) {
	m := s.job.solver.Users
	if s.netNS != nil {
		m = s.place.Users
	}
	if m == nil || s.op.Network == pb.NetMode_HOST || s.op.Security == pb.SecurityMode_INSECURE {
		return nil
	}
	u := &remapped{m: m}
	if s.netNS != nil {
		u.ns, err = userns.OfNetwork(s.netNS)
	} else {
		var made userns.Files
		made, err = userns.Make(m, false)
		u.ns = made.User
	}
	if err != nil {
		return err
	}
	s.users = u
	s.back.Push(u.ns.Close)
	return nil
}

// ids are what the step's IDs are outside.
func (u *remapped) ids() *userns.Map {
	if u == nil {
		return nil
	}
	return u.m
}

// shown is what the step's trees are shown to.
func (u *remapped) shown() *overlayfs.Users {
	if u == nil {
		return nil
	}
	uid, gid := u.m.Root()
	return &overlayfs.Users{FD: int(u.ns.Fd()), UID: uid, GID: gid}
}
