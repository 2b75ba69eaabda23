package driver

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/tarehq/tare/internal/idgen"
)

// Of these fluentd-async, -buffer-limit and -max-retries have nothing to do
// here: the container never waits for the receiver, the local log is the
// buffer, and sending is never given up.
var fluentdKeys = []string{"fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit",
	"fluentd-max-retries", "fluentd-read-timeout", "fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision",
	"fluentd-write-timeout"}

func checkFluentd(opts map[string]string) error {
	if _, _, err := fluentdAddress(opts["fluentd-address"]); err != nil {
		return fmt.Errorf("invalid fluentd-address (%s): %w", opts["fluentd-address"], err)
	}
	invalid := func(key string, err error) error {
		return fmt.Errorf("invalid value for %s: %w", key, err)
	}
	for _, key := range []string{"fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"} {
		if _, err := strconv.ParseBool(cmp.Or(opts[key], "0")); err != nil {
			return invalid(key, err)
		}
	}
	for _, key := range []string{"fluentd-async-reconnect-interval", "fluentd-retry-wait", "fluentd-read-timeout", "fluentd-write-timeout"} {
		d, err := time.ParseDuration(cmp.Or(opts[key], "0"))
		if err == nil && d < 0 {
			err = fmt.Errorf("value must be a positive duration: %s", opts[key])
		}
		if err == nil && key == "fluentd-async-reconnect-interval" && d != 0 && (d < 100*time.Millisecond || d > 10*time.Second) {
			err = fmt.Errorf("interval must be between 100ms and 10s: %s", opts[key])
		}
		if err != nil {
			return invalid(key, err)
		}
	}
	if _, err := units.RAMInBytes(cmp.Or(opts["fluentd-buffer-limit"], "0")); err != nil {
		return invalid("fluentd-buffer-limit", err)
	}
	if _, err := strconv.ParseUint(cmp.Or(opts["fluentd-max-retries"], "0"), 10, 32); err != nil {
		return invalid("fluentd-max-retries", err)
	}
	return nil
}

// fluentdAddress reads HOST[:PORT], or scheme://… of tcp, tls and unix.
func fluentdAddress(address string) (network, addr string, err error) {
	if address == "" {
		address = "tcp://"
	}
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "unix":
		if strings.TrimLeft(u.Path, "/") == "" {
			return "", "", fmt.Errorf("path is empty")
		}
		return u.Scheme, u.Path, nil
	case "tcp", "tls":
	default:
		return "", "", fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	if u.Path != "" {
		return "", "", fmt.Errorf("should not contain a path element")
	}
	host, port := cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "24224")
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("invalid port: %w", err)
	}
	return u.Scheme, net.JoinHostPort(host, port), nil
}

// newFluentd speaks fluentd's forward protocol in its message mode, as Docker
// does: [tag, time, record, option] in MessagePack.
func newFluentd(opts map[string]string, info Info) (*Receiver, error) {
	network, addr, err := fluentdAddress(opts["fluentd-address"])
	if err != nil {
		return nil, err
	}
	tag, err := info.tag(defaultTag)
	if err != nil {
		return nil, err
	}
	extra, err := info.ExtraAttributes(nil)
	if err != nil {
		return nil, err
	}
	ack, _ := strconv.ParseBool(opts["fluentd-request-ack"])
	exact, _ := strconv.ParseBool(opts["fluentd-sub-second-precision"])
	fixed := map[string]string{"container_id": info.ContainerID, "container_name": info.ContainerName}
	r := &Receiver{sure: ack, dial: fluentdDial(network, addr, opts)}
	r.Wait, _ = time.ParseDuration(opts["fluentd-retry-wait"])
	r.Renew, _ = time.ParseDuration(opts["fluentd-async-reconnect-interval"])
	r.format = func(b []byte, m *Message) []byte {
		record := maps.Clone(fixed)
		record["source"], record["log"] = m.Stream.String(), string(m.Line)
		maps.Copy(record, extra)
		if p := m.Partial; p != nil {
			record["partial_message"], record["partial_id"] = "true", p.ID
			record["partial_ordinal"], record["partial_last"] = strconv.Itoa(p.Ordinal), strconv.FormatBool(p.Last)
		}
		b = append(b, 0x94) // an array of four
		b = packString(b, tag)
		b = packTime(b, m.Time, exact)
		b = packMap(b, record)
		option := map[string]string{}
		if ack {
			option["chunk"] = idgen.New()
		}
		return packMap(b, option)
	}
	if ack {
		r.confirm = func(c net.Conn, messages int) error { return readAcks(c, messages) }
	}
	return r, nil
}

func fluentdDial(network, addr string, opts map[string]string) func(context.Context) (net.Conn, error) {
	read, _ := time.ParseDuration(opts["fluentd-read-timeout"])
	write, _ := time.ParseDuration(opts["fluentd-write-timeout"])
	return func(ctx context.Context) (net.Conn, error) {
		var c net.Conn
		var err error
		if network == "tls" {
			c, err = (&tls.Dialer{}).DialContext(ctx, "tcp", addr)
		} else {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		if err != nil || read == 0 && write == 0 {
			return c, err
		}
		return &timedConn{c, read, write}, nil
	}
}

// timedConn bounds each read and write.
type timedConn struct {
	net.Conn
	read, write time.Duration
}

func (c *timedConn) Write(p []byte) (int, error) {
	if c.write > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.write)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// NetConn is the connection within.
func (c *timedConn) NetConn() net.Conn {
	if t, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c.Conn
}

// readAcks reads {"ack": chunk} as often as messages were sent. They come in
// the order of the messages, so the number is enough.
func readAcks(c net.Conn, n int) error {
	if t, ok := c.(*timedConn); ok && t.read > 0 {
		if err := c.SetReadDeadline(time.Now().Add(t.read)); err != nil {
			return err
		}
	}
	src := bufio.NewReaderSize(c, 512)
	for ; n > 0; n-- {
		head, err := src.ReadByte()
		if err != nil {
			return err
		}
		if head&0xf0 != 0x80 {
			return fmt.Errorf("fluentd answered with no acknowledgement")
		}
		for range 2 * int(head&0x0f) {
			if err := skipString(src); err != nil {
				return err
			}
		}
	}
	return nil
}

func skipString(src *bufio.Reader) error {
	head, err := src.ReadByte()
	if err != nil {
		return err
	}
	length := make([]byte, 4)
	width := 0
	switch {
	case head&0xe0 == 0xa0:
		length[3] = head & 0x1f
	case head == 0xd9 || head == 0xc4:
		width = 1
	case head == 0xda || head == 0xc5:
		width = 2
	default:
		return fmt.Errorf("fluentd's acknowledgement cannot be read")
	}
	for i := range width {
		if length[4-width+i], err = src.ReadByte(); err != nil {
			return err
		}
	}
	_, err = src.Discard(int(binary.BigEndian.Uint32(length)))
	return err
}

// packString appends a MessagePack str.
func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func packMap(b []byte, m map[string]string) []byte {
	if n := len(m); n < 16 {
		b = append(b, 0x80|byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0xde), uint16(n))
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b = packString(packString(b, key), m[key])
	}
	return b
}

// packTime appends seconds since 1970, or fluentd's EventTime: extension type
// 0 with seconds and nanoseconds.
func packTime(b []byte, t time.Time, exact bool) []byte {
	if !exact {
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(t.Unix()))
	}
	b = binary.BigEndian.AppendUint32(append(b, 0xd7, 0), uint32(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}
