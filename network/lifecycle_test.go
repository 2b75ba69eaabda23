package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/link"
)

func countElements(t testing.TB, s *Service) (n int) {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	table := &nftables.Table{Name: s.cfg.Name, Family: nftables.TableFamilyIPv4}
	for _, name := range []string{"ports", "address_ports", "ranges", "address_ranges"} {
		set, err := conn.GetSetByName(table, name)
		must(t, err)
		elements, err := conn.GetSetElements(set)
		must(t, err)
		n += len(elements)
	}
	return n
}

// inUse tells how many addresses of the network's first subnet are in use.
func inUse(s *Service, network string) uint64 {
	l := s.lans.named(network)
	return s.usage(l).Subnets[l.nets[0].Prefix()].IPsInUse
}

func countLines(b []byte) int { return bytes.Count(b, []byte("\n")) }

// dropLoopback takes 127.0.0.1 and its routes from the calling thread's
// namespace.
func dropLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		return err
	}
	return netlink.AddrDel(lo, own)
}

func countFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestPortInUse(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	first := attach(t, s, "first", Port{HostPort: 8080, ContainerPort: 80})
	program, err := net.Listen("tcp4", "127.0.0.1:8082")
	must(t, err)
	defer program.Close()
	for port, want := range map[uint16]string{
		8080: "Bind for 0.0.0.0:8080 failed: port is already allocated",
		8081: "Bind for 0.0.0.0:8081 failed: port is already allocated",
		8082: "failed to bind host port 0.0.0.0:8082/tcp: address already in use",
	} {
		_, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "x", Name: "second", Ports: []Port{
			{HostPort: 8081, ContainerPort: 80}, {HostPort: port, ContainerPort: 80}}})
		if err == nil || !strings.HasPrefix(err.Error(), "failed to set up container networking: driver failed programming external connectivity on endpoint second (") ||
			!strings.HasSuffix(err.Error(), "): "+want) || fault.KindOf(err) != fault.Internal {
			t.Errorf("error %v", err)
		}
	}
	if _, err := net.Listen("tcp4", "0.0.0.0:8080"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a program of the host that wants the port got %v", err)
	}
	if interfaces, n := remains(t, s); len(interfaces) != 1 || n != 1 {
		t.Errorf("left: interfaces %v, %d elements", interfaces, n)
	}
	must(t, s.Detach(t.Context(), first.Sandbox))
	letGo(first.Attachment)
	again := attach(t, s, "again", Port{HostPort: 8080, ContainerPort: 80}, Port{HostPort: 8081, ContainerPort: 80})
	if again.Endpoints[0].Address == first.Endpoints[0].Address {
		t.Errorf("address %s was reused at once", again.Endpoints[0].Address)
	}
}

// Many are bound by several at once, and are as one after the other.
func TestManyPorts(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	want := hostPorts(20000, 20299, -10000)
	c := attach(t, s, "c", want...)
	if len(c.Ports) != 2*len(want) || len(c.Sockets) != len(c.Ports) {
		t.Fatalf("%d ports with %d sockets", len(c.Ports), len(c.Sockets))
	}
	for i, p := range c.Ports {
		if w := want[i/2]; p.HostPort != w.HostPort || p.ContainerPort != w.ContainerPort || p.HostIP.Is6() != (i%2 == 1) {
			t.Errorf("the %dth is %+v", i, p)
		}
	}
	c.serve(t, "tcp", 10287, "c")
	place{}.expect(t, "tcp", "127.0.0.1:20287", "c 172.30.1.1")
	_, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "x", Name: "second", Ports: hostPorts(20101, 20400, 0)})
	if err == nil || !strings.HasSuffix(err.Error(), "Bind for 0.0.0.0:20101 failed: port is already allocated") {
		t.Errorf("error %v", err)
	}
	twice := append(hostPorts(20300, 20399, 0), Port{HostPort: 20301, ContainerPort: 1})
	_, err = s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "x", Name: "second", Ports: twice})
	if err == nil || !strings.HasSuffix(err.Error(), "Bind for 0.0.0.0:20301 failed: port is already allocated") {
		t.Errorf("error %v", err)
	}
	for _, p := range []string{"20300", "20301", "20399", "20400"} {
		l, err := net.Listen("tcp", ":"+p)
		must(t, err)
		l.Close()
	}
}

func TestPortMovesBeforeDetach(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	ended := attach(t, s, "ended", hostPorts(8080, 8082, 0)...)
	letGo(ended.Attachment)
	next := attach(t, s, "next", Port{HostIP: addr("127.0.0.1"), HostPort: 8081, ContainerPort: 80})
	next.serve(t, "tcp", 80, "next")
	place{}.expect(t, "tcp", "127.0.0.1:8081", "next 172.30.1.1")
	must(t, s.Detach(t.Context(), ended.Sandbox))
	place{}.expect(t, "tcp", "127.0.0.1:8081", "next 172.30.1.1")
	if _, n := remains(t, s); n != 1 {
		t.Errorf("%d elements", n)
	}
}

func TestEphemeralAndFirstFreePort(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "c", Port{ContainerPort: 80}, Port{ContainerPort: 80, Proto: "udp"},
		Port{HostPort: 8000, ContainerPort: 81}, Port{HostPort: 8000, HostPortEnd: 8002, ContainerPort: 80})
	c.serve(t, "tcp", 80, "c")
	c.serve(t, "udp", 80, "c")
	place{}.expect(t, "tcp", fmt.Sprint("127.0.0.1:", c.Ports[0].HostPort), "c 172.30.1.1")
	place{}.expect(t, "udp", fmt.Sprint("127.0.0.1:", c.Ports[2].HostPort), "c 172.30.1.1")
	place{}.expect(t, "tcp", "127.0.0.1:8001", "c 172.30.1.1")
	if c.Ports[0].HostPort == 0 || c.Ports[6].HostPort != 8001 {
		t.Errorf("published %v", c.Ports)
	}
}

func TestDetachGivesAllBack(t *testing.T) {
	for _, spare := range []int{0, 2} {
		t.Run(fmt.Sprint("spare", spare), func(t *testing.T) {
			if !asHost(t) {
				return
			}
			c := testConfig("tt0", 1)
			c.Spare = spare
			s, err := Open(t.Context(), c)
			must(t, err)
			must(t, s.Restore(t.Context(), nil))
			var all []*Attachment
			before := countFiles(t)
			for i := range 5 {
				a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: fmt.Sprint(i), Ports: hostPorts(8000+10*i, 8005+10*i, i)})
				must(t, err)
				all = append(all, a)
			}
			for i, a := range all {
				if i%2 == 0 {
					letGo(a) // as when the container has ended
				}
				must(t, s.Detach(t.Context(), a.Sandbox))
				must(t, s.Detach(t.Context(), a.Sandbox))
				if i%2 == 1 {
					letGo(a)
				}
			}
			if n := countElements(t, s); n != 0 {
				t.Errorf("%d elements are left", n)
			}
			testutil.Eventually(t, 5*time.Second, "addresses released", func() bool {
				return inUse(s, "bridge") == 3 // its own, the broadcast address and the gateway
			})
			must(t, s.Close(t.Context()))
			if interfaces, _ := remains(t, s); len(interfaces) != 0 {
				t.Errorf("interfaces %v are left", interfaces)
			}
			if after := countFiles(t); after > before {
				t.Errorf("%d files open before, %d after", before, after)
			}
			if _, err := s.Attach(t.Context(), Request{Wants: []Want{{}}}); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("attach after close: %v", err)
			}
		})
	}
}

func TestRestoreAfterTheDaemonDied(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	c := testConfig("tt0", 1)
	c.Spare = 1
	dead, err := Open(t.Context(), c)
	must(t, err)
	must(t, dead.Restore(t.Context(), nil))
	kept := attach(t, dead, "kept", append(hostPorts(9000, 9003, 0), Port{HostPort: 8080, ContainerPort: 80})...)
	lost := attach(t, dead, "lost", Port{HostPort: 8081, ContainerPort: 80})
	kept.serve(t, "tcp", 80, "kept")
	conn, echo := openConnection(t, kept, client)

	// The dead daemon's other descriptors are held by this process until the
	// end, so its spare and lost namespaces do not vanish by themselves.
	dead.claim.release()
	s, err := Open(t.Context(), c)
	must(t, err)
	defer s.Close(context.Background())
	client.expect(t, "tcp", "10.99.1.1:8080", "kept 10.99.1.2")
	if _, err := s.Attach(t.Context(), Request{Wants: []Want{{}}}); err == nil {
		t.Error("attach before restore")
	}
	must(t, s.Restore(t.Context(), []Sandbox{kept.Sandbox}))
	client.expect(t, "tcp", "10.99.1.1:8080", "kept 10.99.1.2")
	echo(conn)
	testutil.Eventually(t, 5*time.Second, "orphans removed", func() bool {
		return !s.host.Has(lost.Endpoints[0].HostInterface) && s.host.Has(kept.Endpoints[0].HostInterface)
	})
	if n := countElements(t, s); n != 2 {
		t.Errorf("%d elements, want those of the endpoint kept", n)
	}
	next := attach(t, s, "next")
	if next.Endpoints[0].Address.Addr() == kept.Endpoints[0].Address.Addr() {
		t.Error("the address of a running container was given away")
	}
	must(t, s.Detach(t.Context(), kept.Sandbox))
	client.expectNothing(t, "tcp", "10.99.1.1:8080")
	dead.stop()
	dead.pools.end(dead.lans.byName[networkBridge], true)
	dead.watch.close()
	dead.tasks.Wait()
}

func TestRestoreAfterTheBridgeWasDeleted(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := testConfig("tt0", 1)
	dead := open(t, c)
	a := attach(t, dead, "a", Port{HostPort: 8080, ContainerPort: 80})
	a.serve(t, "tcp", 80, "a")
	must(t, link.LowerBridge("tt0"))
	dead.claim.release()
	s, err := Open(t.Context(), c)
	must(t, err)
	defer s.Close(context.Background())
	must(t, s.Restore(t.Context(), []Sandbox{a.Sandbox}))
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
	a.expect(t, "tcp", "172.30.1.1:8080", "a 172.30.1.1")
}

// A bridge of ours floods, also one that was made by a program that let it snoop;
// somebody else's does what it did.
func TestBridgeFloodsMulticasts(t *testing.T) {
	if !asHost(t) {
		return
	}
	snoops := func(name string) bool {
		l, err := netlink.LinkByName(name)
		must(t, err)
		on := l.(*netlink.Bridge).MulticastSnooping
		return on != nil && *on
	}
	c := testConfig("tt0", 1)
	s := open(t, c)
	if snoops("tt0") {
		t.Error("a new bridge snoops")
	}
	must(t, s.Close(context.Background()))
	must(t, exec.Command("ip", "link", "set", "tt0", "type", "bridge", "mcast_snooping", "1").Run())
	open(t, c)
	if snoops("tt0") {
		t.Error("a bridge that was there still snoops")
	}
	must(t, exec.Command("ip", "link", "add", "br0", "type", "bridge").Run())
	must(t, exec.Command("ip", "addr", "add", "172.30.9.1/24", "dev", "br0").Run())
	open(t, Config{Bridge: "br0"})
	if !snoops("br0") {
		t.Error("somebody else's bridge was changed")
	}
}

func TestSpareThatWasSpoiledIsNotUsed(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := testConfig("tt0", 1)
	c.Spare = 1
	s := open(t, c)
	spare := s.lans.byName[networkBridge].pool.spare
	box := <-spare
	link, err := netlink.LinkByName(box.waiting.Endpoints[0].HostInterface)
	must(t, err)
	must(t, netlink.LinkDel(link))
	spoiled := box.waiting
	go func() { spare <- box }()
	testutil.Eventually(t, 5*time.Second, "the spoiled one to be taken", func() bool {
		a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "a"})
		must(t, err)
		letGo(a)
		must(t, s.Detach(t.Context(), a.Sandbox))
		return !slices.Contains(s.sandboxes.unused(), spoiled)
	})
}

func TestSpareThatFailedHalfwayIsSilent(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	bridge := s.lans.byName[networkBridge]
	spare, err := s.fitter.makeBox(bridge)
	must(t, err)
	host := spare.first.Host
	place{spare.NS}.do(t, func() error { // one of the steps fails on it
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		address, err := netlink.ParseAddr("172.30.1.2/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(eth0, address)
	})
	sb := Sandbox{Endpoints: []Endpoint{{MAC: "02:42:ac:1e:01:02", Address: netip.MustParsePrefix("172.30.1.2/24"), Gateway: s.Gateway()}}}
	next, err := s.fitter.equip(t.Context(), []*lan{bridge}, &sb, spare, nil)
	must(t, err)
	defer s.fitter.abandon(next, sb.Endpoints)
	if link, err := netlink.LinkByName(host); err == nil && link.Attrs().Flags&net.FlagUp != 0 {
		t.Error("two interfaces have the address")
	}
}

func TestManyAtOnce(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := testConfig("tt0", 1)
	c.Spare = 2
	s := open(t, c)
	const each, workers = 5, 20
	var mu sync.Mutex
	owner := map[string]string{} // of an address or a host port
	claim := func(thing, name string) {
		mu.Lock()
		defer mu.Unlock()
		if owner[thing] != "" {
			t.Errorf("%s has %s, and so has %s", owner[thing], thing, name)
		}
		owner[thing] = name
	}
	giveUp := func(things ...string) {
		mu.Lock()
		defer mu.Unlock()
		for _, thing := range things {
			delete(owner, thing)
		}
	}
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				name := fmt.Sprint(w, "-", i)
				a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: name, Name: name, Ports: []Port{{ContainerPort: 80}}})
				if err != nil {
					t.Error(err)
					return
				}
				address, port := a.Endpoints[0].Address.String(), fmt.Sprint("port ", a.Ports[0].HostPort)
				claim(address, name)
				claim(port, name)
				giveUp(address, port)
				if err := s.Detach(t.Context(), a.Sandbox); err != nil {
					t.Error(err)
				}
				letGo(a)
			}
		})
	}
	group.Wait()
	must(t, s.Close(t.Context()))
	if interfaces, n := remains(t, s); len(interfaces) != 0 || n != 0 {
		t.Errorf("left: interfaces %v, %d elements", interfaces, n)
	}
}

// openConnection opens a connection from the client to port 9000 and returns
// it with what checks that it still carries data both ways.
func openConnection(t testing.TB, c attached, client place) (net.Conn, func(net.Conn)) {
	var l net.Listener
	c.do(t, func() (err error) { l, err = net.Listen("tcp4", ":9000"); return err })
	t.Cleanup(func() { l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	var conn net.Conn
	client.do(t, func() (err error) { conn, err = net.DialTimeout("tcp4", "10.99.1.1:9000", 3*time.Second); return err })
	t.Cleanup(func() { conn.Close() })
	echo := func(conn net.Conn) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		buf := make([]byte, 4)
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("an open connection broke: %q %v", buf, err)
		}
	}
	echo(conn)
	return conn, echo
}

func TestFlushedTableIsMadeAgain(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	a := attach(t, s, "a", Port{HostPort: 8080, ContainerPort: 80})
	a.serve(t, "tcp", 80, "a")
	conn, err := nftables.New()
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	b := attach(t, s, "b", Port{HostPort: 8081, ContainerPort: 80})
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
	conn.FlushRuleset()
	must(t, conn.Flush())
	must(t, s.Detach(t.Context(), b.Sandbox))
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
}

func TestUDPFlowMovesToTheNextContainer(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	s := open(t, testConfig("tt0", 1))
	var conn net.Conn
	client.do(t, func() (err error) { conn, err = net.Dial("udp4", "10.99.1.1:8080"); return err })
	defer conn.Close()
	answers := func(want string) func() bool {
		return func() bool {
			buf := make([]byte, 100)
			conn.Write([]byte("x"))
			conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			n, _ := conn.Read(buf)
			return strings.HasPrefix(string(buf[:n]), want)
		}
	}
	answers("nobody listens yet")()
	for _, name := range []string{"one", "two"} {
		c := attach(t, s, name, Port{HostPort: 8080, ContainerPort: 80, Proto: "udp"})
		c.serve(t, "udp", 80, name)
		testutil.Eventually(t, 5*time.Second, "an answer from "+name, answers(name))
		must(t, s.Detach(t.Context(), c.Sandbox))
		letGo(c.Attachment)
	}
}

func TestExhaustion(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, Config{Bridge: "tt0", BIP: netip.MustParsePrefix("172.30.9.1/30")})
	only := attach(t, s, "only")
	_, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "x"})
	if err == nil || !strings.Contains(err.Error(), "no available IPv4 addresses on this network's address pools") {
		t.Errorf("error %v", err)
	}
	must(t, s.Detach(t.Context(), only.Sandbox))
	testutil.Eventually(t, 5*time.Second, "the address is free again", func() bool {
		a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "x"})
		if err == nil {
			letGo(a)
		}
		return err == nil
	})
}

func TestOpenChoosesASubnetAndKeepsIt(t *testing.T) {
	if !asHost(t) {
		return
	}
	machine(t, "lan0", 1)
	c := Config{Bridge: "tt0", Pools: []Pool{{Base: netip.MustParsePrefix("10.98.0.0/15"), Size: 16}}}
	for range 2 {
		s := open(t, c)
		if s.Gateway() != addr("10.98.0.1") {
			t.Errorf("gateway %s", s.Gateway())
		}
		must(t, s.Close(t.Context()))
	}
	c.Bridge = "tt1"
	if _, err := Open(t.Context(), c); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a pool that is all in use: %v", err)
	}
	if _, err := netlink.LinkByName("tt1"); err == nil {
		t.Error("the bridge that failed was left")
	}
}

func TestBridgeHasOneDaemon(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := testConfig("tt0", 1)
	first := open(t, c)
	a := attach(t, first, "a", Port{HostPort: 8080, ContainerPort: 80})
	a.serve(t, "tcp", 80, "a")
	c.Name, c.Identity = "other", "other"
	const want = "the bridge tt0 is in use by another tared: stop it, or choose another bridge by --bridge"
	if _, err := Open(t.Context(), c); err == nil || err.Error() != want || fault.KindOf(err) != fault.Conflict {
		t.Errorf("a second daemon: %v", err)
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		must(t, exec.Command(nft, "flush", "ruleset").Run())
		if _, err := Open(t.Context(), c); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a second daemon after nft flush ruleset: %v", err)
		}
		must(t, first.rules.replace())
	}
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
	open(t, testConfig("tt1", 2))
	elsewhere := machine(t, "lan0", 1)
	elsewhere.do(t, func() error { // a bridge of the same name is another there
		h, err := claimBridge(t.Context(), "tt0")
		if err == nil {
			h.release()
		}
		return err
	})
	must(t, first.Close(t.Context()))

	// Not even when the other has only left its containers running.
	second, err := Open(t.Context(), c)
	must(t, err)
	if err := second.Restore(t.Context(), nil); fault.KindOf(err) != fault.Conflict {
		t.Errorf("on a bridge with another's containers: %v", err)
	}
	must(t, second.Close(t.Context()))
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
	again, err := Open(t.Context(), testConfig("tt0", 1))
	must(t, err)
	must(t, again.Restore(t.Context(), []Sandbox{a.Sandbox}))
	place{}.expect(t, "tcp", "127.0.0.1:8080", "a 172.30.1.1")
	must(t, again.Detach(t.Context(), a.Sandbox))
	must(t, again.Close(t.Context()))
	open(t, c)
}

func TestFlushedTablesComeBack(t *testing.T) {
	if !asHost(t) {
		return
	}
	must(t, writeSysctl("ipv4/ip_forward", "0"))
	server := machine(t, "lan0", 1)
	server.serve(t, "tcp", 80, "outside")
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "c") // without ports: nothing else would notice
	for range 3 {
		conn, err := nftables.New()
		must(t, err)
		conn.FlushRuleset()
		must(t, conn.Flush())
		testutil.Eventually(t, 5*time.Second, "the tables are back", func() bool {
			own, err := s.rules.firewall.Whole()
			must(t, err)
			guarding, err := tableExists(guard.Name)
			must(t, err)
			return own && guarding
		})
		c.expect(t, "tcp", "10.99.1.2:80", "outside 10.99.1.1")
	}
}

func TestForeignBridgeKeepsWhatItHas(t *testing.T) {
	if !asHost(t) {
		return
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "br0", 1400
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	must(t, ifUp("br0"))
	link, err := netlink.LinkByName("br0")
	must(t, err)
	for _, text := range []string{"172.30.1.1/24", "192.0.2.1/24", "2001:db8::1/64"} {
		a, err := netlink.ParseAddr(text)
		must(t, err)
		must(t, netlink.AddrAdd(link, a))
	}
	addresses := func() string {
		list, err := netlink.AddrList(link, unix.AF_UNSPEC)
		must(t, err)
		var text []string
		for _, a := range list {
			if a.Scope == unix.RT_SCOPE_UNIVERSE {
				text = append(text, a.IPNet.String())
			}
		}
		return strings.Join(text, " ")
	}
	before := addresses()
	_, err = Open(t.Context(), Config{Bridge: "br0", BIP: netip.MustParsePrefix("10.9.0.1/24")})
	const want = "the bridge br0 was not made by tared and does not have the address 10.9.0.1/24, but 172.30.1.1/24: give it that address, or leave the address out"
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Conflict {
		t.Errorf("with a --bip of its own: %v", err)
	}
	s := open(t, Config{Bridge: "br0"})
	attach(t, s, "c")
	link, err = netlink.LinkByName("br0")
	must(t, err)
	if after := addresses(); after != before || link.Attrs().MTU != 1400 || s.Gateway() != addr("172.30.1.1") {
		t.Errorf("br0 had %s, MTU 1400, now %s, MTU %d; the gateway is %s", before, after, link.Attrs().MTU, s.Gateway())
	}
}

func TestRefusals(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	for _, c := range []struct {
		request Request
		kind    fault.Kind
		text    string
	}{
		{Request{Wants: []Want{{Network: "backend"}}}, fault.NotFound, "failed to set up container networking: network backend not found"},
		{Request{Wants: []Want{{Network: "host"}}}, fault.Invalid, "failed to set up container networking: network host has no endpoints"},
		{Request{Wants: []Want{{}}, Ports: []Port{{Proto: "dccp", ContainerPort: 1}}}, fault.Invalid, "invalid proto: dccp"},
		{Request{Wants: []Want{{}}, Ports: []Port{{HostPort: 2, HostPortEnd: 1, ContainerPort: 1}}}, fault.Invalid, "invalid range of host ports: 2-1"},
	} {
		_, err := s.Attach(t.Context(), c.request)
		if err == nil || err.Error() != c.text || fault.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.request, err)
		}
	}
	if interfaces, _ := remains(t, s); len(interfaces) != 0 {
		t.Errorf("interfaces %v are left", interfaces)
	}
}

func TestInspect(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "web")
	n, err := s.Inspect("bridge")
	must(t, err)
	if e := n.Containers["id-web"]; e.Name != "web" || e.EndpointID != c.Endpoints[0].ID || e.IPv4Address != c.Endpoints[0].Address || n.ID != c.Endpoints[0].NetworkID {
		t.Errorf("inspect %+v", n)
	}
	if byID, err := s.Inspect(n.ID[:12]); err != nil || byID.Name != "bridge" {
		t.Errorf("by ID: %v", err)
	}
	if list := s.List(); len(list) != 3 || list[2].Name != "none" || list[2].Driver != "null" {
		t.Errorf("list %+v", list)
	}
}

// Others' rules see what goes between neighbours as soon as there are any.
func TestNeighboursMeetTheRulesOfOthers(t *testing.T) {
	if !asHost(t) {
		return
	}
	must(t, writeSysctl("bridge/bridge-nf-call-iptables", "1"))
	s := open(t, testConfig("tt0", 1))
	a, b := attach(t, s, "a"), attach(t, s, "b")
	b.serve(t, "tcp", 80, "b")
	address := fmt.Sprintf("%s:80", b.Endpoints[0].Address.Addr())
	answer := fmt.Sprintf("b %s", a.Endpoints[0].Address.Addr())
	a.expect(t, "tcp", address, answer)
	table := &nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet}
	conn, err := nftables.New()
	must(t, err)
	conn.AddTable(table)
	drop := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Policy: &drop,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	must(t, conn.Flush())
	testutil.Eventually(t, 5*time.Second, "nothing passes between neighbours", func() bool {
		_, err := a.ask("tcp", address, 100*time.Millisecond)
		return err != nil
	})
	if strings.Contains(s.Rules(), "table netdev") {
		t.Error("the shortcut is still wanted")
	}
	conn.DelTable(table)
	must(t, conn.Flush())
	testutil.Eventually(t, 5*time.Second, "the shortcut is back", func() bool {
		return strings.Contains(s.Rules(), "table netdev")
	})
	a.expect(t, "tcp", address, answer)
	// One that comes while it is there takes it too: no connection is tracked.
	c := attach(t, s, "c")
	c.expect(t, "tcp", address, fmt.Sprintf("b %s", c.Endpoints[0].Address.Addr()))
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		if f.Forward.SrcIP.Equal(c.Endpoints[0].Address.Addr().AsSlice()) {
			t.Errorf("the flow %v is tracked", f)
		}
	}
	place{}.expect(t, "tcp", address, "b 172.30.1.1")
	if flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET); err != nil || len(flows) == 0 {
		t.Errorf("nothing is tracked (%v), so the test tells nothing", err)
	}
}

// TestKernelPrintsTheSameTable compares the value with what nft(8) reads back.
func TestKernelPrintsTheSameTable(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs nft")
	}
	if !asHost(t) {
		return
	}
	must(t, writeSysctl("ipv4/ip_forward", "0"))
	s := open(t, testConfig("tt0", 1))
	attach(t, s, "c", append(hostPorts(9000, 9003, 0), Port{HostIP: addr("127.0.0.1"), HostPort: 8080, ContainerPort: 80})...)
	for _, want := range s.rules.wanted().Tables {
		out, err := exec.Command(nft, "list", "table", want.Family.String(), s.cfg.Name).CombinedOutput()
		must(t, err)
		if want.Family == firewall.Bridge {
			continue // nft has no names for what it does not know the protocol of
		}
		if want.Family == firewall.Netdev { // the same, but it reads what it would not write
			cmd := exec.Command(nft, "-c", "-f", "-")
			cmd.Stdin = strings.NewReader(strings.Replace(want.String(), s.cfg.Name, "tare-again", 1))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("nft does not read the table: %v: %s", err, out)
			}
			continue
		}
		words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if diff := cmp.Diff(words(want.String()), words(string(out))); diff != "" {
			t.Errorf("wanted, and what the kernel has: %s", diff)
		}
	}
	out, err := exec.Command(nft, "list", "set", "ip", guard.Name, "bridges").CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), `elements = { "tt0" }`) {
		t.Errorf("the guard has\n%s", out)
	}
}

// Of a network that was removed the guard, which all daemons share and which
// stays until the next boot, keeps nothing.
func TestGuardForgetsNetworks(t *testing.T) {
	if !asHost(t) {
		return
	}
	must(t, writeSysctl("ipv4/ip_forward", "0"))
	s := open(t, stored(t))
	conn, err := nftables.New()
	must(t, err)
	held := func() int {
		set, err := conn.GetSetByName(guard, "bridges")
		must(t, err)
		elements, err := conn.GetSetElements(set)
		must(t, err)
		return len(elements)
	}
	before := held()
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "mine"}}))
	create(t, s, wire.CreateRequest{Name: "ours"})
	create(t, s, wire.CreateRequest{Name: "theirs", Options: map[string]string{"com.docker.network.bridge.name": "mine"}})
	if n := held(); n != before+2 {
		t.Errorf("the guard has %d bridges, and had %d before two networks", n, before)
	}
	must(t, s.Remove(t.Context(), "ours"))
	must(t, s.Remove(t.Context(), "theirs"))
	if n := held(); n != before {
		t.Errorf("the guard has %d bridges, and had %d before the networks that are gone", n, before)
	}
}

// A mount shows the sysfs that its namespace has already, which tells by being
// read-only although it was not asked for.
func TestSpareHasItsSysfs(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := testConfig("tt0", 1)
	c.Spare = 2
	s := open(t, c)
	spare := s.lans.byName[networkBridge].pool.spare
	for _, readOnly := range []bool{true, false} {
		testutil.Eventually(t, 5*time.Second, "a namespace that waits", func() bool { return len(spare) == 1 })
		a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "a", ReadOnlySys: readOnly})
		must(t, err)
		if (a.Sys != nil) != readOnly {
			t.Errorf("sysfs read-only: %v, made already: %v", readOnly, a.Sys != nil)
		}
		if got, err := sysfsReadOnly(t, a.NetNS); err != nil || got != readOnly {
			t.Errorf("a mount of sysfs is read-only: %v, %v; %v is wanted", got, err, readOnly)
		}
		if a.Sys != nil {
			a.Sys.Close()
		}
		letGo(a)
		must(t, s.Detach(t.Context(), a.Sandbox))
	}
}

// sysfsReadOnly mounts the namespace's sysfs to be written, and tells whether it can.
func sysfsReadOnly(t *testing.T, ns *os.File) (is bool, err error) {
	dir := t.TempDir()
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return false
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return false
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return false
		}
		if err = unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
			return false
		}
		var st unix.Statfs_t
		err = unix.Statfs(dir, &st)
		is = st.Flags&unix.ST_RDONLY != 0
		return false // the thread, and with it the mount, goes
	})
	return is, err
}
