package plugin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Dirs are the directories in which plugins are looked for.
type Dirs struct {
	Sockets string
	Specs   []string
}

// DefaultDirs are Docker's.
func DefaultDirs() Dirs {
	return Dirs{Sockets: "/run/docker/plugins", Specs: []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}}
}

// place is where a plugin listens.
type place struct {
	identity        // of the file that says so
	address  string // a URL: unix:///path, tcp://host:port, http://…, https://…
	tls      tlsFiles
}

// tlsFiles is the part TLSConfig of a .json file.
type tlsFiles struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// specSize is the greatest size of a .spec or .json file.
const specSize = 64 << 10

// find reads where the plugin of a name listens.
func (d Dirs) find(name string) (place, error) {
	unknown := fail(NotFound, "plugin %q not found", name)
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return place{}, unknown
	}
	for _, path := range paths(d.Sockets, name, ".sock") {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			id, err := identify(path)
			return place{identity: id, address: "unix://" + path}, err
		}
	}
	for _, dir := range d.Specs {
		for _, path := range slices.Concat(paths(dir, name, ".spec"), paths(dir, name, ".json")) {
			where, err := readSpec(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return place{}, fmt.Errorf("plugin %q: %w", name, err)
			}
			return where, nil
		}
	}
	return place{}, unknown
}

func paths(dir, name, ext string) []string {
	return []string{filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext)}
}

// readSpec reads a file of one address, or a .json file.
func readSpec(path string) (place, error) {
	id, err := identify(path)
	if err != nil {
		return place{}, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a fifo must not hold us
	if err != nil {
		return place{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, specSize))
	if err != nil {
		return place{}, err
	}
	where := place{identity: id, address: strings.TrimSpace(string(text))}
	if filepath.Ext(path) == ".json" {
		var spec struct {
			Addr      string
			TLSConfig tlsFiles
		}
		if err := json.Unmarshal(text, &spec); err != nil {
			return place{}, fail(Invalid, "%s is no plugin's description: %w", path, err)
		}
		where.address, where.tls = spec.Addr, spec.TLSConfig
	}
	return where, nil
}

// scan lists the names of the plugins that are there.
func (d Dirs) scan() ([]string, error) {
	var names []string
	look := func(dir string, exts ...string) error {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for plugins: %w", err)
		}
		for _, entry := range entries {
			name := entry.Name()
			for _, ext := range exts {
				if base, ok := strings.CutSuffix(name, ext); ok && !entry.IsDir() {
					names = append(names, base)
				} else if entry.IsDir() {
					if _, err := os.Stat(filepath.Join(dir, name, name+ext)); err == nil {
						names = append(names, name)
					}
				}
			}
		}
		return nil
	}
	if err := look(d.Sockets, ".sock"); err != nil {
		return nil, err
	}
	for _, dir := range d.Specs {
		if err := look(dir, ".spec", ".json"); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// caller makes the client of a place.
func (p place) caller(name string) (*caller, error) {
	u, err := url.Parse(p.address)
	if err != nil {
		return nil, fail(Invalid, "plugin %q: %s holds no address: %w", name, p.path, err)
	}
	network, address, scheme := "tcp", u.Host, "http"
	switch u.Scheme {
	case "unix":
		network, address = "unix", filepath.Join(u.Host, u.Path)
	case "tcp", "http":
	case "https":
		scheme = "https"
	default:
		return nil, fail(Invalid, "plugin %q: the address %q in %s begins with neither unix://, tcp://, http:// nor https://", name, p.address, p.path)
	}
	config, err := p.tls.config()
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", name, err)
	}
	return newCaller(name, network, address, scheme, config), nil
}

// config reads the files. As with Docker a server is not verified when no CA is
// named.
func (t tlsFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify || t.CAFile == ""}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail(Invalid, "%s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
