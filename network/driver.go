package network

import (
	"context"
	"io"
	"os"

	wire "github.com/moby/moby/api/types/network"
	"github.com/tarehq/tare/network/link"
)

// Driver makes the networks of one kind other than bridge. The addresses are
// given out here, by ipam, and are in the Endpoint that a driver is handed;
// naming the interface, its addresses, routes and settings are this package's
// too. A network's methods are not called at the same time, those of different
// networks are. Errors are shown to the user as they are.
type Driver interface {
	// Check refuses what the driver cannot do, before anything is stored, and
	// completes the network: its options may be changed.
	Check(ctx context.Context, n *wire.Network) error
	// Create makes the network on this host. It is called when a network is
	// created and again for each one in Restore, so what is there already is
	// taken as it is.
	Create(ctx context.Context, n wire.Network) error
	// Remove takes it back; what is not there is no error.
	Remove(ctx context.Context, n wire.Network) error
	// Join makes the endpoint's interface. It may change the endpoint's MAC,
	// HostInterface, Gateway, Gateway6 and Options, which are stored, and what
	// it needs to know in Leave belongs there.
	Join(ctx context.Context, n wire.Network, e *Endpoint, netns *os.File) (Link, error)
	// Leave takes back what Join made, after the interface has gone or while
	// it goes; what is not there is no error.
	Leave(ctx context.Context, n wire.Network, e Endpoint) error
}

// Link is an interface that a driver made.
type Link struct {
	// Name is what it is called now: in the container's namespace if Inside,
	// else in the host's, from where it is moved.
	Name   string
	Inside bool
	// Prefix begins its name in the container if none was asked for; "eth" if
	// "".
	Prefix string
	// Routes besides those that follow from the addresses and the gateway.
	Routes []Route
	// Bare leaves addresses, MAC and gateways as the driver set them.
	Bare bool
}

// Route leads to a destination, by way of a gateway or, without one, on the
// link itself.
type Route = link.Route

// Names is told of the sandboxes whenever the names in them may have changed.
type Names interface {
	// Prepare opens what Set needs in a namespace that waits for a container on
	// a network with names. It is closed when the namespace is given up, else
	// handed to Set, which takes it over also when it fails.
	Prepare(netns *os.File) (io.Closer, error)
	// Set tells of a sandbox as it is from now on: when a container is
	// attached, before it runs, when it is connected to a network, disconnected
	// or renamed, and, for each one that lives on, in Restore. netns is its
	// namespace, valid during the call, nil where it is not at hand; prepared is
	// what Prepare opened in it, or nil. The files that it returns are held open
	// as long as the container runs. An error fails the attachment or
	// connection.
	Set(ctx context.Context, s Sandbox, netns *os.File, prepared io.Closer) (held []*os.File, err error)
	// Drop tells that it is no more; one that is not known is no error.
	Drop(sandboxID string)
}
