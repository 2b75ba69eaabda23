package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/filestate"
)

const (
	dockerDomain = "docker.io"
	dockerHost   = "registry-1.docker.io"
	maxHostsFile = 1 << 20
)

// hostEntry is what is known about how to reach one domain. It is made anew
// when a file that it came from has changed.
type hostEntry struct {
	endpoints []*endpoint
	watched   watched
	policy    *policy   // that it was made by
	until     time.Time // zero: for good
}

// watched are the files that something was read from, there or not, and their
// states just before.
type watched []struct{ path, state string }

func (w *watched) note(path string) {
	*w = append(*w, struct{ path, state string }{path, filestate.Of(path)})
}

func (w watched) unchanged() bool {
	for _, f := range w {
		if filestate.Of(f.path) != f.state {
			return false
		}
	}
	return true
}

func (h *hostEntry) add(e *endpoint) {
	h.endpoints = append(h.endpoints, e)
	h.watched = append(h.watched, e.files...)
}

func (h *hostEntry) current(p *policy) bool {
	return h != nil && h.policy == p && h.watched.unchanged() && (h.until.IsZero() || time.Now().Before(h.until))
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
	for _, d := range hostDirs(c.config.HostsDir, domain) {
		entry.watched.note(d)
		if st, err := os.Stat(d); err == nil && st.IsDir() {
			dir = d
			break
		}
	}
	certs, err := readDir(dir)
	if err == nil {
		err = c.addCA(certs)
	}
	if err != nil {
		return nil, err
	}
	file := &hostsFile{}
	if dir != "" {
		entry.watched.note(filepath.Join(dir, "hosts.toml"))
		if file, err = readHostsFile(filepath.Join(dir, "hosts.toml")); err != nil {
			return nil, err
		}
	}
	if domain == dockerDomain {
		for _, u := range policy.mirrors {
			certs, err := c.certificates(u.Host)
			if err != nil {
				return nil, err
			}
			entry.add(c.newEndpoint(u, hostSettings{can: canPull | canResolve}, certs))
		}
	}
	for _, name := range file.order {
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
	if len(policy.insecure.prefixes) > 0 {
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
func (c *Client) fileEndpoint(dir, name string, fields hostFields, domain string) (*endpoint, error) {
	u, err := parseAddress(name)
	if err != nil {
		return nil, err
	}
	s, err := fields.settings()
	if err != nil {
		return nil, err
	}
	certs, err := c.certificates(u.Host)
	if err != nil {
		return nil, err
	}
	if err := certs.add(dir, s); err != nil {
		return nil, err
	}
	e := c.newEndpoint(u, s, certs)
	if e.origin = sameHost(u.Host, originHost(domain)); !e.origin {
		e.namespace = domain
	}
	return e, nil
}

// originEndpoint is the registry itself: where the file says, or at the
// domain's own address.
func (c *Client) originEndpoint(ctx context.Context, dir string, file *hostsFile, domain string, certs *certificates) (*endpoint, error) {
	u := &url.URL{Host: originHost(domain)}
	if file.Server != "" {
		var err error
		if u, err = parseAddress(file.Server); err != nil {
			return nil, err
		}
	}
	s, err := file.settings()
	if err != nil {
		return nil, err
	}
	if err := certs.add(dir, s); err != nil {
		return nil, err
	}
	e := c.newEndpoint(u, s, certs)
	e.origin = true
	if u.Scheme == "" && len(e.schemes) == 1 && c.policy.Load().insecure.resolves(ctx, u.Host) {
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

// hostDirs are the directories that may describe a domain, best first.
func hostDirs(root, domain string) []string {
	if root == "" || !plainName(domain) {
		return nil
	}
	var dirs []string
	if name, port, ok := cutPort(domain); ok {
		dirs = append(dirs, filepath.Join(root, name+"_"+port+"_"))
	}
	return append(dirs, filepath.Join(root, domain), filepath.Join(root, "_default"))
}

// plainName tells whether a host can be the name of a directory.
func plainName(host string) bool {
	return host != "" && host != "." && host != ".." && !strings.ContainsAny(host, "/\x00")
}

func cutPort(host string) (name, port string, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

func readHostsFile(path string) (*hostsFile, error) {
	data, err := readBounded(path, maxHostsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &hostsFile{}, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := parseHosts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fault.New(fault.Invalid, "%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// certificates are the CAs that an address is checked by and the client's own
// certificates. Without CAs the system's decide.
type certificates struct {
	pool  *x509.CertPool
	pairs []tls.Certificate
	files watched // what they were read from
}

// roots is the pool to check by, nil for the system's.
func (c *certificates) roots() *x509.CertPool { return c.pool }

// certificates are those of a host, and the CAs that are for all.
func (c *Client) certificates(host string) (*certificates, error) {
	certs, err := readCertificates(c.config.HostsDir, host)
	if err == nil {
		err = c.addCA(certs)
	}
	return certs, err
}

func (c *Client) addCA(certs *certificates) error {
	if c.config.CA == "" {
		return nil
	}
	return certs.addCA(c.config.CA)
}

// readCertificates reads Docker's files in the directory of a host.
func readCertificates(root, host string) (*certificates, error) {
	for _, dir := range hostDirs(root, host) {
		if filepath.Base(dir) == "_default" {
			break
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return readDir(dir)
		}
	}
	return &certificates{}, nil
}

// readDir reads *.crt, *.cert and *.key of a directory; "" holds none.
func readDir(dir string) (*certificates, error) {
	c := &certificates{}
	if dir == "" {
		return c, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		base := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		switch filepath.Ext(e.Name()) {
		case ".crt":
			err = c.addCA(path)
		case ".cert":
			if !has(base + ".key") {
				return nil, fault.New(fault.Invalid, "missing key %s for client certificate %s. CA certificates must use the extension .crt", base+".key", path)
			}
			err = c.addPair(path, filepath.Join(dir, base+".key"))
		case ".key":
			if !has(base + ".cert") {
				return nil, fault.New(fault.Invalid, "missing client certificate %s for key %s", base+".cert", path)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add reads what a table of hosts.toml names; its paths are relative to dir.
func (c *certificates) add(dir string, s hostSettings) error {
	at := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	for _, path := range s.ca {
		if err := c.addCA(at(path)); err != nil {
			return err
		}
	}
	for _, p := range s.pairs {
		if err := c.addPair(at(p[0]), at(p[1])); err != nil {
			return err
		}
	}
	return nil
}

// addCA adds to the system's CAs, as Docker does.
func (c *certificates) addCA(path string) error {
	c.files.note(path)
	pem, err := readBounded(path, maxHostsFile)
	if err != nil {
		return err
	}
	if c.pool == nil {
		if c.pool, err = x509.SystemCertPool(); err != nil {
			c.pool = x509.NewCertPool()
		}
	}
	if !c.pool.AppendCertsFromPEM(pem) {
		return fault.New(fault.Invalid, "%s holds no certificate in PEM form", path)
	}
	return nil
}

func (c *certificates) addPair(cert, key string) error {
	c.files.note(cert)
	c.files.note(key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fault.New(fault.Invalid, "cannot use the certificate %s with the key %s: %w", cert, key, err)
	}
	c.pairs = append(c.pairs, pair)
	return nil
}

// sameHost compares hosts with their ports, of which 443 need not be said.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, ":443"), strings.TrimSuffix(b, ":443"))
}
