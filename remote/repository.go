package remote

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote/hosts"
)

// each asks the endpoints that have the capability in their order until one
// does what f wants. A mirror gets one attempt, and one that cannot be reached
// is left out for a while. The error is that of the last one asked, which is
// the registry itself unless hosts.toml takes the capability from it.
func (r *Repository) each(ctx context.Context, can hosts.Capability, f func(s *session, path string, last bool) error) error {
	all, err := r.client.endpoints(ctx, r.domain)
	if err != nil {
		return err
	}
	var able []*endpoint
	for _, e := range all {
		if e.can&can == can {
			able = append(able, e)
		}
	}
	err = fault.New(fault.Invalid, "hosts.toml of %s allows no address to be asked for this: give one the capability", r.domain)
	for i, e := range able {
		last := i == len(able)-1
		if !last && e.isDown() {
			continue
		}
		if err = f(e.session(r.cred), e.repository(r.path), last); err == nil || ctx.Err() != nil {
			return err
		}
		if !last && fault.KindOf(err) == fault.Unavailable {
			e.setDown()
		}
	}
	return err
}

// pullScope is what a token for reading a repository is asked for.
func pullScope(path string) []string { return []string{"repository:" + path + ":pull"} }

// pushScope is the same for writing, and reading from others to mount.
func pushScope(path string, from ...string) []string {
	scope := []string{"repository:" + path + ":pull,push"}
	for _, f := range from {
		scope = append(scope, "repository:"+f+":pull")
	}
	return scope
}

// document gets a small body as a whole, however often the connection breaks.
func (s *session) document(ctx context.Context, c *call, limit int64) (*http.Response, []byte, error) {
	var resp *http.Response
	var data []byte
	get := func() (err error) {
		if resp, err = s.once(ctx, c); err == nil {
			data, err = readDocument(resp, limit)
		}
		return err
	}
	var err error
	if c.once {
		err = get()
	} else {
		err = s.endpoint.client.pace.repeat(ctx, get)
	}
	return resp, data, err
}

func readDocument(resp *http.Response, limit int64) ([]byte, error) {
	defer discard(resp)
	tooLarge := fault.New(fault.Invalid, "what %s sent is larger than %d bytes", redact(resp.Request.URL), limit)
	if resp.ContentLength > limit {
		return nil, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil && resp.Request.Context().Err() != nil && err != errStalled:
		return nil, context.Cause(resp.Request.Context())
	case err != nil:
		return nil, fault.New(fault.Unavailable, "%s %q: %w", operation(resp.Request.Method), redact(resp.Request.URL), transient{err: err})
	case int64(len(data)) > limit:
		return nil, tooLarge
	}
	return data, nil
}

// checkReference refuses what is neither a tag nor a digest: it becomes part
// of a path.
func checkReference(tagOrDigest string) error {
	if reference.IsDigest(tagOrDigest) {
		return nil
	}
	if strings.ContainsAny(tagOrDigest, ":@/") {
		return fault.New(fault.Invalid, "%q is neither a tag nor a digest", clean(tagOrDigest, maxErrorText))
	}
	if _, err := reference.ParseBare("a/b:" + tagOrDigest); err != nil {
		return fault.New(fault.Invalid, "%q is neither a tag nor a digest", clean(tagOrDigest, maxErrorText))
	}
	return nil
}
