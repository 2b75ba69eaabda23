package network

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/tarehq/tare/internal/thread"
	"golang.org/x/sys/unix"
)

// sandbox is a network namespace with lo and eth0 up, without an address, and
// the other end of eth0 on the bridge.
type sandbox struct {
	ns     *os.File
	routes *routeConn // in the namespace
	eth0   int        // its index there
	host   string     // the end on the bridge
}

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// interfacePrefix begins the names of the interfaces that one daemon has on its
// bridge.
func interfacePrefix(identity, bridge string) string {
	sum := sha256.Sum256([]byte(identity + "\x00" + bridge))
	return interfaceMark + base32Lower.EncodeToString(sum[:])[:5]
}

// interfaceMark begins those of every daemon.
const interfaceMark = "tv"

// interfaceName is a new name with the prefix, 15 bytes, the longest allowed.
func interfaceName(prefix string) string {
	random := make([]byte, 5)
	rand.Read(random)
	return prefix + base32Lower.EncodeToString(random)
}

// makeSandbox makes a sandbox whose other end is on the bridge.
func (s *Service) makeSandbox() (box *sandbox, err error) {
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return true
		}
		box, err = s.furnish()
		if back := unix.Setns(int(s.hostNS.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return false
		}
		if err == nil {
			err = writeSysctl("ipv6/conf/"+box.host+"/disable_ipv6", "1")
		}
		return true
	})
	if err != nil && box != nil {
		// The end on the bridge goes with the namespace's eth0.
		box.close()
		return nil, err
	}
	return box, err
}

// furnish fills the calling thread's new network namespace. On failure
// nothing of it is left once the thread leaves.
func (s *Service) furnish() (_ *sandbox, err error) {
	box := &sandbox{host: interfaceName(s.prefix)}
	defer func() {
		if err != nil {
			box.close()
		}
	}()
	if box.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if box.routes, err = dialRoute(); err != nil {
		return nil, err
	}
	if err = s.routes.do(addVeth(box.host, s.bridge.index, s.bridge.mtu, int(box.ns.Fd())), setHairpin(box.host)); err != nil {
		return nil, err
	}
	// Before eth0 is up, or it would have taken a link-local address.
	if err = writeSysctl("ipv6/conf/eth0/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	if err = box.routes.do(setUp("lo"), setUp("eth0")); err != nil {
		return nil, err
	}
	box.eth0, err = box.routes.interfaceIndex("eth0")
	return box, err
}

// interfaceIndex asks for an index in the connection's namespace.
func (c *routeConn) interfaceIndex(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Interface ioctls are the socket layer's, open to every family.
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("find the interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

// configure gives eth0 its addresses and route.
func (b *sandbox) configure(e Endpoint) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	return b.routes.do(setMAC(b.eth0, mac), addAddress(b.eth0, e.Address), addDefaultRoute(b.eth0, e.Gateway))
}

// share gives another descriptor of the namespace.
func (b *sandbox) share() (*os.File, error) {
	fd, err := unix.FcntlInt(b.ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share the network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// close lets go of the namespace, which ends unless others hold it.
func (b *sandbox) close() {
	if b.routes != nil {
		b.routes.close()
	}
	if b.ns != nil {
		b.ns.Close()
	}
}

// writeSysctl sets a value below /proc/sys/net in the calling thread's
// namespace. A kernel without IPv6 has nothing to switch off.
func writeSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
		return nil
	}
	return err
}

// refill keeps the pool filled until ctx ends. Another sandbox is made only
// some time after one was taken, lest its making slow down the very start that
// took it.
func (s *Service) refill(ctx context.Context) {
	defer s.background.Done()
	for {
		box, err := s.makeSandbox()
		if err != nil {
			// Attach makes its own then, and reports why it cannot.
			if !pause(ctx, linger) {
				return
			}
			continue
		}
		select {
		case s.spare <- box:
		case <-ctx.Done():
			s.abandon(box, netip.Addr{})
			return
		}
		if !pause(ctx, refillPause) {
			return
		}
	}
}

// removalGroup is the interface group of what is to be deleted, a number that
// nobody else uses on purpose.
func removalGroup(prefix string) uint32 {
	sum := sha256.Sum256([]byte(prefix))
	return 1<<30 | binary.BigEndian.Uint32(sum[:])>>2
}
