package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tarehq/tare/fault"
)

// sourceError marks that the caller's own data failed, and not the registry.
type sourceError struct{ err error }

func (e sourceError) Error() string { return "cannot read what is to be sent: " + e.err.Error() }
func (e sourceError) Unwrap() error { return e.err }

// transient is a failure that may be gone at the next attempt.
type transient struct {
	err   error
	after time.Duration // as the registry asked; 0: as we like
}

func (t transient) Error() string { return t.err.Error() }
func (t transient) Unwrap() error { return t.err }

func isTransient(err error) bool {
	var t transient
	return errors.As(err, &t)
}

// refusal is an answer that says no.
type refusal struct {
	status int
	codes  []string // "MANIFEST_UNKNOWN"
	text   string
}

func (r *refusal) Error() string { return r.text }

// statusIn gives the status of the answer that an error tells of, 0 if it is
// of none.
func statusIn(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

// hasCode tells whether the registry gave one of the codes, OCI distribution
// specification, "Error Codes".
func hasCode(err error, code string) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return false
	}
	for _, c := range r.codes {
		if strings.EqualFold(c, code) {
			return true
		}
	}
	return false
}

const (
	maxErrorBody = 64 << 10
	maxErrorText = 1024 // bytes of what a registry says in an error
	maxErrors    = 8
)

// refusalOf reads and closes an answer that is no success, and makes the error
// that Docker would show. It is transient where a later attempt may succeed.
func refusalOf(resp *http.Response) error {
	defer discard(resp)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	r := &refusal{status: resp.StatusCode}
	r.codes, r.text = errorText(body, resp.StatusCode)
	switch { // HEAD has no body
	case r.text != "":
	case r.status == http.StatusForbidden, r.status == http.StatusUnauthorized && insufficient(resp.Header):
		r.text = "denied: requested access to the resource is denied"
	case r.status == http.StatusUnauthorized:
		r.text = "unauthorized: authentication required"
	default:
		r.text = fmt.Sprintf("unexpected status from %s request to %s: %d %s", resp.Request.Method, redact(resp.Request.URL), resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	kind := kindOf(r)
	switch s := resp.StatusCode; {
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented:
		return fault.New(kind, "%w", transient{r, retryAfter(resp.Header.Get("Retry-After"), time.Now())})
	}
	return fault.New(kind, "%w", r)
}

// insufficient tells whether the token that was sent does not go far enough,
// RFC 6750, 3.1.
func insufficient(h http.Header) bool {
	return slices.ContainsFunc(challengesOf(h), func(c challenge) bool { return c.params["error"] == "insufficient_scope" })
}

// errorText reads the bodies that registries and their token servers send:
// {"errors":[{"code","message"}]}, or {"details"} or {"message"} alone, which
// the status gives the code for.
func errorText(body []byte, status int) (codes []string, text string) {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return nil, ""
	}
	var texts []string
	for _, e := range doc.Errors[:min(len(doc.Errors), maxErrors)] {
		code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
		if e.Code != "" {
			codes = append(codes, clean(e.Code, 64))
		}
		switch {
		case e.Message == "":
			texts = append(texts, code)
		case code == "":
			texts = append(texts, e.Message)
		default:
			texts = append(texts, code+": "+e.Message)
		}
	}
	if len(texts) == 0 && doc.Details+doc.Message != "" {
		text := strings.TrimSpace(doc.Details + " " + doc.Message)
		switch status {
		case http.StatusUnauthorized:
			text = "unauthorized: " + text
		case http.StatusForbidden:
			text = "denied: " + text
		case http.StatusTooManyRequests:
			text = "toomanyrequests: " + text
		}
		texts = append(texts, text)
	}
	return codes, clean(strings.Join(texts, "; "), maxErrorText)
}

func kindOf(r *refusal) fault.Kind {
	for _, c := range r.codes {
		switch strings.ToUpper(c) {
		case "DENIED":
			return fault.Forbidden
		case "UNAUTHORIZED":
			return fault.Unauthorized
		}
	}
	switch s := r.status; {
	case s == http.StatusUnauthorized:
		return fault.Unauthorized
	case s == http.StatusForbidden:
		return fault.Forbidden
	case s == http.StatusNotFound, s == http.StatusGone:
		return fault.NotFound
	case s == http.StatusConflict:
		return fault.Conflict
	case s == http.StatusMethodNotAllowed, s == http.StatusNotImplemented:
		return fault.NotImplemented
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500:
		return fault.Unavailable
	case s >= 400:
		return fault.Invalid
	}
	return fault.Unavailable // a success or a redirect where none is expected
}

// clean makes a text of a registry fit for an error: one line, without control
// and formatting characters, at most limit bytes.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// redact gives a URL without what may be secret in it: the user and the query,
// where storage puts its signatures.
func redact(u *url.URL) string {
	out := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return clean(out.String(), maxErrorText)
}

// redactText is redact for what may be no URL.
func redactText(s string) string {
	s, _, _ = strings.Cut(s, "?")
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		s = s[i+1:]
	}
	return clean(s, maxErrorText)
}

// plainAnswer tells whether a server spoke HTTP where HTTPS was expected.
func plainAnswer(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/"
}

// lastingTLS tells whether another attempt would meet the same certificate.
func lastingTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var alert tls.AlertError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &alert)
}

func (c *Client) allowHTTP(host string) string {
	return strings.ReplaceAll(c.config.AllowHTTP, "HOST", host)
}

func unknownAuthority(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

// retryAfter reads the header of RFC 9110, 10.2.3: seconds or a date. 0 if it
// says nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// wait lets the time before the attempt after the given number of failures
// pass, and tells whether there is to be one: the failure must be transient.
func (p pace) wait(ctx context.Context, failures int, err error) bool {
	var t transient
	if !errors.As(err, &t) || failures >= p.limit() || t.after > p.maxRetryAfter || ctx.Err() != nil {
		return false
	}
	pause := p.backOff << min(failures-1, 20)
	if pause > p.maxBackOff || pause <= 0 {
		pause = p.maxBackOff
	}
	pause = max(pause/2+rand.N(pause/2+1), t.after)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limit is how many attempts in a row may bring nothing.
func (p pace) limit() int {
	if p.told != nil {
		if n := p.told.Load(); n > 0 {
			return int(n)
		}
	}
	return p.attempts
}

// repeat calls f until it succeeds, fails for good, or has failed too often.
func (p pace) repeat(ctx context.Context, f func() error) error {
	for failures := 1; ; failures++ {
		if err := f(); err == nil || !p.wait(ctx, failures, err) {
			return err
		}
	}
}
