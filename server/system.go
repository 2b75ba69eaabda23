package server

import (
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/tarehq/tare/event"
)

// Daemon is what GET /info and GET /version tell of the program and how it was
// started. It does not change.
type Daemon struct {
	Version, GitCommit, BuildTime string

	ID             string // of this data root, made once
	DataRoot       string
	Debug          bool
	Labels         []string
	Runtimes       map[string]system.Runtime // by name; without a path the built-in one
	DefaultRuntime string
	AddressPools   []system.NetworkAddressPool
	Mirrors        []string // of docker.io, each with a slash at its end
	Insecure       []string // registries: hosts, host:port, CIDRs
	LogDriver      string   // of containers that name none
	LogDrivers     []string // that there are
	Driver         string   // of storage, and the rows that tell about it
	DriverStatus   [][2]string
	Warnings       []string // about how it was started
	CDISpecDirs    []string
	Devices        func() []string // that there are now, by CDI; nil for none
}

type systemHandlers struct {
	daemon     Daemon
	host       host
	containers Containers
	images     Images
	events     *event.Log
}

func (h *systemHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/_ping", handle: h.ping},
		{method: "HEAD", pattern: "/_ping", handle: h.ping},
		{method: "GET", pattern: "/version", handle: h.version},
		{method: "GET", pattern: "/info", handle: h.info},
	}
}

func (h *systemHandlers) ping(w http.ResponseWriter, r *request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Builder-Version", "2")
	header.Set("Swarm", string(swarm.LocalNodeStateInactive))
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (h *systemHandlers) version(w http.ResponseWriter, r *request) error {
	d := h.daemon
	v := system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Tare"},
		Version:       d.Version,
		APIVersion:    MaxVersion.String(),
		MinAPIVersion: MinVersion.String(),
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     d.GitCommit,
		GoVersion:     runtime.Version(),
		KernelVersion: h.host.kernel,
		BuildTime:     d.BuildTime,
	}
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: d.Version, Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "GitCommit": v.GitCommit, "GoVersion": v.GoVersion,
			"Os": v.Os, "Arch": v.Arch, "KernelVersion": v.KernelVersion, "BuildTime": v.BuildTime, "Experimental": "false",
		}},
		{Name: "tarerun", Version: d.Version, Details: map[string]string{"GitCommit": v.GitCommit}},
	}
	return writeJSON(w, http.StatusOK, v)
}

func (h *systemHandlers) info(w http.ResponseWriter, r *request) error {
	info := system.Info{
		ID:                 h.daemon.ID,
		Images:             h.images.Count(),
		Driver:             h.daemon.Driver,
		DriverStatus:       h.daemon.DriverStatus,
		Plugins:            system.PluginsInfo{Volume: []string{}, Network: []string{"bridge", "host", "null"}, Log: h.daemon.LogDrivers},
		Debug:              h.daemon.Debug,
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      h.daemon.LogDriver,
		CgroupDriver:       "cgroupfs",
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     registryConfig(h.daemon.Mirrors, h.daemon.Insecure),
		DockerRootDir:      h.daemon.DataRoot,
		HTTPProxy:          proxy("HTTP_PROXY", "http_proxy"),
		HTTPSProxy:         proxy("HTTPS_PROXY", "https_proxy"),
		NoProxy:            firstEnv("NO_PROXY", "no_proxy"),
		Labels:             append([]string{}, h.daemon.Labels...),
		ServerVersion:      h.daemon.Version,
		DefaultRuntime:     h.daemon.DefaultRuntime,
		InitBinary:         "tare-init",
		Runtimes:           map[string]system.RuntimeWithStatus{},
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		// Containers always outlive the daemon.
		LiveRestoreEnabled:  true,
		RuncCommit:          system.Commit{ID: h.daemon.GitCommit},
		DefaultAddressPools: h.daemon.AddressPools,
		FirewallBackend:     &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:         append([]string{}, h.daemon.CDISpecDirs...),
		DiscoveredDevices:   []system.DeviceInfo{},
		NGoroutines:         runtime.NumGoroutine(),
		NEventsListener:     h.events.Subscribers(),
	}
	for name, rt := range h.daemon.Runtimes {
		if rt.Path == "" {
			rt.Path = name
		}
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt}
	}
	if h.daemon.Devices != nil {
		for _, id := range h.daemon.Devices() {
			info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: id})
		}
	}
	info.ContainersRunning, info.ContainersPaused, info.ContainersStopped = h.containers.Counts()
	info.Containers = info.ContainersRunning + info.ContainersPaused + info.ContainersStopped
	h.host.fill(&info)
	info.Warnings = append(info.Warnings, h.daemon.Warnings...)
	return writeJSON(w, http.StatusOK, r.version.info(info))
}

// registryConfig tells which registries are reached how, in dockerd's shape.
func registryConfig(mirrors, insecure []string) *registry.ServiceConfig {
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: append([]string{}, mirrors...), Secure: true, Official: true},
		},
		Mirrors: append([]string{}, mirrors...),
	}
	for _, entry := range insecure {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			if !slices.Contains(c.InsecureRegistryCIDRs, prefix.Masked()) {
				c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, prefix.Masked())
			}
			continue
		}
		c.IndexConfigs[entry] = &registry.IndexInfo{Name: entry, Mirrors: []string{}}
	}
	return c
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}
