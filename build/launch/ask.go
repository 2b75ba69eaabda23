package launch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/build"

	"github.com/tarehq/tare/fault"
)

// Usage tells what the cache takes. Where there is none, no process is started.
func (b *Builder) Usage(ctx context.Context) (*build.DiskUsage, error) {
	usage := &build.DiskUsage{}
	if b.empty() {
		return usage, nil
	}
	return usage, b.ask(ctx, http.MethodGet, "/build/usage", usage)
}

// Prune makes the cache smaller, as the query of POST /build/prune says.
func (b *Builder) Prune(ctx context.Context, query url.Values) (*build.CachePruneReport, error) {
	report := &build.CachePruneReport{CachesDeleted: []string{}}
	if b.empty() {
		return report, nil
	}
	return report, b.ask(ctx, http.MethodPost, "/build/prune?"+query.Encode(), report)
}

// empty tells whether no build has left anything. The process that runs may have what
// is not on disk yet, and only it knows.
func (b *Builder) empty() bool {
	b.mu.Lock()
	runs := b.running != nil
	b.mu.Unlock()
	if runs {
		return false
	}
	for _, name := range []string{"cache", "mounts", "sources"} {
		if entries, _ := os.ReadDir(filepath.Join(b.Root, name)); len(entries) > 0 {
			return false
		}
	}
	return true
}

// ask is a client of the process.
func (b *Builder) ask(ctx context.Context, method, target string, answer any) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _ = b.Serve(far, nil) }() // closes it, and the answer fails
		return near, nil
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://tare-build"+target, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fault.New(fault.Unavailable, "the process that builds does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var said struct{ Message string }
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if json.Unmarshal(text, &said) != nil || said.Message == "" {
			said.Message = strings.TrimSpace(string(text))
		}
		kind := fault.Internal
		if resp.StatusCode == http.StatusBadRequest {
			kind = fault.Invalid
		}
		return fault.New(kind, "%s", said.Message)
	}
	return errors.Join(json.NewDecoder(resp.Body).Decode(answer))
}
