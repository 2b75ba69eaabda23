package client

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
)

// APIVersion is the newest API version that this package speaks.
const APIVersion = "1.56"

// Client sends requests to one daemon. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	network  string // "unix", "tcp" or "ssh"
	address  string
	host     string // for the Host header
	header   string // lines that every request gets
	tls      *tls.Config
	pinned   bool // the version was chosen by the user

	mu         sync.Mutex
	version    string
	negotiated bool
	idle       []*conn
}

// New returns a client for the endpoint. It reads the endpoint's TLS files and
// does not connect. version pins the API version; "" leaves it to be found out.
func New(endpoint Endpoint, version string) (*Client, error) {
	c := &Client{endpoint: endpoint, version: APIVersion, host: "tared"}
	if version != "" {
		c.version, c.pinned = strings.TrimPrefix(version, "v"), true
	}
	var err error
	if c.network, c.address, err = splitHost(endpoint.Host); err != nil {
		return nil, err
	}
	if c.header, err = headerLines(endpoint.Header); err != nil {
		return nil, err
	}
	if c.network == "tcp" {
		c.host = c.address
		if endpoint.TLS != nil {
			if c.tls, err = endpoint.TLS.config(c.address); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// Host returns the endpoint's URL.
func (c *Client) Host() string { return c.endpoint.Host }

// Version returns the API version in use: the newest known one until a daemon
// has named a lower one.
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// headerLines renders the headers of every request: the program's name and those
// of the user's, which cannot be what the protocol itself needs.
func headerLines(header map[string]string) (string, error) {
	agent := "User-Agent: tare\r\n"
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(header)) {
		value := header[name]
		switch strings.ToLower(name) {
		case "user-agent":
			agent = ""
		case "", "host", "connection", "upgrade", "transfer-encoding", "content-length", "content-type":
			return "", fault.New(fault.Invalid, "the header %q cannot be set: see HttpHeaders in config.json", name)
		}
		if strings.ContainsAny(name, ": \t\r\n") || strings.ContainsAny(value, "\r\n") {
			return "", fault.New(fault.Invalid, "the header %q: %q cannot be sent: see HttpHeaders in config.json", name, value)
		}
		b.WriteString(name + ": " + value + "\r\n")
	}
	return agent + b.String(), nil
}

// Connect opens a connection to the daemon and speaks nothing on it.
func (c *Client) Connect(ctx context.Context) (*Stream, error) {
	k, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &Stream{conn: k}, nil
}

// dial opens a connection to the daemon.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	if c.network == "ssh" {
		nc, err := dialSSH(c.endpoint.Host)
		if err != nil {
			return nil, err
		}
		return newConn(nc), nil
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, c.explainDial(err)
	}
	if c.tls == nil {
		return newConn(nc), nil
	}
	tc := tls.Client(nc, c.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fault.New(fault.Unavailable, "cannot make a TLS connection to %s: %w", c.endpoint.Host, err)
	}
	return newConn(tc), nil
}

// acquire returns a connection, an idle one if there is one.
func (c *Client) acquire(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			return c.dial(ctx)
		}
		k := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if !k.over() {
			return k, nil
		}
		k.Close()
	}
}

// release keeps a connection for the next request.
func (c *Client) release(k *conn) {
	k.used = true
	c.mu.Lock()
	c.idle = append(c.idle, k)
	c.mu.Unlock()
}

// Close closes the idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, k := range idle {
		k.Close()
	}
	return nil
}

// lower takes over the API version that a "client version X is too new" answer
// names, and says whether the request is worth sending again.
func (c *Client) lower(message, sent string) bool {
	const mark = "Maximum supported API version is "
	_, rest, ok := strings.Cut(message, mark)
	if !ok || c.pinned {
		return false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		rest = rest[:end]
	}
	rest = strings.TrimRight(rest, ".")
	if rest == "" || rest == sent {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version, c.negotiated = rest, true
	return true
}

// Ping asks the daemon for its API version and lowers the client's to it.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.roundTrip(ctx, request{method: "HEAD", path: "/_ping", unversioned: true})
	if err != nil {
		return err
	}
	resp.body.Close()
	if resp.status >= 400 {
		return statusFault(resp.status, "the ping was answered with status "+itoa(resp.status))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := resp.header["api-version"]; v != "" && !c.pinned && versionLess(v, c.version) {
		c.version = v
	}
	c.negotiated = true
	return nil
}

// negotiate makes sure that the version is right before a request whose body
// cannot be sent twice.
func (c *Client) negotiate(ctx context.Context) error {
	c.mu.Lock()
	done := c.negotiated || c.pinned
	c.mu.Unlock()
	if done {
		return nil
	}
	return c.Ping(ctx)
}

// versionLess compares two versions of the form major.minor.
func versionLess(a, b string) bool {
	amaj, amin, _ := strings.Cut(a, ".")
	bmaj, bmin, _ := strings.Cut(b, ".")
	if x, y := atoi(amaj), atoi(bmaj); x != y {
		return x < y
	}
	return atoi(amin) < atoi(bmin)
}

// segment escapes one path segment.
func segment(s string) string { return url.PathEscape(s) }
