// Package config reads the files of Docker's client, so that tare finds what a
// user has set up there: config.json and the stored contexts.
//
//	<dir>/config.json                      settings and credentials
//	<dir>/manifests/<list>/<manifest>      manifest lists that are being made
//	<dir>/contexts/meta/<sha256 of the name>/meta.json
//	<dir>/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem
//	<dir>/cli-plugins/docker-<name>        programs that are commands
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plainjson"
)

// File is what tare reads of config.json.
type File struct {
	CurrentContext string            `json:"currentContext,omitempty"` // "" is the default
	DetachKeys     string            `json:"detachKeys,omitempty"`
	PsFormat       string            `json:"psFormat,omitempty"`
	ImagesFormat   string            `json:"imagesFormat,omitempty"`
	StatsFormat    string            `json:"statsFormat,omitempty"`
	NetworksFormat string            `json:"networksFormat,omitempty"`
	VolumesFormat  string            `json:"volumesFormat,omitempty"`
	PruneFilters   []string          `json:"pruneFilters,omitempty"`
	HTTPHeaders    map[string]string `json:"HttpHeaders,omitempty"` // of every request
	Proxies        map[string]Proxy  `json:"proxies,omitempty"`     // by the daemon's address, or "default"
	// PluginDirs are looked through for plugins before the usual ones.
	PluginDirs []string        `json:"cliPluginsExtraDirs,omitempty"`
	Auths      map[string]Auth `json:"auths,omitempty"` // by server
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
		return f, fault.New(fault.Invalid, "Error loading config file: %w", err)
	}
	if plainjson.Unmarshal(text, f) == nil {
		return f, nil
	}
	// The other reader knows more, of what is wrong as well.
	f = &File{path: path}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(f); err != nil {
		return &File{path: path}, fault.New(fault.Invalid, "Error parsing config file (%s): %w", path, err)
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
