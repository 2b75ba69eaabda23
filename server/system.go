package server

import (
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/server/version"
)

// Daemon is what GET /info and GET /version tell of the program and how it was
// told to run.
type Daemon struct {
	Version, GitCommit, BuildTime string

	ID              string // of this data root, made once
	DataRoot        string
	LiveRestore     bool // containers outlive the daemon
	Experimental    bool
	Classic         bool   // clients shall not use BuildKit by default
	Seccomp         string // the profile of containers that name none: "builtin", "unconfined" or a path
	NoNewPrivileges bool
	Remapped        bool // containers' IDs are others outside
	CgroupDriver    string
	AppArmor        bool // containers get a profile
	SELinux         bool // and labels
	HostCgroupns    bool // containers share the host's cgroup namespace by default
	InitBinary      string
	Proxies         Proxies
	Debug           bool
	Labels          []string
	Runtimes        map[string]system.Runtime // by name; the built-in one has no path
	DefaultRuntime  string
	AddressPools    []system.NetworkAddressPool
	Mirrors         []string // of docker.io, each with a slash at its end
	Insecure        []string // registries: hosts, host:port, CIDRs
	LogDriver       string   // of containers that name none
	LogDrivers      []string // that there are
	Driver          string   // of storage, and the rows that tell about it
	DriverStatus    [][2]string
	Warnings        []string // about how it was started
	CDISpecDirs     []string
	Devices         func() []string // that there are now, by CDI; nil for none
}

// Proxies are those of the daemon's own requests, without passwords.
type Proxies struct{ HTTP, HTTPS, No string }

type systemHandlers struct {
	daemon      func() Daemon
	host        host
	containers  Listing
	images      Inventory
	volumes     Volumes
	events      *event.Log
	authorizers Authorizers
	firewall    Firewall
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
	if h.daemon().Classic {
		header.Set("Builder-Version", "1")
	}
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
	d := h.daemon()
	v := system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Tare"},
		Version:       d.Version,
		APIVersion:    version.Max.String(),
		MinAPIVersion: version.Min.String(),
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     d.GitCommit,
		GoVersion:     runtime.Version(),
		KernelVersion: h.host.kernel,
		BuildTime:     d.BuildTime,
		Experimental:  d.Experimental,
	}
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: d.Version, Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "GitCommit": v.GitCommit, "GoVersion": v.GoVersion,
			"Os": v.Os, "Arch": v.Arch, "KernelVersion": v.KernelVersion, "BuildTime": v.BuildTime, "Experimental": strconv.FormatBool(d.Experimental),
		}},
		{Name: "tarerun", Version: d.Version, Details: map[string]string{"GitCommit": v.GitCommit}},
	}
	return writeJSON(w, http.StatusOK, v)
}

func (h *systemHandlers) info(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, r.version.Info(h.gather()))
}

// gather is what GET /info answers in the newest version.
func (h *systemHandlers) gather() system.Info {
	d := h.daemon()
	info := system.Info{
		ID:                  d.ID,
		Images:              h.images.Count(),
		Driver:              d.Driver,
		DriverStatus:        d.DriverStatus,
		Plugins:             system.PluginsInfo{Volume: h.volumes.Drivers(), Network: []string{"bridge", "host", "null"}, Log: d.LogDrivers, Authorization: h.authorizers.Names()},
		Debug:               d.Debug,
		SystemTime:          time.Now().Format(time.RFC3339Nano),
		LoggingDriver:       d.LogDriver,
		CgroupDriver:        d.CgroupDriver,
		IndexServerAddress:  "https://index.docker.io/v1/",
		RegistryConfig:      registryConfig(d.Mirrors, d.Insecure),
		DockerRootDir:       d.DataRoot,
		HTTPProxy:           d.Proxies.HTTP,
		HTTPSProxy:          d.Proxies.HTTPS,
		NoProxy:             d.Proxies.No,
		Labels:              append([]string{}, d.Labels...),
		ServerVersion:       d.Version,
		DefaultRuntime:      d.DefaultRuntime,
		InitBinary:          d.InitBinary,
		ExperimentalBuild:   d.Experimental,
		Runtimes:            map[string]system.RuntimeWithStatus{},
		Swarm:               swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled:  d.LiveRestore,
		RuncCommit:          system.Commit{ID: d.GitCommit},
		InitCommit:          system.Commit{ID: d.GitCommit},
		DefaultAddressPools: d.AddressPools,
		FirewallBackend:     &system.FirewallInfo{Driver: h.firewall.FirewallBackend()},
		CDISpecDirs:         append([]string{}, d.CDISpecDirs...),
		DiscoveredDevices:   []system.DeviceInfo{},
		NGoroutines:         runtime.NumGoroutine(),
		NEventsListener:     h.events.Subscribers(),
	}
	for name, rt := range d.Runtimes {
		if rt.Path == "" {
			rt.Path = name
		}
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt}
	}
	if d.Devices != nil {
		for _, id := range d.Devices() {
			info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: id})
		}
	}
	info.ContainersRunning, info.ContainersPaused, info.ContainersStopped = h.containers.Counts()
	info.Containers = info.ContainersRunning + info.ContainersPaused + info.ContainersStopped
	h.host.fill(&info)
	info.SecurityOptions = d.security(info.SecurityOptions)
	info.Warnings = append(info.Warnings, d.Warnings...)
	return info
}

// registryConfig tells which registries are reached how, in dockerd's shape.
func registryConfig(mirrors, insecure []string) *registry.ServiceConfig {
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: append([]string{}, mirrors...), Secure: true, Official: true},
		},
		Mirrors: mirrors,
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

// security tells how containers are confined that do not say, from what the
// host can do.
func (d Daemon) security(host []string) []string {
	list := []string{}
	if d.AppArmor {
		list = append(list, "name=apparmor")
	}
	for _, option := range host {
		switch {
		case option == "name=seccomp":
			list = append(list, option+",profile="+d.Seccomp)
			if d.SELinux {
				list = append(list, "name=selinux")
			}
		case option == "name=cgroupns" && d.HostCgroupns:
		default:
			list = append(list, option)
		}
	}
	if d.NoNewPrivileges {
		list = append(list, "name=no-new-privileges")
	}
	if d.Remapped {
		list = append(list, "name=userns")
	}
	return list
}
