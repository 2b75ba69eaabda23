package publish

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a program of the kernel lets pass is the same in both of its languages.
func TestSocketsHearOnlyWhatPasses(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	own, err := netlink.ParseAddr("fd00::1/128")
	must(t, err)
	must(t, netlink.AddrAdd(lo, own)) // lo needs no duplicate address detection
	for p := range loaded {
		if loaded[p]() == nil {
			t.Errorf("the kernel refuses the program of %d", p)
		}
	}
	for name, filter := range map[string]func(pass, int) error{"shared": pass.filter, "classic": pass.filterClassic} {
		for _, c := range []struct {
			what  pass
			to    string
			hears bool
		}{{passNothing, "::1", false}, {passLoopback, "::1", true}, {passLoopback, "fd00::1", false}} {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			must(t, err)
			must(t, filter(c.what, fd))
			must(t, unix.Bind(fd, sockaddr(netip.IPv6Unspecified(), 0)))
			port, err := localPort(fd)
			must(t, err)
			client, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.to), port)))
			must(t, err)
			client.SetWriteDeadline(time.Now().Add(5 * time.Second))
			client.Write([]byte("x")) // lo delivers before it returns
			n, _, err := unix.Recvfrom(fd, make([]byte, 8), 0)
			if heard := err == nil && n == 1; heard != c.hears {
				t.Errorf("%s filter %d, to %s: heard %v, want %v", name, c.what, c.to, heard, c.hears)
			}
			client.Close()
			unix.Close(fd)
		}
	}
}
