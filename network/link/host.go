// Package link makes interfaces: network namespaces with their interface pairs,
// the bridges of the host that these are on, addresses and routes, by
// rtnetlink(7). It knows nothing of networks and containers, and keeps nothing.
//
//	Host    the namespace that the daemon is in
//	Bridge  an interface of it, which takes ports
//	Space   a container's namespace, with a Port for each of its interfaces
package link

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// Host is the network namespace of the thread that opened it. Its methods may be
// called at the same time.
type Host struct {
	// NewNS makes the namespaces; nil for such as the host's user namespace owns.
	NewNS func() (*os.File, error)

	ns     *os.File
	routes *conn
	prefix string
}

// Open opens the host; prefix, see Prefix, begins the names of the interfaces
// that are made.
func Open(prefix string) (*Host, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	routes, err := dial()
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &Host{ns: ns, routes: routes, prefix: prefix}, nil
}

// Close lets go of the host. What was made there stays.
func (h *Host) Close() {
	h.routes.close()
	h.ns.Close()
}

// Index gives an interface's index.
func (h *Host) Index(name string) (int, error) { return h.routes.index(name) }

// Has tells whether the host has the interface.
func (h *Host) Has(name string) bool { return name != "" && h.routes.has(name) }

// Ours tells whether the name is of an interface that was made here.
func (h *Host) Ours(name string) bool { return strings.HasPrefix(name, h.prefix) }

// Down takes an interface down, if it is there.
func (h *Host) Down(name string) {
	if l, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkSetDown(l) // one that is there can be
	}
}

// Delete deletes those of the interfaces that were made here, with one wait of
// the kernel for all. Some may be gone already; whether all are is for Gone to
// tell.
func (h *Host) Delete(names []string) {
	group := removalGroup(h.prefix)
	var requests []request
	for _, name := range names {
		if h.Ours(name) {
			requests = append(requests, setGroup(name, group))
		}
	}
	if len(requests) > 0 {
		_ = h.routes.do(append(requests, deleteGroup(group))...)
	}
}

// Gone waits until the interface is gone, and tells whether it is. One that the
// kernel deletes at the same time, because its namespace ended, may take a moment.
func (h *Host) Gone(name string) bool {
	for deadline := time.Now().Add(patience); h.Has(name) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return !h.Has(name)
}

// enter runs f on a thread in the namespace.
func (h *Host) enter(ns *os.File, f func() error) (err error) {
	thread.Own(func() bool {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
			return true
		}
		err = f()
		return h.home(&err)
	})
	return err
}

// home takes the thread back to the host's namespace.
func (h *Host) home(err *error) bool {
	if back := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); back != nil {
		*err = errors.Join(*err, fmt.Errorf("return to the host's network namespace: %w", back))
		return false
	}
	return true
}

// Interface is one of the host's as it is.
type Interface struct {
	Name, Kind    string
	Index, Master int // Master is the bridge's that it is on, or 0
	MAC           net.HardwareAddr
}

// Interfaces lists those of the host.
func Interfaces() ([]Interface, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	out := make([]Interface, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		out = append(out, Interface{a.Name, l.Type(), a.Index, a.MasterIndex, a.HardwareAddr})
	}
	return out, nil
}

// PutOn puts a port back on its bridge.
func (h *Host) PutOn(i Interface, bridge int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = i.Name, i.Index
	if err := netlink.LinkSetMasterByIndex(&netlink.Veth{LinkAttrs: attrs}, bridge); err != nil {
		return fmt.Errorf("put %s back on its bridge: %w", i.Name, err)
	}
	return h.routes.do(setHairpin(i.Name))
}

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// mark begins the names of the interfaces of every daemon.
const mark = "tv"

// Prefix begins the names of the interfaces that one daemon has on its bridges.
func Prefix(identity, bridge string) string {
	sum := sha256.Sum256([]byte(identity + "\x00" + bridge))
	return mark + base32Lower.EncodeToString(sum[:])[:5]
}

// Strange tells whether another daemon made the interface.
func (h *Host) Strange(i Interface) bool {
	return i.Kind == "veth" && strings.HasPrefix(i.Name, mark) && len(i.Name) == unix.IFNAMSIZ-1 && !h.Ours(i.Name)
}

// newName is a new name with the prefix, 15 bytes, the longest allowed.
func (h *Host) newName() string {
	random := make([]byte, 5)
	rand.Read(random)
	return h.prefix + base32Lower.EncodeToString(random)
}

// removalGroup is the interface group of what is to be deleted, a number that
// nobody else uses on purpose.
func removalGroup(prefix string) uint32 {
	sum := sha256.Sum256([]byte(prefix))
	return 1<<30 | binary.BigEndian.Uint32(sum[:])>>2
}
