// Package dns is the daemon's side of tare-dns, the one process that answers
// the look-ups of all containers of a daemon. Package network/dns/server is the
// inside of that process.
//
// A sandbox is a network namespace in which the process answers at Address,
// with the names of the networks that the sandbox is on. It is told whole, as
// often as anything of it changes, and taken back by its ID; the table of names
// is the sum of the sandboxes' own. So every message can be sent again, and what
// the process knows needs no other truth than the daemon's list of sandboxes.
//
// The sockets of a sandbox are its Outlets: opened in the namespace by Open, and
// given to the process with the sandbox. They live as long as the process does.
// A process that died is replaced by one that gets new ones.
//
//	EXEC-ROOT/dns.sock   where the process listens for daemons, SOCK_SEQPACKET
//	EXEC-ROOT/dns.log    what it said when it died
//
// A message is JSON with an Op, an answer has the error or what was asked. The
// process ends by itself when it has no sandbox and no daemon is connected, or
// none has used it for a while. A sandbox whose lifeline breaks, the other end of
// a pipe that the container's supervising process holds, is taken back without
// a daemon.
package dns

import (
	"encoding/json"
	"net/netip"
	"os"
)

// Protocol is raised when an older process would misunderstand a message.
const Protocol = 1

// Address is where containers ask.
var Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 11}), 53)

// Names of the process's files below the exec root.
const (
	SocketName = "dns.sock"
	LogName    = "dns.log"
)

// Sandbox is a network namespace whose look-ups are answered.
type Sandbox struct {
	ID string
	// Places are on the networks, in the order in which names are looked for.
	Places []Place `json:",omitempty"`
	// Servers are asked for other names, from the sandbox's own namespace.
	// Without any those of the host are, from the host's.
	Servers []netip.Addr `json:",omitempty"`
	// External tells that the sandbox reaches more than its own networks: only
	// then are the host's servers asked for it.
	External bool `json:",omitempty"`
	// Dots tells that ndots was chosen: the look-up of an unknown name without
	// a dot is left to the search list then.
	Dots bool `json:",omitempty"`
}

// Place is where a sandbox is on a network.
type Place struct {
	NetworkID string
	Network   string // its name
	// Names by which others on the network find it. The first is told in
	// reverse look-ups, with the network's.
	Names     []string     `json:",omitempty"`
	Addresses []netip.Addr `json:",omitempty"`
	// Links are names for this sandbox alone: alias to the name of somebody on
	// the network, who need not be there.
	Links map[string]string `json:",omitempty"`
}

// The operations.
const (
	OpHello   = "hello"   // answered by Hello
	OpSet     = "set"     // Sandbox, and its Outlets unless the process has them
	OpDrop    = "drop"    // ID
	OpReplace = "replace" // the program to become, as a file; answered by the new one
)

// Request is a message of the daemon.
type Request struct {
	Op      string
	Sandbox *Sandbox `json:",omitempty"`
	ID      string   `json:",omitempty"`
}

// Answer is a message of the process.
type Answer struct {
	Error string `json:",omitempty"`
	// Unknown tells that a sandbox was set without the outlets that it needs.
	Unknown bool   `json:",omitempty"`
	Hello   *Hello `json:",omitempty"`
}

// Hello says who the process is and whom it serves.
type Hello struct {
	Protocol  int
	Program   Program
	PID       int
	Sandboxes []string
}

// Program tells versions of a file apart.
type Program struct {
	Dev, Inode, Size, Changed uint64
}

// Outlets are the sockets of a sandbox, in the order in which they are sent.
type Outlets struct {
	// UDP and TCP are bound to Address, at ports of the kernel's choice.
	UDP, TCP *os.File
	// Rules is the netlink socket that owns the nftables table which leads
	// Address to them. The table ends with it.
	Rules *os.File
	// Lifeline breaks when the container has ended; nil if nobody holds the
	// other end.
	Lifeline *os.File
}

// Files lists them.
func (o *Outlets) Files() []*os.File {
	files := []*os.File{o.UDP, o.TCP, o.Rules}
	if o.Lifeline != nil {
		files = append(files, o.Lifeline)
	}
	return files
}

// OutletsOf is the inverse of Files, nil for too few.
func OutletsOf(files []*os.File) *Outlets {
	if len(files) < 3 {
		return nil
	}
	o := &Outlets{UDP: files[0], TCP: files[1], Rules: files[2]}
	if len(files) > 3 {
		o.Lifeline = files[3]
	}
	return o
}

// Close closes them.
func (o *Outlets) Close() error {
	for _, f := range o.Files() {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// encode cannot fail on the types above.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
