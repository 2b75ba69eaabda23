package remote

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// call is a request as it will be sent, perhaps several times.
type call struct {
	method       string
	below        string     // the path below the API's root
	query        url.Values // added to below
	url          *url.URL   // instead of both: an address that the registry gave
	home         *url.URL   // where authorization may go; nil: to where the call goes first
	header       http.Header
	body         func() (io.ReadCloser, error) // nil for none
	length       int64                         // of the body in bytes
	slow         bool                          // the answer comes when the registry has checked what it got
	scope        []string                      // what a token is asked for
	confidential bool                          // the body is not sent to another origin
	once         bool                          // no retries: there is another endpoint, or the caller does them
	want         []int                         // statuses that are no failure, beside 200 to 299
}

const maxRedirects = 10

// exchange sends one request and follows its redirects. The answer may be of
// any status; its body is watched. authorization goes to the origin of home
// alone, and the headers of hosts.toml to the endpoint alone.
func (e *endpoint) exchange(ctx context.Context, c *call, authorization string) (*http.Response, error) {
	to, left := c.url, false
	if c.home != nil {
		if err := e.permit(c.home, to); err != nil {
			return nil, err
		}
		left = !sameOrigin(c.home, to) // a registry gives addresses of storage for uploads
	}
	for hop := 0; ; hop++ {
		resp, err := e.hop(ctx, c, to, left, authorization)
		if err != nil {
			return nil, err
		}
		location := resp.Header.Get("Location")
		if !redirects(c.method, resp.StatusCode) || location == "" {
			return resp, nil
		}
		discard(resp)
		next, err := to.Parse(location)
		if err != nil || next.Host == "" {
			return nil, fault.New(fault.Unavailable, "%s redirects to an address that is none", redact(to))
		}
		if hop == maxRedirects {
			return nil, fault.New(fault.Unavailable, "%s redirects more than %d times", redact(c.url), maxRedirects)
		}
		if err := e.permit(to, next); err != nil {
			return nil, err
		}
		next.User, next.Fragment = nil, ""
		left = left || !sameOrigin(to, next)
		if left && c.confidential {
			return nil, fault.New(fault.Forbidden, "%s redirects to %s: refused, credentials are not sent on", redact(to), redact(next))
		}
		to = next
	}
}

// redirects tells whether an answer is followed. A body is sent again only
// where the status says so.
func redirects(method string, status int) bool {
	switch status {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		return method == http.MethodGet || method == http.MethodHead
	}
	return false
}

// own tells whether a URL is this endpoint's.
func (e *endpoint) own(u *url.URL) bool { return hosts.Same(u.Host, e.host) }

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(withPort(a), withPort(b))
}

func withPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "https" {
		return u.Host + ":443"
	}
	return u.Host + ":80"
}

// permit decides whether an address that a registry named may be asked. from
// is where that was said. HTTP is followed only from HTTP, and to hosts that may
// speak it.
func (e *endpoint) permit(from, to *url.URL) error {
	switch {
	case to.Scheme == "https":
		return nil
	case to.Scheme != "http":
		return fault.New(fault.Forbidden, "the registry %s leads to %s, whose scheme is neither https nor http", e.host, redact(to))
	case from.Scheme != "http":
		return fault.New(fault.Forbidden, "the registry %s leads from HTTPS to %s: refused, what is asked over HTTPS is not sent in the clear", e.host, redact(to))
	case e.own(to), e.client.policy.Load().insecure.Named(to.Host), hosts.Loopback(to.Host):
		return nil
	}
	return fault.New(fault.Forbidden, "the registry %s leads to %s: %s", e.host, redact(to), e.client.allowHTTP(clean(to.Host, maxErrorText)))
}

// hop is one request and the head of its answer.
func (e *endpoint) hop(ctx context.Context, c *call, to *url.URL, left bool, authorization string) (*http.Response, error) {
	transport := e.transport
	if !e.own(to) && !e.confined {
		var err error
		if transport, err = e.client.transportOf(to.Host); err != nil {
			return nil, err
		}
	}
	p := e.client.pace
	watched, w := newWatch(ctx, p.answer+p.dial+p.handshake)
	req, err := e.request(watched, c, to, left, authorization)
	if err != nil {
		w.end()
		return nil, err
	}
	var body *watchedRequest
	if c.body != nil {
		opened, err := c.body()
		if err != nil {
			w.end()
			return nil, err
		}
		body = &watchedRequest{ReadCloser: opened, watch: w, limit: p.stall, after: p.answer}
		if c.slow {
			body.after = p.commit
		}
		if req.Body, req.ContentLength = body, c.length; c.length == 0 {
			opened.Close()
			req.Body = http.NoBody
			w.extend(body.after)
		}
	}
	resp, err := transport.RoundTrip(req)
	if body != nil {
		body.release()
	}
	w.pause()
	if err != nil {
		cause := context.Cause(watched)
		w.end()
		return nil, e.broken(ctx, c.method, to, cause, err)
	}
	resp.Body = &watchedAnswer{ReadCloser: resp.Body, ctx: watched, watch: w, limit: p.stall, least: p.least}
	return resp, nil
}

// request builds a hop's request. One that has left the registry carries only
// what says which bytes are wanted.
func (e *endpoint) request(ctx context.Context, c *call, to *url.URL, left bool, authorization string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, to.String(), nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot ask %s: it is no address", redact(to))
	}
	maps.Copy(req.Header, c.header)
	req.Header.Set("User-Agent", e.client.config.UserAgent)
	if left {
		return req, nil
	}
	if e.own(to) {
		maps.Copy(req.Header, e.header)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return req, nil
}

// broken makes the error of a request without an answer, in the words of
// net/http's client, which Docker's are.
func (e *endpoint) broken(ctx context.Context, method string, to *url.URL, cause, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cause == errStalled {
		err = errStalled
	}
	op := operation(method)
	var unknown *net.DNSError
	var source sourceError
	if errors.As(err, &source) {
		return fault.New(fault.KindOf(source.err), "%w", source)
	}
	lasting := errors.As(err, &unknown) && unknown.IsNotFound || lastingTLS(err)
	switch {
	case plainAnswer(err):
		return fault.New(fault.Unavailable, "%s %q: %w: %s", op, redact(to), http.ErrSchemeMismatch, e.client.allowHTTP(e.host))
	case unknownAuthority(err) && e.origin && e.own(to) && e.client.config.HostsDir != "":
		ca := filepath.Join(e.client.config.HostsDir, strings.Replace(e.host, dockerHost, dockerDomain, 1), "ca.crt")
		return fault.New(fault.Unavailable, "%s %q: %w: put the certificate of its CA into %s", op, redact(to), err, ca)
	case lasting:
		return fault.New(fault.Unavailable, "%s %q: %w", op, redact(to), err)
	}
	return fault.New(fault.Unavailable, "%s %q: %w", op, redact(to), transient{err: err})
}

// operation is a method as net/http's client writes it.
func operation(method string) string { return method[:1] + strings.ToLower(method[1:]) }

// discard gives a connection back for the next request, if little is left to
// read.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 16<<10)
	resp.Body.Close()
}
