package record

import (
	"fmt"

	wire "github.com/moby/moby/api/types/container"
)

// State is where a container stands in its life. Docker's booleans (Running,
// Paused, Restarting) are derived from it at the edge. A container that is being removed
// or could not be, in Docker "removing" and "dead", has no state here: it is gone
// by one rename.
type State string

// The states, in Docker's words.
const (
	Created    State = "created"
	Running    State = "running"
	Paused     State = "paused"     // its processes stand still
	Restarting State = "restarting" // not running, waiting for its restart policy's next try
	Exited     State = "exited"
)

// transitions is the whole life: from each state, the states that may follow.
// A start that fails leaves the state as it was, and so is no transition.
var transitions = map[State][]State{
	Created:    {Running, Exited},
	Running:    {Paused, Exited, Restarting},
	Paused:     {Running, Exited, Restarting},
	Restarting: {Running, Exited},
	Exited:     {Running, Restarting},
}

// next checks that to may follow s. Staying is always allowed.
func (s State) next(to State) error {
	if s == to {
		return nil
	}
	for _, t := range transitions[s] {
		if t == to {
			return nil
		}
	}
	return fmt.Errorf("a container that is %s cannot become %s", s, to)
}

// Up tells whether the container has processes, which may stand still.
func (s State) Up() bool { return s == Running || s == Paused }

// Live tells whether the container has processes or is about to have them again.
func (s State) Live() bool { return s.Up() || s == Restarting }

// Wire is the state in the API's type.
func (s State) Wire() wire.ContainerState { return wire.ContainerState(s) }
