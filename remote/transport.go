package remote

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/tarehq/tare/fault"
)

// newTransport makes a transport with connections of its own. Proxies are those
// of the environment.
func (c *Client) newTransport(config *tls.Config, dial time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    c.pace.handshake,
		ForceAttemptHTTP2:      true, // a configuration of our own turns it off otherwise
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // digests are of the bytes as they are sent
		MaxResponseHeaderBytes: 128 << 10,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
}

// publicTransport reaches only addresses of the public internet: it goes where
// an image says, and an image is anybody's. A proxy of the environment is the
// administrator's word.
func (c *Client) publicTransport() *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.public == nil {
		c.public = c.newTransport(&tls.Config{MinVersion: tls.VersionTLS12}, c.pace.dial)
		proxied := c.public.DialContext
		direct := &net.Dialer{Timeout: c.pace.dial, Control: publicOnly}
		c.public.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !isProxy(address) {
				return direct.DialContext(ctx, network, address)
			}
			return proxied(ctx, network, address)
		}
	}
	return c.public
}

// isProxy tells whether the address is that of the proxy for HTTPS.
func isProxy(address string) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: "registry.invalid"}})
	return err == nil && proxy != nil && withPort(proxy) == address
}

// publicOnly refuses a connection before it is made, net.Dialer's Control.
func publicOnly(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := a.Addr().Unmap(); !ip.IsGlobalUnicast() || ip.IsPrivate() || sharedSpace.Contains(ip) {
		return fault.New(fault.Forbidden, "%s is an address of this machine or its networks: an image may not name it", ip)
	}
	return nil
}

// sharedSpace is RFC 6598's.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

var errStalled = fault.New(fault.Unavailable, "nothing came for too long")

// watch ends a request when nothing has moved for some time. How long the
// caller takes with what it got does not count.
type watch struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{cancel, time.AfterFunc(limit, func() { cancel(errStalled) })}
}

func (w *watch) extend(limit time.Duration) { w.timer.Reset(limit) }
func (w *watch) pause()                     { w.timer.Stop() }
func (w *watch) end()                       { w.timer.Stop(); w.cancel(nil) }

// watchedAnswer is the body of an answer: each read must bring something in
// time, and all together at least some bytes a second.
type watchedAnswer struct {
	io.ReadCloser
	ctx   context.Context
	watch *watch
	limit time.Duration
	least int64

	waited  time.Duration // for bytes since the last reckoning
	came    int64         // in that time
	trickle error         // for good: a body is not read on
}

func (b *watchedAnswer) Read(p []byte) (int, error) {
	if b.trickle != nil {
		return 0, b.trickle
	}
	begun := time.Now()
	b.watch.extend(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.watch.pause()
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errStalled {
		err = errStalled
	}
	if err == nil {
		b.trickle = b.reckon(n, time.Since(begun))
		err = b.trickle
	}
	return n, err
}

// reckon tells whether what came in the last while was too little.
func (b *watchedAnswer) reckon(n int, waited time.Duration) error {
	b.came, b.waited = b.came+int64(n), b.waited+waited
	if b.waited < b.limit {
		return nil
	}
	if float64(b.came) < float64(b.least)*b.waited.Seconds() {
		return tooSlow{b.least, b.limit}
	}
	b.came, b.waited = 0, 0
	return nil
}

// tooSlow is why a body that trickles is not read on.
type tooSlow struct {
	least int64
	over  time.Duration
}

func (e tooSlow) Error() string {
	return fmt.Sprintf("for %v fewer than %d bytes a second came", e.over, e.least)
}

func (b *watchedAnswer) Close() error {
	err := b.ReadCloser.Close()
	b.watch.end()
	return err
}

// watchedRequest is the body of a request: the registry must take the next
// piece in time, and answer in time when it has all.
type watchedRequest struct {
	io.ReadCloser
	watch        *watch
	limit, after time.Duration

	mu     sync.Mutex
	closed bool
}

func (b *watchedRequest) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errAnswered
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.watch.extend(b.after)
	} else {
		b.watch.extend(b.limit)
	}
	return n, err
}

var errAnswered = fault.New(fault.Unavailable, "the answer came before the end of the request")

// release ends the reading: the answer is there, and the watch is the answer's.
func (b *watchedRequest) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}
