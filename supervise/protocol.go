package supervise

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

// ProtocolVersion is raised when a process that speaks the new version would
// be misunderstood by a daemon that speaks the old one. What a newer daemon
// asks beyond an older process is refused by that process, method by method,
// with fault.NotImplemented; so a new method alone raises nothing.
//
// The form of Message and the methods hello and exit never change.
const ProtocolVersion = 1

// Message is a request, its answer or an event, one JSON object in one message
// of the socket. Requests come from the daemon; each has a number that its
// answer repeats. They are served concurrently. Events come from the process
// and have no number.
type Message struct {
	ID     uint64          `json:"id,omitempty"`
	Method string          `json:"method,omitempty"` // of a request or event
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *WireError      `json:"error,omitempty"` // of an answer
}

// The requests, with what they carry and what the answer carries.
const (
	MethodHello     = "hello"     // Hello → Hello; must come first
	MethodWarm      = "warm"      // a config.json like those to come, to rehearse; before create
	MethodHold      = "hold"      // more files to keep open, at any time
	MethodRoom      = "room"      // RoomRequest; before create
	MethodMount     = "mount"     // MountRequest, its mounts; before create
	MethodCreate    = "create"    // CreateRequest, the netns, the shm, the user namespace, clients' sockets, more files to hold → Started
	MethodCollect   = "collect"   // CollectRequest; instead of create: answered when nothing is left of a dead process's container
	MethodStart     = "start"     // → Started
	MethodAttach    = "attach"    // AttachOptions, the client's socket, and if it is to get nothing yet a pipe that ends when it may; answered when attached
	MethodResize    = "resize"    // ResizeRequest
	MethodSignal    = "signal"    // SignalRequest
	MethodExec      = "exec"      // ExecConfig, the client's socket or nothing → Started
	MethodExecWait  = "exec-wait" // ExecRequest → ExecExit, when the process has ended
	MethodExecKill  = "exec-kill" // ExecRequest; SIGKILL to the process and its group
	MethodExecs     = "execs"     // → []ExecStatus
	MethodFreeze    = "freeze"    // answered when all processes stand still, until a thaw or the connection's end
	MethodThaw      = "thaw"      // takes one freeze of the connection back
	MethodPause     = "pause"     // → Status; answered when all processes stand still, until an unpause, whoever is connected
	MethodUnpause   = "unpause"   // → Status
	MethodUpdate    = "update"    // UpdateRequest; answered when the limits are in force, all or none
	MethodRelay     = "relay"     // RelayRequest; answered when those relays are served and no others
	MethodUnpublish = "unpublish" // the sockets that are held of published ports; answered when the ports are free
	MethodDump      = "dump"      // Checkpoint; answered when it is whole, or nothing is left of it
	MethodRelease   = "release"   // ReleaseRequest or nothing; answered when nothing of the container is left, but for what the request leaves
)

// The events.
const (
	EventExit   = "exit"   // Exit
	EventDetach = "detach" // DetachEvent
	EventOOM    = "oom"    // a process was killed for want of memory
	EventRotate = "rotate" // the log's file was full and another has begun
)

// Hello opens a connection in both directions.
type Hello struct {
	Version int
	Status  Status // of the process; unused in the request
}

// MountRequest has detached mounts, its files, put to the places of Config.Mounts
// that come after the first skip ones.
type MountRequest struct {
	Dir      string // Config.Dir
	Skip     int
	Subpaths []string
}

// RoomRequest announces how many files there will be to hold.
type RoomRequest struct{ Files int }

// CreateRequest asks for the container.
type CreateRequest struct {
	Config
	NetNS bool // the first of the files is the network namespace
	Shm   bool `json:",omitempty"` // the next is Config.Shm
	Users bool `json:",omitempty"` // the next is Config.UserNS
	// Clients are attached before the start; their sockets come next.
	Clients []AttachOptions `json:",omitempty"`
	// Start goes on to the start when the container is created.
	Start bool `json:",omitempty"`
}

// CollectRequest names a container whose supervising process died.
type CollectRequest struct{ ID, Dir string }

// Started tells of a process that was made.
type Started struct {
	Pid    int
	Status Status
}

// ResizeRequest sets the size of a terminal, in characters.
type ResizeRequest struct {
	ExecID        string // "" for the container
	Height, Width uint16
}

// SignalRequest sends a signal to the container's init.
type SignalRequest struct{ Signal int }

// UpdateRequest changes limits; what it does not name stays.
type UpdateRequest struct{ Resources specs.LinuxResources }

// RelayRequest replaces the relays.
type RelayRequest struct{ Relays []Relay }

// ExecRequest names an exec.
type ExecRequest struct{ ID string }

// ReleaseRequest takes over what costs time: with Leave the control groups of a
// container may be left, empty, for the daemon to remove.
type ReleaseRequest struct{ Leave bool }

// WireError is an error on its way through the socket; its kind survives.
type WireError struct {
	Kind string `json:"kind"` // as fault.Kind spells it
	Text string `json:"text"`
}

// NewWireError packs err; nil for nil.
func NewWireError(err error) *WireError {
	if err == nil {
		return nil
	}
	return &WireError{fault.KindOf(err).Error(), err.Error()}
}

// Err unpacks the error; a kind that is not known here counts as
// fault.Internal.
func (e *WireError) Err() error {
	if e == nil {
		return nil
	}
	for k := fault.Internal; k <= fault.NotImplemented; k++ {
		if k.Error() == e.Kind {
			return fault.New(k, "%s", e.Text)
		}
	}
	return errors.New(e.Text)
}

// encode marshals a value of this package's own, which cannot fail.
func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("supervise: cannot encode %T: %v", v, err))
	}
	return b
}

// tooNew refuses a process of a later version.
func tooNew(version int) error {
	return fault.New(fault.Unavailable,
		"the container is supervised by a process that speaks protocol version %d, and this daemon knows versions up to %d: start the newer daemon again, or stop the container with it first",
		version, ProtocolVersion)
}
