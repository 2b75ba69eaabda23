package relay

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// held gives the socket of a listener, as the supervising process holds it.
func held(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func start(t *testing.T, sockets []*os.File, rules ...Rule) *Relay {
	t.Helper()
	r, err := New(sockets, rules, Busy{func() {}, func() {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func listen6(t *testing.T) (*net.TCPListener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 loopback")
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func TestStreamIsCarriedBothWays(t *testing.T) {
	service, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() {
		for {
			conn, err := service.Accept()
			if err != nil {
				return
			}
			go func() { // answers only after the end of what it is told
				all, _ := io.ReadAll(conn)
				conn.Write(bytes.ToUpper(all))
				conn.Close()
			}()
		}
	}()
	l, port := listen6(t)
	start(t, []*os.File{held(t, l)}, Rule{"tcp", "::1", port, port, service.Addr().String(), false})
	sent := bytes.Repeat([]byte("some words "), 100_000)
	for range 3 {
		conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		conn.Write(sent)
		conn.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, bytes.ToUpper(sent)) {
			t.Errorf("%d bytes came back of %d (%v)", len(got), len(sent), err)
		}
		conn.Close()
	}
}

func TestRefusalIsPassedOn(t *testing.T) {
	l, port := listen6(t)
	start(t, []*os.File{held(t, l)}, Rule{"tcp", "::1", port, port, "127.0.0.1:1", false})
	conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		return // at once
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestDatagramsComeFromTheAddressThatWasAsked(t *testing.T) {
	service, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := service.ReadFrom(buf)
			if err != nil {
				return
			}
			service.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	t.Run("udp6", func(t *testing.T) { hearsThatAddress(t, "udp6", net.IPv6unspecified, "[::1]", service.LocalAddr()) })
	t.Run("udp4", func(t *testing.T) { hearsThatAddress(t, "udp4", net.IPv4zero, "127.0.0.2", service.LocalAddr()) }) // not the one that the kernel chooses
}

func hearsThatAddress(t *testing.T, network string, all net.IP, host string, service net.Addr) {
	wildcard, err := net.ListenUDP(network, &net.UDPAddr{IP: all})
	if err != nil {
		t.Skip("no ", network)
	}
	defer wildcard.Close()
	port := wildcard.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	r := start(t, []*os.File{held(t, wildcard)}, Rule{"udp", all.String(), port, port, service.String(), false})
	for i := range 3 {
		conn, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(port))) // hears no other address
		if err != nil {
			t.Skip("no loopback of ", network)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		for range 2 {
			word := []byte(fmt.Sprint("datagram ", i))
			conn.Write(word)
			buf := make([]byte, 100)
			if n, err := conn.Read(buf); err != nil || !bytes.Equal(buf[:n], bytes.ToUpper(word)) {
				t.Errorf("answer %q, %v", buf[:n], err)
			}
		}
	}
	r.Close()
	if len(r.peers) != 0 {
		t.Errorf("%d flows are left", len(r.peers))
	}
}

func TestEachPortOfARangeHasItsOwn(t *testing.T) {
	l, port := listen6(t)
	f := held(t, l)
	ways, err := readRules([]Rule{{"udp", "::1", port, port, "10.0.0.2:1", false}, {"tcp", "::", port, port, "10.0.0.2:2", false}, {"tcp", "::1", port - 3, port + 3, "10.0.0.2:8000", false}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := portOf(int(f.Fd()), ways)
	if err != nil || p == nil || p.to.String() != "10.0.0.2:8003" {
		t.Errorf("%+v, %v", p, err)
	}
}
