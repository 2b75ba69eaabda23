package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tarehq/tare/fault"
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
	other, err := s.store.find(nameOrID)
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

// cannotJoin is Docker's refusal: of the network's namespace a conflict, of the
// others a failure of its own.
func cannotJoin(kind string, other Record) error {
	if kind == "net" {
		return fault.New(fault.Conflict, "cannot join network namespace of a non running container: container %s is %s, start it first", other.Name, other.State)
	}
	return fault.New(fault.Internal, "failed to join %s namespace: container %s is not running, start it first", strings.ToUpper(kind), other.ID)
}
