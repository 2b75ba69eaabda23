package hosts

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Certificates are the CAs that an address is checked by and the client's own
// certificates. Without CAs the system's decide.
type Certificates struct {
	Roots *x509.CertPool // to check by; nil for the system's
	Pairs []tls.Certificate
	Files Watched // what they were read from
}

// CertificatesOf reads Docker's files in the directory of a host.
func CertificatesOf(root, host string) (*Certificates, error) {
	for _, dir := range Dirs(root, host) {
		if filepath.Base(dir) == "_default" {
			break
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return ReadDir(dir)
		}
	}
	return &Certificates{}, nil
}

// ReadDir reads *.crt, *.cert and *.key of a directory; "" holds none.
func ReadDir(dir string) (*Certificates, error) {
	c := &Certificates{}
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
			err = c.AddCA(path)
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

// Add reads what a table of hosts.toml names; its paths are relative to dir.
func (c *Certificates) Add(dir string, s Settings) error {
	at := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	for _, path := range s.ca {
		if err := c.AddCA(at(path)); err != nil {
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

// AddCA adds to the system's CAs, as Docker does.
func (c *Certificates) AddCA(path string) error {
	c.Files.Note(path)
	pem, err := readBounded(path, maxFile)
	if err != nil {
		return err
	}
	if c.Roots == nil {
		if c.Roots, err = x509.SystemCertPool(); err != nil {
			c.Roots = x509.NewCertPool()
		}
	}
	if !c.Roots.AppendCertsFromPEM(pem) {
		return fault.New(fault.Invalid, "%s holds no certificate in PEM form", path)
	}
	return nil
}

func (c *Certificates) addPair(cert, key string) error {
	c.Files.Note(cert)
	c.Files.Note(key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fault.New(fault.Invalid, "cannot use the certificate %s with the key %s: %w", cert, key, err)
	}
	c.Pairs = append(c.Pairs, pair)
	return nil
}
