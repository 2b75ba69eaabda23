package event

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/label"
)

// Filter chooses messages. Its keys are Docker's: an object type names an
// actor by ID or name, each a prefix too; "image" by exact ID or name with or
// without its tag; "type", "event", "scope" and "label" what they say. The
// values of a key are alternatives (those of "label" must all hold), and all
// keys must hold.
type Filter map[string][]string

var actorKeys = []events.Type{
	events.ContainerEventType, events.NetworkEventType, events.VolumeEventType, events.PluginEventType,
	events.DaemonEventType, events.NodeEventType, events.ServiceEventType, events.SecretEventType, events.ConfigEventType,
}

// Check refuses keys that no message can be chosen by (fault.Invalid).
func (f Filter) Check() error {
	for key := range f {
		switch key {
		case "type", "event", "scope", "label", "image":
			continue
		}
		if !slices.Contains(actorKeys, events.Type(key)) {
			return fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// Include tells whether the filter lets the message through.
func (f Filter) Include(msg events.Message) bool {
	if !f.exact("type", string(msg.Type)) || !f.exact("scope", msg.Scope) || !f.action(string(msg.Action)) {
		return false
	}
	for _, key := range actorKeys {
		if values := f[string(key)]; len(values) > 0 && !prefixed(values, msg.Actor.ID) && !prefixed(values, msg.Actor.Attributes["name"]) {
			return false
		}
	}
	return f.image(msg) && f.labels(msg.Actor.Attributes)
}

func (f Filter) exact(key, got string) bool {
	return len(f[key]) == 0 || slices.Contains(f[key], got)
}

// action matches the action, or the part before its colon: exec_start,
// exec_create and health_status carry a detail after it.
func (f Filter) action(got string) bool {
	if f.exact("event", got) {
		return true
	}
	name, _, detailed := strings.Cut(got, ":")
	return detailed && slices.Contains(f["event"], name)
}

func (f Filter) image(msg events.Message) bool {
	values := f["image"]
	if len(values) == 0 {
		return true
	}
	name := msg.Actor.Attributes["image"]
	if msg.Type == events.ImageEventType {
		name = msg.Actor.Attributes["name"]
	}
	for _, got := range []string{msg.Actor.ID, name} {
		if slices.Contains(values, got) || slices.Contains(values, withoutTag(got)) {
			return true
		}
	}
	return false
}

func (f Filter) labels(attributes map[string]string) bool {
	for _, want := range f["label"] {
		if !label.Has(attributes, want) {
			return false
		}
	}
	return true
}

func prefixed(values []string, got string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(got, v) })
}

// withoutTag cuts the tag or digest off an image name; a port in the host part
// is no tag.
func withoutTag(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		return name[:colon]
	}
	return name
}
