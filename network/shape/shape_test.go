package shape

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

const host = "tvtest0abcdefgh"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func give(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
}

// pair gives a container's namespace with 10.7.0.2 and a bridge with 10.7.0.1 that
// the other end is on.
func pair(t *testing.T) *os.File {
	t.Helper()
	ns := testutil.NewNetNS(t)
	bridge := netlink.NewLinkAttrs()
	bridge.Name = "br0"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: bridge}))
	must(t, give("br0", "10.7.0.1/24"))
	br, err := netlink.LinkByName("br0")
	must(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = host, br.Attrs().Index
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}))
	end, err := netlink.LinkByName(host)
	must(t, err)
	must(t, netlink.LinkSetUp(end))
	testutil.InNetNS(t, ns, func() error { return give("eth0", "10.7.0.2/24") })
	return ns
}

// flow sends for a while, to the container or from it, and tells how many bytes
// arrived and in which time.
func flow(t *testing.T, ns *os.File, in bool) (int64, time.Duration) {
	t.Helper()
	l, err := net.Listen("tcp4", "10.7.0.1:0")
	must(t, err)
	defer l.Close()
	var inner net.Conn
	testutil.InNetNS(t, ns, func() error {
		inner, err = net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
		return err
	})
	defer inner.Close()
	outer, err := l.Accept()
	must(t, err)
	defer outer.Close()
	from, to := inner, outer
	if in {
		from, to = outer, inner
	}
	began := time.Now()
	end := began.Add(testutil.Patience(200 * time.Millisecond))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		from.SetDeadline(end)
		for chunk := make([]byte, 64<<10); ; {
			if _, err := from.Write(chunk); err != nil {
				return
			}
		}
	}()
	to.SetDeadline(end)
	n, _ := io.Copy(io.Discard, to)
	took := time.Since(began)
	<-sent
	return n, took
}

// within tells whether that many bytes can have passed at a rate, and were not few
// either: the bound holds whatever else the machine does.
func within(t *testing.T, what string, rate uint64, n int64, took time.Duration) {
	t.Helper()
	most := int64(float64(rate)/8*took.Seconds()*1.1) + 64<<10
	if n > most || n == 0 {
		t.Errorf("%s at %d bits per second: %d bytes in %v, at most %d can be", what, rate, n, took, most)
	}
}

// queues lists an interface's kinds of queue with the rates of buckets.
func queues(t *testing.T, name string) string {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		return "gone"
	}
	list, err := netlink.QdiscList(link)
	must(t, err)
	var words []string
	for _, q := range list {
		switch q := q.(type) {
		case *netlink.Tbf:
			words = append(words, fmt.Sprint("tbf ", q.Rate*8))
		case *netlink.Netem:
			words = append(words, "netem")
		case *netlink.Ingress:
			words = append(words, "ingress")
		}
	}
	return strings.Join(words, " ")
}

func TestRates(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	ns := pair(t)
	aside := asideName(host)
	for _, c := range []struct {
		limits      Limits
		host, aside string
	}{
		{Limits{In: 8_000_000}, "tbf 8000000", "gone"},
		{Limits{In: 8_000_000, Out: 4_000_000}, "tbf 8000000 ingress", "tbf 4000000"},
		{Limits{In: 2_000_000, Out: 16_000_000}, "tbf 2000000 ingress", "tbf 16000000"},
		{Limits{Out: 16_000_000}, "ingress", "tbf 16000000"},
		{Limits{}, "", "gone"},
		{Limits{In: 100_000_000_000, Out: 100_000_000_000}, "tbf 100000000000 ingress", "tbf 100000000000"},
		{Limits{In: Least, Out: Least}, "tbf 1000 ingress", "tbf 1000"},
	} {
		for range 2 { // what is there already stays
			must(t, Set(host, c.limits))
		}
		if h, a := queues(t, host), queues(t, aside); h != c.host || a != c.aside {
			t.Errorf("%+v: %q and %q, not %q and %q", c.limits, h, a, c.host, c.aside)
		}
		if c.limits.In == Least {
			continue
		}
		n, took := flow(t, ns, true)
		if in := c.limits.In; in != 0 && in < 1e9 {
			within(t, "in", in, n, took)
		} else if n < 1<<20 {
			t.Errorf("%+v: %d bytes in", c.limits, n)
		}
		n, took = flow(t, ns, false)
		if out := c.limits.Out; out != 0 && out < 1e9 {
			within(t, "out", out, n, took)
		} else if n < 1<<20 {
			t.Errorf("%+v: %d bytes out", c.limits, n)
		}
	}
}

// What does not go with the pair goes by Clear, or later by Sweep, and nothing else.
func TestNothingIsLeft(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	pair(t)
	must(t, Set(host, Limits{Out: 1_000_000}))
	foreign := netlink.NewLinkAttrs()
	foreign.Name = "tiother"
	must(t, netlink.LinkAdd(&netlink.Ifb{LinkAttrs: foreign}))
	link, err := netlink.LinkByName(host)
	must(t, err)
	must(t, netlink.LinkDel(link))
	for range 2 {
		must(t, Sweep("tvtest0", func(name string) bool { return name == host }))
		if queues(t, asideName(host)) == "gone" {
			t.Fatal("swept what is in use")
		}
	}
	must(t, Sweep("tvtest0", func(string) bool { return false }))
	if queues(t, asideName(host)) != "gone" || queues(t, "tiother") == "gone" {
		t.Error("swept wrongly")
	}
	must(t, Clear(host))
	if err := Set(host, Limits{Out: 1_000_000}); err == nil || !strings.Contains(err.Error(), host) {
		t.Errorf("a pair that is gone: %v", err)
	}
	if queues(t, asideName(host)) != "gone" {
		t.Error("a failure left an interface")
	}
}

func TestEmulation(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	slow := Limits{Delay: 100 * time.Millisecond, Out: 4_000_000}
	if !emulation() {
		if err := slow.Check(); !errors.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "CONFIG_NET_SCH_NETEM") {
			t.Errorf("without netem in the kernel: %v", err)
		}
		t.Skip("the kernel has no netem")
	}
	ns := pair(t)
	aside := asideName(host)
	must(t, slow.Check())
	must(t, Set(host, Limits{Out: 4_000_000}))
	must(t, Set(host, slow))
	if got := queues(t, aside); got != "netem tbf 4000000" {
		t.Errorf("delay and rate: %q", got)
	}
	began := time.Now()
	n, took := flow(t, ns, false)
	within(t, "out", slow.Out, n, took)
	if time.Since(began) < slow.Delay {
		t.Error("no delay")
	}
	must(t, Set(host, Limits{Delay: time.Millisecond}))
	if got := queues(t, aside); got != "netem" {
		t.Errorf("delay alone: %q", got)
	}
	testutil.Eventually(t, 10*time.Second, "more passes than the rate had let", func() bool { n, _ := flow(t, ns, false); return n >= 1<<20 })
	must(t, Set(host, Limits{Loss: 100}))
	testutil.InNetNS(t, ns, func() error {
		if c, err := net.DialTimeout("tcp4", "10.7.0.1:9", 200*time.Millisecond); err == nil || !err.(net.Error).Timeout() {
			t.Errorf("with all lost: %v, %v", c, err)
		}
		return nil
	})
	must(t, Set(host, Limits{Out: 4_000_000}))
	if got := queues(t, aside); got != "tbf 4000000" {
		t.Errorf("rate alone again: %q", got)
	}
}

func TestCheck(t *testing.T) {
	for _, bad := range []Limits{{In: 999}, {Out: 1}, {Delay: -1}, {Delay: time.Hour}, {Loss: -1}, {Loss: 101}} {
		if err := bad.Check(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	must(t, Limits{In: Least, Out: 1 << 40}.Check())
}
