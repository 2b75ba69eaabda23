package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// DefaultContext is the name of the context that is not stored: what the flags,
// the environment or nothing at all say.
const DefaultContext = "default"

// dockerEndpoint is the endpoint of a context that is a daemon's.
const dockerEndpoint = "docker"

// Contexts are the stored contexts, in Docker's own format.
type Contexts struct{ dir string }

// NewContexts returns those of a configuration directory.
func NewContexts(configDir string) Contexts { return Contexts{filepath.Join(configDir, "contexts")} }

// Context is a stored context. What others than Docker keep in it stays.
type Context struct {
	Name      string                     `json:",omitempty"`
	Metadata  map[string]json.RawMessage // Description and what else there is
	Endpoints map[string]json.RawMessage // by kind
}

// ContextEndpoint is where a context's daemon is.
type ContextEndpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// Material are a context's TLS files: their bytes by endpoint and name.
type Material map[string]map[string][]byte

// Description is what its maker says of it.
func (c *Context) Description() string {
	var text string
	json.Unmarshal(c.Metadata["Description"], &text)
	return text
}

// Describe sets the description; "" takes it away.
func (c *Context) Describe(text string) {
	if text == "" {
		delete(c.Metadata, "Description")
		return
	}
	if c.Metadata == nil {
		c.Metadata = map[string]json.RawMessage{}
	}
	c.Metadata["Description"], _ = marshal(text, "")
}

// Docker is the daemon's endpoint.
func (c *Context) Docker() (ContextEndpoint, error) {
	var e ContextEndpoint
	raw, ok := c.Endpoints[dockerEndpoint]
	if !ok {
		return e, fault.New(fault.Invalid, "context %q has no docker endpoint", c.Name)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fault.New(fault.Invalid, "context %q: meta.json: %w", c.Name, err)
	}
	return e, nil
}

// SetDocker sets the daemon's endpoint.
func (c *Context) SetDocker(e ContextEndpoint) {
	if c.Endpoints == nil {
		c.Endpoints = map[string]json.RawMessage{}
	}
	c.Endpoints[dockerEndpoint], _ = marshal(e, "")
}

// key is the name of a context's directories.
func key(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// MetaDir holds a context's meta.json.
func (s Contexts) MetaDir(name string) string { return filepath.Join(s.dir, "meta", key(name)) }

// TLSDir holds a context's TLS files, below a directory for each endpoint.
func (s Contexts) TLSDir(name string) string { return filepath.Join(s.dir, "tls", key(name)) }

// CheckName refuses names that Docker refuses.
func CheckName(name string) error {
	if name == "" {
		return fault.New(fault.Invalid, "context name cannot be empty")
	}
	if name == DefaultContext {
		return fault.New(fault.Invalid, "%q is a reserved context name", name)
	}
	valid := len(name) >= 2
	for i := range len(name) {
		c := name[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		valid = valid && (word || i > 0 && (c == '_' || c == '.' || c == '+' || c == '-'))
	}
	if !valid {
		return fault.New(fault.Invalid, `context name %q is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"`, name)
	}
	return nil
}

// Get reads a context.
func (s Contexts) Get(name string) (*Context, error) {
	c, err := read(s.MetaDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "context %q: context not found: %w", name, err)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "context %q: %w", name, err)
	}
	c.Name = name
	return c, nil
}

func read(dir string) (*Context, error) {
	text, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return nil, err
	}
	return parse(text)
}

func parse(text []byte) (*Context, error) {
	c := &Context{Metadata: map[string]json.RawMessage{}, Endpoints: map[string]json.RawMessage{}}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fault.New(fault.Invalid, "meta.json: %w", err)
	}
	return c, nil
}

// List reads all contexts, by name.
func (s Contexts) List() ([]*Context, error) {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "meta"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*Context
	for _, d := range dirs {
		c, err := read(filepath.Join(s.dir, "meta", d.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *Context) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Put writes a context: first its TLS files, so that it is never there without
// them. material replaces all TLS files; nil leaves them.
func (s Contexts) Put(c *Context, material Material) error {
	if material != nil {
		if err := s.putTLS(c.Name, material); err != nil {
			return err
		}
	}
	dir := s.MetaDir(c.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := marshal(c, "")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "meta.json"), text, 0o644)
}

func (s Contexts) putTLS(name string, material Material) error {
	if err := os.RemoveAll(s.TLSDir(name)); err != nil {
		return err
	}
	for endpoint, files := range material {
		dir := filepath.Join(s.TLSDir(name), endpoint)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for file, text := range files {
			if err := atomicfile.Write(filepath.Join(dir, file), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove removes a context and its TLS files.
func (s Contexts) Remove(name string) error {
	if _, err := os.Lstat(s.MetaDir(name)); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "context %q does not exist", name)
	}
	return errors.Join(os.RemoveAll(s.MetaDir(name)), os.RemoveAll(s.TLSDir(name)))
}

// TLS reads a context's TLS files; there may be none.
func (s Contexts) TLS(name string) (Material, error) {
	material := Material{}
	endpoints, err := os.ReadDir(s.TLSDir(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range endpoints {
		dir := filepath.Join(s.TLSDir(name), e.Name())
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return nil, err
			}
			if material[e.Name()] == nil {
				material[e.Name()] = map[string][]byte{}
			}
			material[e.Name()][f.Name()] = text
		}
	}
	return material, nil
}

// Endpoint reads where a context's daemon is. Its Host is as it was stored.
func (s Contexts) Endpoint(name string) (client.Endpoint, error) {
	c, err := s.Get(name)
	if err != nil {
		return client.Endpoint{}, err
	}
	docker, err := c.Docker()
	if err != nil {
		return client.Endpoint{}, err
	}
	if docker.Host == "" {
		return client.Endpoint{}, fault.New(fault.Invalid, "context %q has no docker endpoint", name)
	}
	e := client.Endpoint{Host: docker.Host, Context: name}
	tls := client.TLSFile{Verify: !docker.SkipTLSVerify}
	for _, f := range []struct {
		name string
		to   *string
	}{{"ca.pem", &tls.CA}, {"cert.pem", &tls.Cert}, {"key.pem", &tls.Key}} {
		path := filepath.Join(s.TLSDir(name), dockerEndpoint, f.name)
		if _, err := os.Stat(path); err == nil {
			*f.to = path
			e.TLS = &tls
		}
	}
	if docker.SkipTLSVerify {
		e.TLS = &tls
	}
	return e, nil
}
