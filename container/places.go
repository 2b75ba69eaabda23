package container

import (
	"github.com/tarehq/tare/fault"
)

// Places are the containers' places on networks: Connect and Disconnect change
// them, running or not.
type Places struct{ containers *Service }

// Places are those of all containers.
func (s *Service) Places() *Places { return &Places{s} }

// errShared is Docker's refusal of a second network beside another's.
var errShared = fault.New(fault.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
