// Package config reads the file that a registry is configured with: TOML, all
// of it typed, and nothing in it that is not understood. docs/registry.md
// describes the keys.
package config

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/pattern"
)

// Config is the whole file. What the file does not say has its default.
type Config struct {
	Storage      Storage      `toml:"storage"`
	HTTP         HTTP         `toml:"http"`
	Auth         *Auth        `toml:"auth"` // nil: everybody may do everything
	Collect      Collect      `toml:"collect"`
	Repositories []Repository `toml:"repository"`
	Upstreams    []Upstream   `toml:"upstream"`
	Syncs        []Sync       `toml:"sync"`
	Notify       []Notify     `toml:"notify"`
	Limits       Limits       `toml:"limits"`
	Metrics      Metrics      `toml:"metrics"`
	Log          Log          `toml:"log"`
}

// Storage is where the registry keeps things: a directory, or a bucket.
type Storage struct {
	Root string `toml:"root"`
	S3   *S3    `toml:"s3"`
}

// S3 is a bucket.
type S3 struct {
	Endpoint  string `toml:"endpoint"` // a URL
	Bucket    string `toml:"bucket"`
	Region    string `toml:"region"` // "" asks the server
	Prefix    string `toml:"prefix"`
	AccessKey Secret `toml:"access_key"`
	SecretKey Secret `toml:"secret_key"`
	PathStyle bool   `toml:"path_style"`
	CA        string `toml:"ca"`
	Create    bool   `toml:"create"`   // the bucket, if there is none
	Redirect  bool   `toml:"redirect"` // clients fetch blobs from the bucket
}

// HTTP is how clients reach the registry.
type HTTP struct {
	Listen   []string  `toml:"listen"`
	URL      string    `toml:"url"` // where clients see it, if a proxy stands before it
	H2C      bool      `toml:"h2c"`
	TLS      *TLS      `toml:"tls"`
	Stall    Duration  `toml:"stall"`    // a body or a reader that does not move for so long is cut
	MinRate  Size      `toml:"min_rate"` // bytes a second
	Shutdown Duration  `toml:"shutdown"` // what requests have to end
	Proxies  []Network `toml:"proxies"`  // whose X-Forwarded-For counts
	Web      bool      `toml:"web"`      // pages for people at /
}

// TLS is the registry's certificate.
type TLS struct {
	Cert     string `toml:"cert"`
	Key      string `toml:"key"`
	ClientCA string `toml:"client_ca"` // clients have to show a certificate by it
}

// Auth is who may do what.
type Auth struct {
	Realm    string              `toml:"realm"`
	Htpasswd string              `toml:"htpasswd"`
	TokenKey Secret              `toml:"token_key"` // shared by registries that share clients
	Token    *Token              `toml:"token"`
	Groups   map[string][]string `toml:"groups"`
	Rules    []Rule              `toml:"rule"`
}

// Token is the server that gives tokens for this registry.
type Token struct {
	Realm        string   `toml:"realm"`
	Service      string   `toml:"service"`
	Issuer       string   `toml:"issuer"`
	JWKS         string   `toml:"jwks"` // a file or a URL
	CA           string   `toml:"ca"`   // of the URL
	Certificates []string `toml:"certificates"`
}

// Rule says who may do what with the repositories that it is the first to match.
type Rule struct {
	Match  pattern.List `toml:"match"`
	Pull   []string     `toml:"pull"`
	Push   []string     `toml:"push"`
	Delete []string     `toml:"delete"`
}

// Collect is when what nothing keeps is removed.
type Collect struct {
	Interval Duration `toml:"interval"`
	Grace    Duration `toml:"grace"`
}

// Repository is what binds the repositories that it is the first to match.
type Repository struct {
	Match     pattern.List `toml:"match"`
	Quota     Size         `toml:"quota"`
	Immutable pattern.List `toml:"immutable_tags"`
	Retention *Retention   `toml:"retention"`
}

// Retention is what is kept of the repository's tags, and of manifests without
// one.
type Retention struct {
	KeepLast   int          `toml:"keep_last"`
	KeepWithin Duration     `toml:"keep_within"`
	KeepTags   pattern.List `toml:"keep_tags"`
	Untagged   Duration     `toml:"untagged"`
}

// Upstream is a registry that is asked for what this one does not have.
type Upstream struct {
	Name         string       `toml:"name"`
	URL          string       `toml:"url"`
	Prefix       string       `toml:"prefix"`     // of its repositories' names here; "/": all that no other has, "": for syncs alone
	Namespaces   []string     `toml:"namespaces"` // the values of ns= that mean it
	Repositories pattern.List `toml:"repositories"`
	Username     string       `toml:"username"`
	Password     Secret       `toml:"password"`
	Identity     Secret       `toml:"identity_token"` // an OAuth2 refresh token instead of a password
	TagTTL       Duration     `toml:"tag_ttl"`
	Unused       Duration     `toml:"unused"` // how long a manifest stays that nobody asks for; 0 for ever
	CA           string       `toml:"ca"`
	HostsDir     string       `toml:"hosts_dir"` // of containerd's hosts.toml
	Insecure     bool         `toml:"insecure"`
}

// Sync copies from an upstream on a schedule.
type Sync struct {
	Upstream     string       `toml:"upstream"`
	Prefix       string       `toml:"prefix"`       // of the names here; "" is the upstream's name
	Repositories pattern.List `toml:"repositories"` // names, or patterns where the upstream has a catalog
	Tags         pattern.List `toml:"tags"`
	Platforms    []string     `toml:"platforms"` // of what indexes name; none is all
	Referrers    bool         `toml:"referrers"` // signatures and the like, too
	Interval     Duration     `toml:"interval"`
	At           string       `toml:"at"` // the time of day, "03:00"
}

// Notify is a webhook.
type Notify struct {
	URL          string            `toml:"url"`
	Headers      map[string]Secret `toml:"headers"`
	Events       []string          `toml:"events"`
	Repositories pattern.List      `toml:"repositories"`
	Timeout      Duration          `toml:"timeout"`
}

// Limits bound what clients can ask; 0 is no limit.
type Limits struct {
	Rate        int  `toml:"rate"` // requests a second, by client
	Burst       int  `toml:"burst"`
	Uploads     int  `toml:"uploads"` // at a time
	Connections int  `toml:"connections"`
	Blob        Size `toml:"blob"`
	Manifest    Size `toml:"manifest"`
}

// Metrics is the address of what is for whoever runs the registry.
type Metrics struct {
	Listen string `toml:"listen"`
}

// Log is what is told of the registry's work.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
	Access string `toml:"access"` // "off", "stderr" or a file
}

// The defaults that other packages and the program's help speak of.
const (
	DefaultRoot   = "/var/lib/tare-registry"
	DefaultListen = "127.0.0.1:5000"
)

func (c *Config) setDefaults() {
	c.Storage.Root = DefaultRoot
	c.HTTP.setDefaults()
	c.Collect.setDefaults()
	c.Limits.setDefaults()
	c.Log.setDefaults()
}

func (h *HTTP) setDefaults() {
	h.Listen = []string{DefaultListen}
	h.Web = true
	h.Stall = Duration(time.Minute)
	h.MinRate = 4 << 10
	h.Shutdown = Duration(30 * time.Second)
}

func (c *Collect) setDefaults() {
	c.Interval = Duration(24 * time.Hour)
	c.Grace = Duration(24 * time.Hour)
}

func (r *Retention) setDefaults() { r.Untagged = Duration(7 * 24 * time.Hour) }
func (u *Upstream) setDefaults()  { u.TagTTL = Duration(5 * time.Minute) }
func (s *Sync) setDefaults()      { s.Interval = Duration(24 * time.Hour) }

func (n *Notify) setDefaults() {
	n.Events = []string{"push", "delete"}
	n.Timeout = Duration(5 * time.Second)
}

func (l *Limits) setDefaults() { l.Manifest = 4 << 20 }

func (l *Log) setDefaults() { l.Level, l.Format, l.Access = "info", "text", "off" }

// Default is the configuration of an empty file.
func Default() *Config {
	c := &Config{}
	c.setDefaults()
	return c
}

// maxFile bounds the file.
const maxFile = 1 << 20

// Load reads a file. The error is a *Problems for what is wrong in it.
func Load(file string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the configuration: %w", err)
	}
	return Parse(file, data)
}

// Parse reads what a file of that name has in it.
func Parse(file string, data []byte) (*Config, error) {
	if len(data) > maxFile {
		return nil, fault.New(fault.Invalid, "%s has more than %d bytes: this is no configuration", file, maxFile)
	}
	d := &document{}
	c := &Config{}
	d.decode(data, c)
	if d.places != nil {
		c.check(d)
	}
	if len(d.problems) == 0 {
		return c, nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return nil, fault.New(fault.Invalid, "%w", &Problems{File: file, List: d.problems})
}

// RepositoryFor gives the first entry whose patterns match the repository.
func (c *Config) RepositoryFor(name string) (*Repository, bool) {
	for i := range c.Repositories {
		if c.Repositories[i].Match.Match(name) {
			return &c.Repositories[i], true
		}
	}
	return nil, false
}

// at is a short way to an element of a list of tables.
func at(list string, i int) path { return path("").key(list).index(i) }

func quoted(words []string) string { return fmt.Sprintf("%q", words) }
