package version

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Summary makes of a listed container what the version knows.
func (v Version) Summary(s *container.Summary) {
	if v.Before(46) {
		s.HostConfig.Annotations = nil
	}
	if v.Before(48) {
		s.ImageManifestDescriptor = nil
	}
	if v.Before(52) {
		s.Health = nil
	}
}

// legacyContainer is GET /containers/{id}/json before 1.52: the default
// bridge's addresses stood in NetworkSettings itself, and the storage driver's
// data could not be left out.
type legacyContainer struct {
	container.InspectResponse
	Config          *legacyConfig
	GraphDriver     storage.DriverData
	NetworkSettings *legacyNetworkSettings
}

// legacyConfig is a configuration with what could not be left out.
type legacyConfig struct {
	*container.Config
	OnBuild []string
}

type legacyNetworkSettings struct {
	Bridge string
	container.NetworkSettings
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             network.HardwareAddr
}

// Container is the answer to an inspection.
func (v Version) Container(c container.InspectResponse) any {
	if v.Before(48) {
		c.ImageManifestDescriptor = nil
	}
	if c.NetworkSettings != nil && v.Before(45) {
		c.NetworkSettings = withShortAlias(c)
	}
	if !v.Before(52) {
		return c
	}
	c.Storage = nil
	old := legacyContainer{InspectResponse: c, GraphDriver: storage.DriverData{Name: c.Driver}}
	if c.Config != nil {
		old.Config = &legacyConfig{c.Config, c.Config.OnBuild}
	}
	if c.GraphDriver != nil {
		old.GraphDriver = *c.GraphDriver
	}
	if c.NetworkSettings != nil {
		n := legacyNetworkSettings{NetworkSettings: *c.NetworkSettings}
		if ep := c.NetworkSettings.Networks["bridge"]; ep != nil {
			n.EndpointID, n.Gateway, n.IPAddress, n.IPPrefixLen, n.MacAddress = ep.EndpointID, ep.Gateway, ep.IPAddress, ep.IPPrefixLen, ep.MacAddress
			n.GlobalIPv6Address, n.GlobalIPv6PrefixLen, n.IPv6Gateway = ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen, ep.IPv6Gateway
		}
		old.NetworkSettings = &n
	}
	return old
}

// withShortAlias adds the container's short ID and host name to the aliases on
// user-defined networks, where they were found before DNSNames existed.
func withShortAlias(c container.InspectResponse) *container.NetworkSettings {
	settings := *c.NetworkSettings
	settings.Networks = maps.Clone(settings.Networks)
	for name, ep := range settings.Networks {
		if ep == nil || !container.NetworkMode(name).IsUserDefined() {
			continue
		}
		ep = ep.Copy()
		extra := []string{c.ID[:min(12, len(c.ID))]}
		if c.Config != nil {
			extra = append(extra, c.Config.Hostname)
		}
		for _, alias := range extra {
			if !slices.Contains(ep.Aliases, alias) {
				ep.Aliases = append(ep.Aliases, alias)
			}
		}
		settings.Networks[name] = ep
	}
	return &settings
}
