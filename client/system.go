package client

import (
	"context"
	"encoding/json"
	"net/url"
)

// Info is what info shows.
type Info struct {
	ID                 string
	Containers         int
	ContainersRunning  int
	ContainersPaused   int
	ContainersStopped  int
	Images             int
	Driver             string
	DriverStatus       [][2]string
	Plugins            InfoPlugins
	Debug              bool
	NFd                int
	NGoroutines        int
	SystemTime         string
	LoggingDriver      string
	CgroupDriver       string
	CgroupVersion      string `json:",omitempty"`
	NEventsListener    int
	KernelVersion      string
	OperatingSystem    string
	OSVersion          string
	OSType             string
	Architecture       string
	NCPU               int
	MemTotal           int64 // bytes
	DockerRootDir      string
	Name               string
	Labels             []string
	ExperimentalBuild  bool
	ServerVersion      string
	Runtimes           map[string]InfoRuntime
	DefaultRuntime     string
	RegistryConfig     *InfoRegistries
	LiveRestoreEnabled bool
	SecurityOptions    []string
	FirewallBackend    *InfoFirewall `json:",omitempty"`
	Warnings           []string
}

// InfoPlugins names the drivers.
type InfoPlugins struct {
	Volume        []string
	Network       []string
	Authorization []string
	Log           []string
}

// InfoRuntime is one OCI runtime; only its name, the key, is shown.
type InfoRuntime struct{}

// InfoRegistries tells which registries are reached in another way.
type InfoRegistries struct {
	InsecureRegistryCIDRs []string
	IndexConfigs          map[string]*InfoRegistry // by host, with its port if it has one
	Mirrors               []string                 // of Docker Hub, URLs
}

// InfoRegistry is one registry.
type InfoRegistry struct {
	Secure bool // false: any certificate, and HTTP
}

// InfoFirewall names what filters the packets.
type InfoFirewall struct {
	Driver string
	Info   [][2]string `json:",omitempty"`
}

// InfoRaw returns the daemon's JSON as it is.
func (c *Client) InfoRaw(ctx context.Context) ([]byte, error) {
	return fetch[[]byte](ctx, c, "GET", "/info", nil, nil)
}

// ServerVersion is the daemon's version.
type ServerVersion struct {
	Platform      VersionPlatform `json:",omitempty"`
	Version       string
	ApiVersion    string
	MinAPIVersion string `json:",omitempty"`
	Os            string
	Arch          string
	Components    []VersionComponent `json:",omitempty"`
	GitCommit     string             `json:",omitempty"`
	GoVersion     string             `json:",omitempty"`
	KernelVersion string             `json:",omitempty"`
	Experimental  bool               `json:",omitempty"`
	BuildTime     string             `json:",omitempty"`
}

// APIVersion is the name that templates use.
func (v ServerVersion) APIVersion() string { return v.ApiVersion }

// VersionPlatform names the product.
type VersionPlatform struct{ Name string }

// VersionComponent is one part of the engine.
type VersionComponent struct {
	Name    string
	Version string
	Details map[string]string `json:",omitempty"`
}

// ServerVersion asks for the daemon's version.
func (c *Client) ServerVersion(ctx context.Context) (ServerVersion, error) {
	return fetch[ServerVersion](ctx, c, "GET", "/version", nil, nil)
}

// Event is something that has happened.
type Event struct {
	Type     string
	Action   string
	Actor    EventActor
	Scope    string `json:"scope,omitempty"`
	Time     int64  `json:"time,omitempty"`     // Unix seconds
	TimeNano int64  `json:"timeNano,omitempty"` // Unix nanoseconds
}

// EventActor is what it has happened to.
type EventActor struct {
	ID         string
	Attributes map[string]string
}

// EventsOptions choose events. Since and Until are Unix seconds with a
// fraction.
type EventsOptions struct {
	Since, Until string
	Filters      Filters
}

// Events calls each for every event, with the daemon's JSON, until the stream
// or the context ends.
func (c *Client) Events(ctx context.Context, o EventsOptions, each func(Event, json.RawMessage) error) error {
	query := url.Values{}
	set(query, "since", o.Since)
	set(query, "until", o.Until)
	filter(query, o.Filters)
	body, err := c.open(ctx, request{method: "GET", path: "/events", query: query})
	if err != nil {
		return err
	}
	defer body.Close()
	return decodeStream(body, func(raw json.RawMessage) error {
		var e Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		return each(e, raw)
	})
}
