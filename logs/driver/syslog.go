package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/logs"
)

var syslogKeys = []string{"syslog-address", "syslog-facility", "syslog-format",
	"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"}

// facilities in the order of their numbers, RFC 5424 section 6.2.1; those
// without a name of the protocol's are given by number.
var facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

// The severities that the streams have.
const (
	severityError = 3
	severityInfo  = 6
)

func severity(s logs.Stream) int {
	if s == logs.Stderr {
		return severityError
	}
	return severityInfo
}

// secureProto is syslog over TLS, RFC 5425.
const secureProto = "tcp+tls"

func checkSyslog(opts map[string]string) error {
	if _, _, err := syslogAddress(opts["syslog-address"]); err != nil {
		return err
	}
	if _, err := syslogFacility(opts["syslog-facility"]); err != nil {
		return err
	}
	_, err := syslogFormat(opts["syslog-format"])
	return err
}

// syslogAddress reads proto://address; both are empty for the local socket.
func syslogAddress(address string) (proto, addr string, err error) {
	if address == "" {
		return "", "", nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "unix", "unixgram":
		return u.Scheme, u.Path, nil // which may be away for now
	case "udp", "tcp", secureProto:
	default:
		return "", "", fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		if !strings.Contains(err.Error(), "missing port in address") {
			return "", "", err
		}
		return u.Scheme, net.JoinHostPort(u.Host, "514"), nil
	}
	return u.Scheme, u.Host, nil
}

func syslogFacility(name string) (int, error) {
	if name == "" {
		name = "daemon"
	}
	for n, f := range facilities {
		if f == name || strconv.Itoa(n) == name {
			return n, nil
		}
	}
	return 0, errors.New("invalid syslog facility")
}

// syslogHead appends what stands before a line; the process is that of this
// daemon, and the time that of the record.
type syslogHead func(b []byte, priority int, t time.Time, host, tag string) []byte

func syslogFormat(name string) (syslogHead, error) {
	rfc5424 := func(layout string) syslogHead {
		return func(b []byte, priority int, t time.Time, host, tag string) []byte {
			return fmt.Appendf(b, "<%d>1 %s %s %s %d %s - ", priority, t.Format(layout), host, tag, os.Getpid(), tag)
		}
	}
	switch name {
	case "":
		return func(b []byte, priority int, t time.Time, _, tag string) []byte {
			return fmt.Appendf(b, "<%d>%s %s[%d]: ", priority, t.Local().Format(time.Stamp), tag, os.Getpid())
		}, nil
	case "rfc3164":
		return func(b []byte, priority int, t time.Time, host, tag string) []byte {
			return fmt.Appendf(b, "<%d>%s %s %s[%d]: ", priority, t.Local().Format(time.Stamp), host, tag, os.Getpid())
		}, nil
	case "rfc5424":
		return rfc5424(time.RFC3339), nil
	case "rfc5424micro":
		return rfc5424("2006-01-02T15:04:05.000000Z07:00"), nil
	}
	return nil, errors.New("Invalid syslog format")
}

func newSyslog(opts map[string]string, info Info) (*Receiver, error) {
	proto, addr, err := syslogAddress(opts["syslog-address"])
	if err != nil {
		return nil, err
	}
	facility, err := syslogFacility(opts["syslog-facility"])
	if err != nil {
		return nil, err
	}
	head, err := syslogFormat(opts["syslog-format"])
	if err != nil {
		return nil, err
	}
	tag, host, err := info.sender()
	if err != nil {
		return nil, err
	}
	counted := proto == secureProto && strings.HasPrefix(opts["syslog-format"], "rfc5424")
	r := &Receiver{sure: proto == "" || proto == "unixgram"}
	r.format = func(b []byte, m *Message) []byte {
		start := len(b)
		b = head(b, facility<<3|severity(m.Stream), m.Time, host, tag)
		b = append(append(b, m.Line...), '\n')
		if counted { // RFC 5425 section 4.3: the length comes first
			text := string(b[start:])
			b = append(strconv.AppendInt(b[:start], int64(len(text)), 10), ' ')
			b = append(b, text...)
		}
		return b
	}
	if proto == "" || proto == "udp" || proto == "unixgram" {
		r.send = func(c net.Conn, datagram []byte) error { _, err := c.Write(datagram); return err }
	}
	r.dial, err = syslogDial(proto, addr, opts)
	return r, err
}

func syslogDial(proto, addr string, opts map[string]string) (func(context.Context) (net.Conn, error), error) {
	var d net.Dialer
	switch proto {
	case "":
		return func(ctx context.Context) (c net.Conn, err error) {
			for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
				if c, err = d.DialContext(ctx, "unixgram", path); err == nil {
					return c, nil
				}
			}
			return nil, err
		}, nil
	case secureProto:
		config, err := syslogTLS(opts)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
		}, nil
	}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, proto, addr) }, nil
}

func syslogTLS(opts map[string]string) (*tls.Config, error) {
	_, skip := opts["syslog-tls-skip-verify"]
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skip}
	if path := opts["syslog-tls-ca-cert"]; path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", path)
		}
	}
	if cert, key := opts["syslog-tls-cert"], opts["syslog-tls-key"]; cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
