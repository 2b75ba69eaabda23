package driver

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/logs"
)

var messages = []Message{
	{Stream: logs.Stdout, Time: time.Date(2026, 11, 23, 22, 3, 2, 123456789, time.UTC), Line: []byte("one")},
	{Stream: logs.Stderr, Time: time.Date(2026, 11, 23, 22, 3, 3, 0, time.UTC), Line: []byte("two"), Partial: &Partial{ID: "p", Ordinal: 2, Last: false}},
}

func send(t *testing.T, name string, info Info, list []Message) {
	t.Helper()
	r, err := NewReceiver(name, info)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(list); err != nil {
		t.Fatal(err)
	}
}

// packets listens for datagrams.
func packets(t *testing.T, network, address string) (net.PacketConn, func() string) {
	t.Helper()
	l, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, func() string {
		t.Helper()
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 64<<10)
		n, _, err := l.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// accept returns all that the first client of a listener sends.
func accept(l net.Listener) <-chan string {
	got := make(chan string, 1)
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		got <- string(text)
	}()
	return got
}

func match(t *testing.T, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%q is not %s", got, pattern)
	}
}

func TestSyslogPackets(t *testing.T) {
	l, next := packets(t, "udp", "127.0.0.1:0")
	pid, host := os.Getpid(), "[^ ]+"
	for format, want := range map[string]string{
		"":             fmt.Sprintf(`^<158>Nov 2[234] \d\d:03:02 box\[%d\]: one\n$`, pid),
		"rfc3164":      fmt.Sprintf(`^<158>Nov 2[234] \d\d:03:02 %s box\[%d\]: one\n$`, host, pid),
		"rfc5424":      fmt.Sprintf(`^<158>1 2026-11-23T22:03:02Z %s box %d box - one\n$`, host, pid),
		"rfc5424micro": fmt.Sprintf(`^<158>1 2026-11-23T22:03:02.123456Z %s box %d box - one\n$`, host, pid),
	} {
		send(t, "syslog", testInfo("syslog-address", "udp://"+l.LocalAddr().String(), "syslog-facility", "local3", "syslog-format", format, "tag", "{{.Name}}"), messages)
		match(t, next(), want)
		match(t, next(), `^<155>`) // stderr is an error
	}
	path := filepath.Join(t.TempDir(), "s")
	_, next = packets(t, "unixgram", path)
	send(t, "syslog", testInfo("syslog-address", "unixgram://"+path), messages)
	match(t, next(), `^<30>.* 0123456789ab\[\d+\]: one\n$`)
}

func TestSyslogStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, at := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", path}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		got := accept(l)
		send(t, "syslog", testInfo("syslog-address", at[0]+"://"+l.Addr().String()), messages)
		match(t, <-got, `^<30>.*: one\n<27>.*: two\n$`)
	}
}

// certificate makes one for 127.0.0.1 and writes it to a file.
func certificate(t *testing.T) (pair tls.Certificate, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func TestSyslogTLS(t *testing.T) {
	pair, ca := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	address := "tcp+tls://" + l.Addr().String()
	r, err := NewReceiver("syslog", testInfo("syslog-address", address))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil { // of the one that does not trust us
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	if c, err := r.Dial(t.Context()); err == nil {
		c.Close()
		t.Fatal("an unknown certificate was trusted")
	}
	got := accept(l)
	send(t, "syslog", testInfo("syslog-address", address, "syslog-tls-ca-cert", ca, "syslog-format", "rfc5424"), messages[:1])
	text := <-got // RFC 5425: length, space, message
	length, rest, _ := strings.Cut(text, " ")
	if length != fmt.Sprint(len(rest)) || !strings.HasSuffix(rest, " - one\n") {
		t.Errorf("%q", text)
	}
}

func TestWaits(t *testing.T) {
	for driver, opts := range map[string][]string{
		"fluentd": {"fluentd-retry-wait", "3s", "fluentd-async-reconnect-interval", "5s"},
		"gelf":    {"gelf-address", "tcp://h:1", "gelf-tcp-reconnect-delay", "3"},
	} {
		r, err := NewReceiver(driver, testInfo(opts...))
		if err != nil || r.Wait != 3*time.Second || driver == "fluentd" && r.Renew != 5*time.Second {
			t.Errorf("%s: %+v, %v", driver, r, err)
		}
	}
}

func TestFluentd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []any, 2)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		d := unpacker{c}
		for range 2 {
			entry := d.value().([]any)
			got <- entry
			c.Write(packMap(nil, map[string]string{"ack": entry[3].(map[string]any)["chunk"].(string)}))
		}
	}()
	send(t, "fluentd", testInfo("fluentd-address", l.Addr().String(), "fluentd-request-ack", "true", "fluentd-sub-second-precision", "1", "env", "A", "tag", "t"), messages)
	one, two := <-got, <-got
	if one[0] != "t" || one[1] != "event 1795471382.123456789" {
		t.Errorf("%v", one)
	}
	want := "map[A:1 container_id:0123456789abcdef container_name:/box log:one source:stdout]"
	if s := fmt.Sprint(one[2]); s != want {
		t.Errorf("%s, want %s", s, want)
	}
	want = "map[A:1 container_id:0123456789abcdef container_name:/box log:two partial_id:p partial_last:false partial_message:true partial_ordinal:2 source:stderr]"
	if s := fmt.Sprint(two[2]); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

// unpacker reads the MessagePack that fluentd's clients send.
type unpacker struct{ r io.Reader }

func (u unpacker) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(u.r, b); err != nil {
		panic(err)
	}
	return b
}

func (u unpacker) number(n int) (v int) {
	for _, b := range u.bytes(n) {
		v = v<<8 | int(b)
	}
	return v
}

func (u unpacker) value() any {
	switch h := u.bytes(1)[0]; {
	case h&0xe0 == 0xa0:
		return string(u.bytes(int(h & 0x1f)))
	case h == 0xd9:
		return string(u.bytes(u.number(1)))
	case h&0xf0 == 0x90:
		list := make([]any, h&0x0f)
		for i := range list {
			list[i] = u.value()
		}
		return list
	case h&0xf0 == 0x80:
		m := map[string]any{}
		for range h & 0x0f {
			key := u.value().(string)
			m[key] = u.value()
		}
		return m
	case h == 0xd7:
		if u.number(1) != 0 {
			panic("no EventTime")
		}
		return fmt.Sprintf("event %d.%09d", u.number(4), u.number(4))
	case h == 0xd3:
		return u.number(8)
	default:
		panic(fmt.Sprintf("head %x", h))
	}
}

// fields reads an entry of journald's native protocol.
func fields(t *testing.T, entry []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for len(entry) > 0 {
		line, rest, _ := bytes.Cut(entry, []byte("\n"))
		if name, value, ok := bytes.Cut(line, []byte("=")); ok {
			out[string(name)], entry = string(value), rest
			continue
		}
		var n int
		for i := range 8 {
			n |= int(rest[i]) << (8 * i)
		}
		out[string(line)], entry = string(rest[8:8+n]), rest[8+n+1:]
	}
	return out
}

func TestJournald(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, _ := packets(t, "unixgram", path)
	r, err := NewReceiver("journald", testInfo("labels", "com.x", "tag", "t"))
	if err != nil {
		t.Fatal(err)
	}
	r.dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unixgram", path)
	}
	c, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := strings.Repeat("x", 1<<20) + "\nwith a newline"
	big := messages[1]
	big.Line = []byte(long)
	sent := make(chan error, 1)
	go func() {
		err := c.Send([]Message{messages[0], big})
		if err != nil {
			t.Error(err)
		}
		sent <- err
	}()
	one := fields(t, receiveJournal(t, l))
	for key, want := range map[string]string{"MESSAGE": "one", "PRIORITY": "6", "CONTAINER_ID": "0123456789ab", "CONTAINER_ID_FULL": "0123456789abcdef",
		"CONTAINER_NAME": "box", "CONTAINER_TAG": "t", "SYSLOG_IDENTIFIER": "t", "IMAGE_NAME": "busybox", "COM_X": "l", "SYSLOG_TIMESTAMP": "2026-11-23T22:03:02.123456789Z"} {
		if one[key] != want {
			t.Errorf("%s is %q, want %q", key, one[key], want)
		}
	}
	two := fields(t, receiveJournal(t, l))
	if two["MESSAGE"] != long || two["PRIORITY"] != "3" || two["CONTAINER_PARTIAL_MESSAGE"] != "true" || two["CONTAINER_PARTIAL_ORDINAL"] != "2" || two["CONTAINER_PARTIAL_LAST"] != "false" {
		t.Errorf("%.300q", fmt.Sprint(two))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// receiveJournal reads an entry, from the file that comes in its place if it
// is a large one.
func receiveJournal(t *testing.T, l net.PacketConn) []byte {
	t.Helper()
	buf, oob := make([]byte, 64<<10), make([]byte, 64)
	l.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, m, _, _, err := l.(*net.UnixConn).ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if m == 0 {
		return buf[:n]
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("the file is not sealed: %x %v", seals, err)
	}
	entry, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func TestGELF(t *testing.T) {
	l, next := packets(t, "udp", "127.0.0.1:0")
	address := "udp://" + l.LocalAddr().String()
	send(t, "gelf", testInfo("gelf-address", address, "env", "A", "tag", "t"), messages[1:])
	z, err := gzip.NewReader(strings.NewReader(next()))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.NewDecoder(z).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"version": "1.1", "short_message": "two", "level": 3.0, "timestamp": 1795471383.0, "_container_name": "box", "_A": "1", "_tag": "t"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	long := messages[0]
	long.Line = bytes.Repeat([]byte("x"), 3000)
	send(t, "gelf", testInfo("gelf-address", address, "gelf-compression-type", "none"), []Message{long})
	var whole string
	for i := range 3 {
		chunk := next()
		if chunk[:2] != "\x1e\x0f" || int(chunk[10]) != i || chunk[11] != 3 {
			t.Fatalf("chunk %d begins with %x", i, chunk[:12])
		}
		whole += chunk[12:]
	}
	if !json.Valid([]byte(whole)) || !strings.Contains(whole, string(long.Line)) {
		t.Errorf("%.200q", whole)
	}
}

// A peer that is gone is noticed without a write.
func TestBroken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := NewReceiver("syslog", testInfo("syslog-address", "tcp://"+l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Sure() || !c.Settled() {
		t.Error("a fresh connection is sure, or has something in it")
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	peer.Close()
	select {
	case <-c.Broken():
	case <-time.After(5 * time.Second):
		t.Fatal("not noticed")
	}
	if c.Settled() {
		t.Error("a broken connection has settled")
	}
}
