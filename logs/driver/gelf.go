package driver

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Of these gelf-tcp-max-reconnect has nothing to do here: sending is never
// given up.
var gelfKeys = []string{"gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"}

func checkGELF(opts map[string]string) error {
	u, err := gelfAddress(opts["gelf-address"])
	if err != nil {
		return err
	}
	for _, key := range gelfKeys[1:] {
		value, given := opts[key]
		if !given {
			continue
		}
		n, err := strconv.Atoi(value)
		switch tcp := strings.HasPrefix(key, "gelf-tcp"); {
		case tcp && u.Scheme != "tcp":
			return fmt.Errorf("%q is only valid for TCP", key)
		case tcp && (err != nil || n < 0):
			return fmt.Errorf("%q must be a positive integer", key)
		case !tcp && u.Scheme != "udp":
			return errors.New("compression is only supported on UDP")
		case key == "gelf-compression-level" && (err != nil || n < gzip.DefaultCompression || n > gzip.BestCompression),
			key == "gelf-compression-type" && value != "gzip" && value != "zlib" && value != "none":
			return fmt.Errorf("unknown value %q for log opt %q for gelf log driver", value, key)
		}
	}
	return nil
}

func gelfAddress(address string) (*url.URL, error) {
	if address == "" {
		return nil, errors.New("gelf-address is a required parameter")
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return nil, errors.New("gelf: endpoint needs to be TCP or UDP")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, errors.New("gelf: please provide gelf-address as proto://host:port")
	}
	return u, nil
}

func newGELF(opts map[string]string, info Info) (*Receiver, error) {
	u, err := gelfAddress(opts["gelf-address"])
	if err != nil {
		return nil, err
	}
	tag, host, err := info.sender()
	if err != nil {
		return nil, err
	}
	attrs, err := info.ExtraAttributes(func(key string) string { return "_" + strings.TrimPrefix(key, "_") })
	if err != nil {
		return nil, err
	}
	fixed := map[string]any{
		"version": "1.1", "host": host, "_container_id": info.ContainerID, "_container_name": info.Name(), "_image_id": info.ContainerImageID,
		"_image_name": info.ContainerImageName, "_command": info.Command(), "_tag": tag, "_created": info.ContainerCreated,
	}
	for key, value := range attrs {
		fixed[key] = value
	}
	r := &Receiver{dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, u.Scheme, u.Host)
	}}
	if seconds, err := strconv.Atoi(opts["gelf-tcp-reconnect-delay"]); err == nil {
		r.Wait = time.Duration(seconds) * time.Second
	}
	tcp := u.Scheme == "tcp"
	r.format = func(b []byte, m *Message) []byte {
		all := maps.Clone(fixed)
		all["short_message"], all["level"] = string(m.Line), severity(m.Stream)
		all["timestamp"] = json.Number(strconv.FormatFloat(float64(m.Time.UnixMilli())/1000, 'f', 3, 64))
		text, err := json.Marshal(all)
		if err != nil { // there is nothing in it that cannot be encoded
			return b
		}
		if b = append(b, text...); tcp {
			b = append(b, 0)
		}
		return b
	}
	if !tcp {
		r.send = gelfSend(opts)
	}
	return r, nil
}

// gelfPacket is how many bytes go into one datagram, with the head of a chunk
// of it, as Graylog's clients do.
const (
	gelfPacket    = 1420
	gelfHead      = 12
	gelfMaxChunks = 128
)

// gelfSend compresses a message and sends it, in chunks if it is long.
func gelfSend(opts map[string]string) func(net.Conn, []byte) error {
	level := gzip.BestSpeed
	if n, err := strconv.Atoi(opts["gelf-compression-level"]); err == nil {
		level = n
	}
	return func(c net.Conn, text []byte) error {
		var b bytes.Buffer
		var z io.WriteCloser
		var err error
		switch opts["gelf-compression-type"] {
		case "none":
		case "zlib":
			z, err = zlib.NewWriterLevel(&b, level)
		default:
			z, err = gzip.NewWriterLevel(&b, level)
		}
		if err != nil {
			return err
		}
		if z != nil {
			if _, err := z.Write(text); err != nil {
				return err
			}
			if err := z.Close(); err != nil {
				return err
			}
			text = b.Bytes()
		}
		if len(text) <= gelfPacket {
			_, err := c.Write(text)
			return err
		}
		return gelfChunks(c, text)
	}
}

func gelfChunks(c net.Conn, text []byte) error {
	const room = gelfPacket - gelfHead
	n := (len(text) + room - 1) / room
	if n > gelfMaxChunks { // nothing can carry it
		n, text = gelfMaxChunks, text[:gelfMaxChunks*room]
	}
	head := []byte{0x1e, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(n)}
	rand.Read(head[2:10])
	for i := range n {
		head[10] = byte(i)
		part := text[i*room : min(len(text), (i+1)*room)]
		if _, err := c.Write(append(head[:gelfHead:gelfHead], part...)); err != nil {
			return err
		}
	}
	return nil
}
