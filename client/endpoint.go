package client

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"

	"github.com/tarehq/tare/fault"
)

// DefaultHost is where tared listens when nothing else is said.
const DefaultHost = "unix:///run/tare/tare.sock"

// Endpoint says where a daemon is.
type Endpoint struct {
	Host    string            // unix:///path, tcp://address:port or ssh://[user@]host[:port][/path]
	TLS     *TLSFile          // nil: no TLS
	Header  map[string]string // goes with every request
	Context string            // whose endpoint it is, for errors; "" for none
}

// TLSFile names the PEM files of a TLS connection. Empty names are left out.
type TLSFile struct {
	CA, Cert, Key string
	Verify        bool   // the daemon's certificate must be trusted
	ServerName    string // "" takes it from the address
}

// ParseHost completes what a user wrote as a daemon's address: tcp:// without
// a port gets 2375, or 2376 with TLS; a bare path or host:port gets its scheme.
func ParseHost(host string, useTLS bool) (string, error) {
	host = strings.TrimSpace(host)
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "tcp", host
		if strings.HasPrefix(host, "/") {
			scheme = "unix"
		}
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return DefaultHost, nil
		}
		return "unix://" + rest, nil
	case "tcp":
		rest, _, _ = strings.Cut(rest, "/")
		port := "2375"
		if useTLS {
			port = "2376"
		}
		name, given, err := net.SplitHostPort(rest)
		if err != nil {
			name, given = strings.Trim(rest, "[]"), ""
		}
		if name == "" {
			name = "127.0.0.1"
		}
		if given == "" {
			given = port
		}
		return "tcp://" + net.JoinHostPort(name, given), nil
	case "ssh":
		if _, err := parseSSH(host); err != nil {
			return "", err
		}
		return host, nil
	}
	return "", fault.New(fault.Invalid, "unable to parse docker host `%s`: use unix:///path, tcp://host:port or ssh://user@host", host)
}

// splitHost gives the network and the address that net.Dial wants.
func splitHost(host string) (network, address string, err error) {
	switch scheme, rest, _ := strings.Cut(host, "://"); scheme {
	case "unix", "tcp", "ssh":
		return scheme, rest, nil
	}
	return "", "", fault.New(fault.Invalid, "unable to parse docker host `%s`: use unix:///path, tcp://host:port or ssh://user@host", host)
}

// config reads the files.
func (f *TLSFile) config(address string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !f.Verify, ServerName: f.ServerName}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	if f.Verify && f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fault.New(fault.Invalid, "could not read CA certificate %q: %w", f.CA, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "failed to append certificates from PEM file: %q", f.CA)
		}
	}
	if f.Cert != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "could not load the client's key pair %s, %s: %w", f.Cert, f.Key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
