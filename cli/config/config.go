// Package config reads the files of Docker's client, so that tare finds what a
// user has set up there: config.json and the stored contexts.
//
//	<dir>/config.json                      settings and credentials
//	<dir>/manifests/<list>/<manifest>      manifest lists that are being made
//	<dir>/contexts/meta/<sha256 of the name>/meta.json
//	<dir>/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem
//
// What says where Docker's own client goes is not followed, for tare has a daemon
// of its own: currentContext and DOCKER_CONTEXT, and with them HttpHeaders. Nor
// are proxies put into containers.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// File is what tare reads of config.json.
type File struct {
	DetachKeys   string          `json:"detachKeys,omitempty"`
	PsFormat     string          `json:"psFormat,omitempty"`
	StatsFormat  string          `json:"statsFormat,omitempty"`
	ImagesFormat string          `json:"imagesFormat,omitempty"`
	PruneFilters []string        `json:"pruneFilters,omitempty"`
	Auths        map[string]Auth `json:"auths,omitempty"` // by server
	// CredsStore names the program that keeps the credentials, without its
	// prefix docker-credential-; CredHelpers those of single servers.
	CredsStore  string            `json:"credsStore,omitempty"`
	CredHelpers map[string]string `json:"credHelpers,omitempty"`

	path string
}

// Auth is one server's credentials: Auth is base64 of user:password.
type Auth struct {
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Load reads config.json; a missing one is an empty one. The file is never
// nil.
func Load(dir string) (*File, error) {
	path := filepath.Join(dir, "config.json")
	f := &File{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, f); err != nil {
		return &File{path: path}, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return f, nil
}

// Path is where the file is, or would be.
func (f *File) Path() string { return f.path }

// Servers names the servers that the file, or the helper for all of them, keeps
// credentials of, in order.
func (f *File) Servers() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(f.Auths)), maps.Keys(f.CredHelpers))
	if f.CredsStore != "" {
		if users, err := helperList(f.CredsStore); err == nil {
			names = slices.AppendSeq(names, maps.Keys(users))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Context reads the endpoint of a stored context.
func Context(dir, name string) (client.Endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	key := hex.EncodeToString(sum[:])
	text, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", key, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return client.Endpoint{}, fault.New(fault.NotFound, "context %q: context not found in %s: make it with: docker context create %s",
			name, filepath.Join(dir, "contexts"), name)
	}
	if err != nil {
		return client.Endpoint{}, err
	}
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(text, &meta); err != nil {
		return client.Endpoint{}, fault.New(fault.Invalid, "context %q: meta.json: %w", name, err)
	}
	docker, ok := meta.Endpoints["docker"]
	if !ok || docker.Host == "" {
		return client.Endpoint{}, fault.New(fault.Invalid, "context %q has no docker endpoint", name)
	}
	e := client.Endpoint{Host: docker.Host}
	files := filepath.Join(dir, "contexts", "tls", key, "docker")
	tls := client.TLSFile{Verify: !docker.SkipTLSVerify}
	for _, f := range []struct {
		name string
		to   *string
	}{{"ca.pem", &tls.CA}, {"cert.pem", &tls.Cert}, {"key.pem", &tls.Key}} {
		path := filepath.Join(files, f.name)
		if _, err := os.Stat(path); err == nil {
			*f.to = path
			e.TLS = &tls
		}
	}
	return e, nil
}
