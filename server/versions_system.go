package server

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

// event gives the message as the version knows it, nil if it does not.
func (v Version) event(msg events.Message) any {
	if v.before(46) && msg.Type == events.ImageEventType && msg.Action == events.ActionCreate {
		return nil
	}
	if !v.before(52) {
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

// eventTypes lists the content types in which the version can stream events,
// the default first.
func (v Version) eventTypes() []string {
	offers := []string{types.MediaTypeJSON}
	if !v.before(52) {
		offers = append(offers, types.MediaTypeNDJSON, types.MediaTypeJSONSequence)
	}
	if !v.before(53) {
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

func (v Version) info(info system.Info) any {
	if v.before(25) {
		for i, option := range info.SecurityOptions {
			name, _, _ := strings.Cut(option, ",")
			info.SecurityOptions[i] = strings.TrimPrefix(name, "name=")
		}
	}
	if v.before(44) {
		for name, rt := range info.Runtimes {
			info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
	}
	if v.before(49) {
		info.FirewallBackend = nil
	}
	if !v.before(52) {
		return info
	}
	legacy := legacyInfo{Info: info, RegistryConfig: info.RegistryConfig}
	if !v.before(50) {
		return legacy
	}
	legacy.DiscoveredDevices = nil
	if v.before(47) {
		legacy.RegistryConfig = legacyRegistries{ServiceConfig: info.RegistryConfig}
	}
	old := oldInfo{legacyInfo: legacy}
	old.ContainerdCommit.ID, old.RuncCommit.ID, old.InitCommit.ID = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	if v.before(49) {
		old.ContainerdCommit.Expected, old.RuncCommit.Expected, old.InitCommit.Expected = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	}
	if v.before(42) {
		return oldestInfo{oldInfo: old}
	}
	return old
}
