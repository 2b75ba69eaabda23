package remote

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/remote/hosts"
)

const (
	dockerDomain = "docker.io"
	dockerHost   = "registry-1.docker.io"
)

// hostEntry is what is known about how to reach one domain. It is made anew
// when a file that it came from has changed.
type hostEntry struct {
	endpoints []*endpoint
	watched   hosts.Watched
	policy    *policy   // that it was made by
	until     time.Time // zero: for good
}

func (h *hostEntry) add(e *endpoint) {
	h.endpoints = append(h.endpoints, e)
	h.watched = append(h.watched, e.files...)
}

func (h *hostEntry) current(p *policy) bool {
	return h != nil && h.policy == p && h.watched.Unchanged() && (h.until.IsZero() || time.Now().Before(h.until))
}

func (h *hostEntry) close() {
	for _, e := range h.endpoints {
		e.transport.CloseIdleConnections()
	}
}

// endpoints gives the addresses of a domain in the order in which they are
// tried: the mirrors, then the registry.
func (c *Client) endpoints(ctx context.Context, domain string) ([]*endpoint, error) {
	c.mu.Lock()
	entry := c.hosts[domain]
	c.mu.Unlock()
	if entry.current(c.policy.Load()) {
		return entry.endpoints, nil
	}
	fresh, err := c.readEntry(ctx, domain)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.hosts[domain]; now != entry && now.current(c.policy.Load()) {
		return now.endpoints, nil // another request was faster
	}
	if entry != nil {
		entry.close()
	}
	if len(c.hosts) >= maxDomains {
		for name, h := range c.hosts {
			h.close()
			delete(c.hosts, name)
		}
	}
	c.hosts[domain] = fresh
	return fresh.endpoints, nil
}

// maxDomains bounds what names of images can make the client remember.
const maxDomains = 256

// readEntry reads the directory of a domain.
func (c *Client) readEntry(ctx context.Context, domain string) (*hostEntry, error) {
	policy := c.policy.Load()
	entry := &hostEntry{policy: policy}
	dir := ""
	for _, d := range hosts.Dirs(c.config.HostsDir, domain) {
		entry.watched.Note(d)
		if st, err := os.Stat(d); err == nil && st.IsDir() {
			dir = d
			break
		}
	}
	certs, err := hosts.ReadDir(dir)
	if err == nil {
		err = c.addCA(certs)
	}
	if err != nil {
		return nil, err
	}
	file := &hosts.File{}
	if dir != "" {
		entry.watched.Note(filepath.Join(dir, "hosts.toml"))
		if file, err = hosts.ReadFile(filepath.Join(dir, "hosts.toml")); err != nil {
			return nil, err
		}
	}
	if domain == dockerDomain {
		for _, u := range policy.mirrors {
			certs, err := c.certificates(u.Host)
			if err != nil {
				return nil, err
			}
			entry.add(c.newEndpoint(u, hosts.Settings{Can: hosts.Pull | hosts.Resolve}, certs))
		}
	}
	for _, name := range file.Order {
		e, err := c.fileEndpoint(dir, name, file.Host[name], domain)
		if err != nil {
			return nil, fmt.Errorf("%s: host %q: %w", filepath.Join(dir, "hosts.toml"), name, err)
		}
		entry.add(e)
	}
	last, err := c.originEndpoint(ctx, dir, file, domain, certs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", orDir(dir, c.config.HostsDir), err)
	}
	entry.add(last)
	if policy.insecure.HasRanges() {
		entry.until = time.Now().Add(c.pace.remember) // names move between addresses
	}
	return entry, nil
}

func orDir(dir, root string) string {
	if dir != "" {
		return dir
	}
	return root
}

// fileEndpoint is the address of a [host."…"] table.
func (c *Client) fileEndpoint(dir, name string, fields hosts.Fields, domain string) (*endpoint, error) {
	u, err := hosts.Address(name)
	if err != nil {
		return nil, err
	}
	s, err := fields.Settings()
	if err != nil {
		return nil, err
	}
	certs, err := c.certificates(u.Host)
	if err != nil {
		return nil, err
	}
	if err := certs.Add(dir, s); err != nil {
		return nil, err
	}
	e := c.newEndpoint(u, s, certs)
	if e.origin = hosts.Same(u.Host, originHost(domain)); !e.origin {
		e.namespace = domain
	}
	return e, nil
}

// originEndpoint is the registry itself: where the file says, or at the
// domain's own address.
func (c *Client) originEndpoint(ctx context.Context, dir string, file *hosts.File, domain string, certs *hosts.Certificates) (*endpoint, error) {
	u := &url.URL{Host: originHost(domain)}
	if file.Server != "" {
		var err error
		if u, err = hosts.Address(file.Server); err != nil {
			return nil, err
		}
	}
	s, err := file.Settings()
	if err != nil {
		return nil, err
	}
	if err := certs.Add(dir, s); err != nil {
		return nil, err
	}
	e := c.newEndpoint(u, s, certs)
	e.origin = true
	if u.Scheme == "" && len(e.schemes) == 1 && c.policy.Load().insecure.Resolves(ctx, u.Host) {
		e.trustAnything()
	}
	return e, nil
}

// originHost is where the registry of a domain is. Docker Hub's name leads to
// its web pages, and yet it stands in many a hosts.toml.
func originHost(domain string) string {
	if domain == dockerDomain {
		return dockerHost
	}
	return domain
}

// certificates are those of a host, and the CAs that are for all.
func (c *Client) certificates(host string) (*hosts.Certificates, error) {
	certs, err := hosts.CertificatesOf(c.config.HostsDir, host)
	if err == nil {
		err = c.addCA(certs)
	}
	return certs, err
}

func (c *Client) addCA(certs *hosts.Certificates) error {
	if c.config.CA == "" {
		return nil
	}
	return certs.AddCA(c.config.CA)
}
