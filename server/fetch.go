package server

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/tarehq/tare/fault"
)

const (
	headTime     = time.Minute // how long a server may think before it answers
	maxRedirects = 10
	tellEvery    = 100 * time.Millisecond
)

// source reads the parameter fromSrc as Docker does: without a scheme it is
// HTTP.
func source(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot import from %q: %w", text, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, "cannot import from %q: want an address of http or https, or - for an archive in the request", text)
	}
	return u, nil
}

// fetch gets what an address leads to, and its size, -1 when that is not told.
// From HTTPS no redirection leads to HTTP.
func fetch(ctx context.Context, u *url.URL) (io.ReadCloser, int64, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = headTime
	transport.DisableKeepAlives = true // one request is all
	transport.DisableCompression = true
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= maxRedirects:
			return fault.New(fault.Invalid, "%s redirects more than %d times", u.Redacted(), maxRedirects)
		case next.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https":
			return fault.New(fault.Invalid, "%s redirects from https to %s", u.Redacted(), next.URL.Scheme)
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, fault.New(fault.Invalid, "cannot import from %s: %w", u.Redacted(), err)
	}
	resp, err := client.Do(req)
	if err != nil {
		kind := fault.KindOf(err)
		if kind == fault.Internal {
			kind = fault.Unavailable
		}
		return nil, 0, fault.New(kind, "cannot fetch the archive: %w", err)
	}
	if resp.StatusCode >= 400 {
		resp.Body.Close()
		kind := fault.Unavailable
		switch resp.StatusCode {
		case http.StatusNotFound:
			kind = fault.NotFound
		case http.StatusUnauthorized, http.StatusForbidden:
			kind = fault.Forbidden
		}
		return nil, 0, fault.New(kind, "failed to GET %s with status %s", u.Redacted(), resp.Status)
	}
	return resp.Body, resp.ContentLength, nil
}

// told passes a stream on and tells how far it is.
type told struct {
	io.Reader
	out            *progress
	current, total int64
	last           time.Time
}

func (t *told) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.current += int64(n)
	if now := time.Now(); err != nil || now.Sub(t.last) > tellEvery {
		t.last = now
		m := progressMessage{Message: jsonstream.Message{Status: "Importing", Progress: &jsonstream.Progress{Current: t.current, Total: max(t.total, 0)}}}
		if e := t.out.send(m); e != nil && err == nil {
			err = e // nobody listens
		}
	}
	return n, err
}
