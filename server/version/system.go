package version

import (
	"strings"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

// legacyEvent is a message of GET /events before 1.52. The first three fields
// had stood for containers and images since before there were types.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// Event gives the message as the version knows it, nil if it does not.
func (v Version) Event(msg events.Message) any {
	if v.Before(46) && msg.Type == events.ImageEventType && msg.Action == events.ActionCreate {
		return nil
	}
	if !v.Before(52) {
		return msg
	}
	old := legacyEvent{Message: msg}
	switch msg.Type {
	case events.ContainerEventType:
		old.Status, old.ID, old.From = string(msg.Action), msg.Actor.ID, msg.Actor.Attributes["image"]
	case events.ImageEventType:
		old.Status, old.ID = string(msg.Action), msg.Actor.ID
	}
	return old
}

// EventTypes lists the content types in which the version can stream events,
// the default first.
func (v Version) EventTypes() []string {
	offers := []string{types.MediaTypeJSON}
	if !v.Before(52) {
		offers = append(offers, types.MediaTypeNDJSON, types.MediaTypeJSONSequence)
	}
	if !v.Before(53) {
		offers = append(offers, types.MediaTypeJSONLines)
	}
	return offers
}

// legacyInfo is GET /info before 1.52; oldInfo what there was before 1.50, and
// oldestInfo before 1.42.
type (
	legacyInfo struct {
		system.Info
		RegistryConfig  any
		KernelMemoryTCP bool // never limited
	}
	oldInfo struct {
		legacyInfo
		BridgeNfIptables  bool
		BridgeNfIp6tables bool
		ContainerdCommit  legacyCommit
		RuncCommit        legacyCommit
		InitCommit        legacyCommit
	}
	oldestInfo struct {
		oldInfo
		KernelMemory bool
	}
)

// legacyRegistries is the part of it that had, before 1.47, who may be sent what is
// not for everybody.
type legacyRegistries struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

type legacyCommit struct {
	ID       string
	Expected string `json:",omitempty"`
}

// Info is what the daemon tells of itself.
func (v Version) Info(info system.Info) any {
	if v.Before(25) {
		for i, option := range info.SecurityOptions {
			name, _, _ := strings.Cut(option, ",")
			info.SecurityOptions[i] = strings.TrimPrefix(name, "name=")
		}
	}
	if v.Before(44) {
		for name, rt := range info.Runtimes {
			info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
	}
	if v.Before(49) {
		info.FirewallBackend = nil
	}
	if !v.Before(52) {
		return info
	}
	legacy := legacyInfo{Info: info, RegistryConfig: info.RegistryConfig}
	if !v.Before(50) {
		return legacy
	}
	legacy.DiscoveredDevices = nil
	if v.Before(47) {
		legacy.RegistryConfig = legacyRegistries{ServiceConfig: info.RegistryConfig}
	}
	old := oldInfo{legacyInfo: legacy}
	old.ContainerdCommit.ID, old.RuncCommit.ID, old.InitCommit.ID = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	if v.Before(49) {
		old.ContainerdCommit.Expected, old.RuncCommit.Expected, old.InitCommit.Expected = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	}
	if v.Before(42) {
		return oldestInfo{oldInfo: old}
	}
	return old
}
