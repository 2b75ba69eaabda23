package plugin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// mediaType is the newest version of the protocol.
const mediaType = "application/vnd.docker.plugins.v1.2+json"

// The greatest sizes of an answer: a list of volumes may be long, a refusal not.
const (
	answerSize  = 16 << 20
	refusalSize = 16 << 10
)

// retries is how long a plugin that cannot be reached is tried again, first after
// a second, then after twice that, and so on.
const retries = 30 * time.Second

// firstPause is a variable for the tests.
var firstPause = time.Second

// Refusal is what a plugin answered instead of doing what it was asked. Text is
// the plugin's own.
type Refusal struct {
	Method string
	Status int // of HTTP; 200 if the protocol's field for errors was set
	Text   string
}

func (r *Refusal) Error() string {
	if r.Status == http.StatusOK {
		return r.Text
	}
	return r.Method + ": " + r.Text
}

// Unknown tells whether err is the refusal of a plugin that does not have the
// method, or the thing.
func Unknown(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}

// caller is a client of one plugin.
type caller struct {
	name   string
	scheme string
	host   string
	http   *http.Client
}

func newCaller(name, network, address, scheme string, config *tls.Config) *caller {
	host := address
	if network == "unix" {
		host = "plugin.localhost" // a path is no header
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &caller{name: name, scheme: scheme, host: host, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			},
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true, // an answer's size is what is sent
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Call asks the plugin for the method, such as "VolumeDriver.Create", with args as
// JSON, and reads its answer into result; both may be nil. It is tried again while
// the plugin cannot be reached. An error that the plugin gave is a *Refusal. A
// context without an end gets Limit.
func (c *caller) Call(ctx context.Context, method string, args, result any) error {
	return c.call(ctx, method, args, result, true)
}

// CallOnce is Call for those who would rather have an error than wait.
func (c *caller) CallOnce(ctx context.Context, method string, args, result any) error {
	return c.call(ctx, method, args, result, false)
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, Limit)
}

func (c *caller) call(ctx context.Context, method string, args, result any, patient bool) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var body []byte
	if args != nil {
		var err error
		if body, err = json.Marshal(args); err != nil {
			return err
		}
	}
	began, wait := time.Now(), firstPause
	for {
		resp, err := c.post(ctx, method, body)
		if err == nil {
			return c.read(resp, method, result)
		}
		if ctx.Err() != nil {
			return fail(Unavailable, "plugin %q does not answer %s: %w", c.name, method, err)
		}
		if !patient || time.Since(began)+wait >= retries || !rest(ctx, wait) {
			return fail(Unavailable, "plugin %q cannot be reached for %s; is it running? %w", c.name, method, err)
		}
		wait = min(2*wait, retries)
	}
}

// rest waits, and tells whether ctx still holds.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *caller) post(ctx context.Context, method string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme+"://"+c.host+"/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", mediaType)
	return c.http.Do(req)
}

// read takes the answer, and ends the connection of one that is too long.
func (c *caller) read(resp *http.Response, method string, result any) error {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, refusalSize))
		return &Refusal{method, resp.StatusCode, cmp.Or(refusalText(text), strings.TrimSpace(string(text)), resp.Status)}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerSize+1))
	switch {
	case err != nil:
		return fail(Unavailable, "plugin %q broke off its answer to %s: %w", c.name, method, err)
	case len(text) > answerSize:
		return fail(Unavailable, "plugin %q answers %s with more than %d MiB", c.name, method, answerSize>>20)
	case len(bytes.TrimSpace(text)) == 0:
		return nil // nothing is said, nothing is wrong
	}
	if said := refusalText(text); said != "" {
		return &Refusal{method, http.StatusOK, clip(said)}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fail(Unavailable, "plugin %q answers %s with what is not the protocol's JSON: %w", c.name, method, err)
	}
	return nil
}

// refusalText is an answer's field Err, or Error in the protocol of addresses.
func refusalText(text []byte) string {
	var refusal struct{ Err, Error string }
	if json.Unmarshal(text, &refusal) != nil {
		return ""
	}
	return cmp.Or(refusal.Err, refusal.Error)
}

func clip(text string) string {
	if len(text) > refusalSize {
		return text[:refusalSize]
	}
	return text
}
