package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// joined is a namespace of another container, held open until it was joined. A
// path with a process's number could be another's by then. nil is none.
type joined struct{ file *os.File }

// path names the namespace for every process of the host; "" for none.
func (j *joined) path() string {
	if j == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), j.file.Fd())
}

func (j *joined) close() {
	if j != nil {
		j.file.Close()
	}
}

// join opens a namespace of another container, which has to run.
func (b *bundle) join(nameOrID, kind string) (*joined, error) {
	s := b.containers
	other, err := s.store.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	var file *os.File
	if other.State.Up() {
		file, err = supervise.OpenNamespace(s.bundles.path(other.ID), kind)
	}
	if !other.State.Up() || errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
		return nil, cannotJoin(kind, other)
	}
	if err != nil {
		return nil, err
	}
	return &joined{file}, nil
}

// JoinNetwork opens the network namespace of a container that runs, and tells whether
// names are looked up there, and what the IDs are outside of those who rule it. The host's is not a container's to share.
func (s *Service) JoinNetwork(nameOrID string) (netNS *os.File, names bool, users *userns.Map, err error) {
	other, err := s.store.Find(nameOrID)
	if err != nil {
		return nil, false, nil, err
	}
	owner, err := s.store.NetworkOwner(other)
	if err != nil {
		return nil, false, nil, err
	}
	if owner.HostConfig.NetworkMode.IsHost() {
		return nil, false, nil, fault.New(fault.Forbidden, "container %s has the host's network, which is asked for by its own name: host", other.Name)
	}
	j, err := (&bundle{containers: s}).join(nameOrID, "net")
	if err != nil {
		return nil, false, nil, err
	}
	return j.file, hasNames(owner.Sandbox), owner.Users, nil
}

// cannotJoin is Docker's refusal: of the network's namespace a conflict, of the
// others a failure of its own.
func cannotJoin(kind string, other Record) error {
	if kind == "net" {
		return fault.New(fault.Conflict, "cannot join network namespace of a non running container: container %s is %s, start it first", other.Name, other.State)
	}
	return fault.New(fault.Internal, "failed to join %s namespace: container %s is not running, start it first", strings.ToUpper(kind), other.ID)
}
