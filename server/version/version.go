// Package version knows what older versions of the Engine API asked and answered
// otherwise: nobody else has to.
package version

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/net/websocket"

	"github.com/tarehq/tare/container/logbook"
	"github.com/tarehq/tare/fault"
)

// Version is a version of the Engine API.
type Version struct{ Major, Minor int }

// The versions that are answered: the newest is that of the wire types.
var (
	Min = Version{1, 24}
	Max = Version{1, 56}
)

func (v Version) String() string { return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) }

// Before tells whether v is older than 1.minor.
func (v Version) Before(minor int) bool { return v.Major < 1 || v.Major == 1 && v.Minor < minor }

// TooOldError is answered in plain text, see writeError.
type TooOldError struct{ Version }

func (e TooOldError) Error() string {
	return fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", e.Version, Min)
}

func (TooOldError) Is(target error) bool { return target == fault.Invalid }

// Check refuses a version that is not answered.
func (v Version) Check() error {
	if v.Before(Min.Minor) {
		return fault.New(fault.Invalid, "%w", TooOldError{v})
	}
	if v.Major > Max.Major || v.Minor > Max.Minor {
		return fault.New(fault.Invalid, "client version %s is too new. Maximum supported API version is %s", v, Max)
	}
	return nil
}

// Cut splits /v1.41/info into its version and /info. A path without a
// version is answered as the newest.
func Cut(path string) (Version, string, error) {
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return Max, path, nil
	}
	text, rest, _ := strings.Cut(rest, "/")
	if text == "" || strings.Trim(text, "0123456789.") != "" {
		return Max, path, nil
	}
	major, minor, _ := strings.Cut(text, ".")
	var v Version
	var err error
	if v.Major, err = strconv.Atoi(major); err == nil && minor != "" {
		v.Minor, err = strconv.Atoi(minor)
	}
	if err != nil {
		return v, "", fault.New(fault.Invalid, "invalid API version %q", text)
	}
	return v, "/" + rest, nil
}

// StreamType is the content type of a container's output.
func (v Version) StreamType(tty bool) string {
	if tty || v.Before(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// AllStreams tells whether an attach over a websocket has all streams, because
// clients could not choose.
func (v Version) AllStreams() bool { return v.Before(42) }

// SocketPayload is the type of a websocket's messages, RFC 6455, section 5.6.
func (v Version) SocketPayload() byte {
	if v.Before(28) {
		return websocket.TextFrame
	}
	return websocket.BinaryFrame
}

// CreateBody is the request of POST /containers/create with the fields that
// the wire types have dropped, and those that may be written in an older way.
type CreateBody struct {
	container.CreateRequest
	MacAddress             network.HardwareAddr
	Cmd, Entrypoint, Shell words
}

// words is a command line: an array, or a string for one word alone.
type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' || string(data) == "null" {
		return json.Unmarshal(data, (*[]string)(w))
	}
	*w = make(words, 1)
	err := json.Unmarshal(data, &(*w)[0])
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) { // another error, for the decoder to leave alone
		return fmt.Errorf("json: cannot unmarshal %s into Go value of type string", wrong.Value)
	}
	return err
}

// Create brings an older client's request to the newest meaning: fields that
// did not exist then are ignored, defaults that were different are made plain.
func (v Version) Create(body *CreateBody, cgroupVersion int) error {
	body.settleNetworks()
	c, hc := body.Config, body.HostConfig
	if v.Before(25) {
		hc.AutoRemove = false
	}
	if v.Before(40) && hc.IpcMode.IsEmpty() {
		hc.IpcMode = container.IPCModeShareable
	}
	if v.Before(41) && cgroupVersion == 1 && hc.CgroupnsMode.IsEmpty() {
		hc.CgroupnsMode = container.CgroupnsModeHost
	}
	if v.Before(42) {
		hc.ConsoleSize = [2]uint{}
	}
	if v.Before(43) {
		hc.Annotations = nil
	}
	if v.Before(44) {
		if c.Healthcheck != nil {
			c.Healthcheck.StartInterval = 0
		}
		if endpoints := body.NetworkingConfig.EndpointsConfig; len(endpoints) > 1 {
			names := slices.Sorted(maps.Keys(endpoints))
			return fault.New(fault.Invalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
		}
	}
	for i := range hc.Mounts {
		if err := v.createMount(&hc.Mounts[i]); err != nil {
			return err
		}
	}
	if v.Before(48) {
		for _, endpoint := range body.NetworkingConfig.EndpointsConfig {
			if endpoint != nil {
				endpoint.GwPriority = 0
			}
		}
	}
	return v.createMAC(body)
}

// settleNetworks fills what may be left out and gives the default network its
// name, so that all that follows sees one form.
func (body *CreateBody) settleNetworks() {
	if body.HostConfig == nil {
		body.HostConfig = &container.HostConfig{}
	}
	if body.NetworkingConfig == nil {
		body.NetworkingConfig = &network.NetworkingConfig{}
	}
	nets := body.NetworkingConfig
	if nets.EndpointsConfig == nil {
		nets.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	if mode := body.HostConfig.NetworkMode; mode == "" || mode.IsDefault() {
		body.HostConfig.NetworkMode = network.NetworkBridge
	}
	_, both := nets.EndpointsConfig[network.NetworkBridge]
	if endpoint, ok := nets.EndpointsConfig[network.NetworkDefault]; ok && !both && body.HostConfig.NetworkMode == network.NetworkBridge {
		nets.EndpointsConfig[network.NetworkBridge] = endpoint
		delete(nets.EndpointsConfig, network.NetworkDefault)
	}
}

func (v Version) createMount(m *mount.Mount) error {
	bind := m.BindOptions
	if bind != nil && v.Before(40) {
		bind.NonRecursive = false
	}
	if v.Before(42) {
		if bind != nil {
			bind.CreateMountpoint = false
		}
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	} else {
		for name, wrong := range map[string]bool{
			"VolumeOptions": m.VolumeOptions != nil && m.Type != mount.TypeVolume,
			"BindOptions":   bind != nil && m.Type != mount.TypeBind,
			"TmpfsOptions":  m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs,
		} {
			if wrong {
				return fault.New(fault.Invalid, "%s must not be specified on mount type %q", name, m.Type)
			}
		}
	}
	if v.Before(44) && m.Type == mount.TypeBind {
		if bind != nil && bind.ReadOnlyForceRecursive {
			return fault.New(fault.Invalid, "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		}
		// Read-only mounts were not recursive then.
		if m.ReadOnly {
			if bind == nil {
				bind = &mount.BindOptions{}
				m.BindOptions = bind
			}
			bind.ReadOnlyNonRecursive = true
		}
	}
	if v.Before(45) && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
		return fault.New(fault.Invalid, "VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if v.Before(48) && m.Type == mount.TypeImage {
		return fault.New(fault.Invalid, `Mount type "Image" needs API v1.48 or newer`)
	}
	return nil
}

// createMAC moves the container-wide address of clients before 1.52 to the
// endpoint that it is meant for. Before 1.44 an endpoint had none of its own,
// and a client named at most one.
func (v Version) createMAC(body *CreateBody) error {
	mode, mac, endpoints := body.HostConfig.NetworkMode, body.MacAddress, body.NetworkingConfig.EndpointsConfig
	attachable := mode.IsBridge() || mode.IsUserDefined()
	if v.Before(44) {
		for _, endpoint := range endpoints {
			if endpoint != nil {
				endpoint.MacAddress = nil
			}
		}
	}
	switch {
	case len(mac) == 0:
		return nil
	case !v.Before(52):
		return fault.New(fault.Invalid, "container-wide MAC address no longer supported; use endpoint-specific MAC address instead")
	case !attachable && v.Before(44):
		return fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
	case !attachable:
		return nil // createWarnings tells of it
	}
	name := mode.NetworkName()
	for only := range endpoints {
		if v.Before(44) {
			name = only
		}
	}
	endpoint := endpoints[name]
	switch {
	case endpoint != nil:
	case len(endpoints) > 0 && !v.Before(44):
		return fault.New(fault.Invalid, "if a container-wide MAC address is supplied, HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	default:
		endpoint = &network.EndpointSettings{}
		endpoints[name] = endpoint
	}
	if len(endpoint.MacAddress) != 0 && endpoint.MacAddress.String() != mac.String() {
		return fault.New(fault.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	endpoint.MacAddress = mac
	return nil
}

// CreateWarnings tells of what the version has and newer ones have not.
func (v Version) CreateWarnings(body *CreateBody) []string {
	if len(body.MacAddress) == 0 || v.Before(44) || !v.Before(52) {
		return nil
	}
	return []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}
}

// Update brings an older client's request to the newest meaning. No limit of
// processes is 0 or any number below it.
func (v Version) Update(u *container.UpdateConfig) {
	switch {
	case v.Before(40):
		u.PidsLimit = nil
	case u.PidsLimit != nil && *u.PidsLimit < 0:
		u.PidsLimit = new(int64)
	}
}

// OneShot tells whether statistics can be asked for without those of a second before.
func (v Version) OneShot() bool { return !v.Before(41) }

// CheckListFilters refuses what the list of containers could not be filtered by.
func (v Version) CheckListFilters(filters map[string]map[string]bool) error {
	if _, asked := filters["annotation"]; asked && v.Before(56) {
		return fault.New(fault.Invalid, "invalid filter 'annotation'")
	}
	return nil
}

// LogUsage is what the containers' logs take of the disk. Docker's answer has
// no such field, and counts them nowhere.
type LogUsage struct {
	ActiveCount, TotalCount int64
	Reclaimable, TotalSize  int64          // bytes; a log that is written can be cleared, too
	Items                   []logbook.Size `json:",omitempty"`
}

// legacyUsage is GET /system/df before 1.53: lists of all there is, null for a
// kind that was not asked for. 1.52 had both forms.
type legacyUsage struct {
	LayersSize  *int64 `json:",omitempty"`
	Images      any    // []image.Summary, or as older versions had it
	Containers  []container.Summary
	Volumes     []*volume.Volume
	BuildCache  []build.CacheRecord
	BuilderSize *int64    `json:",omitempty"`
	LogUsage    *LogUsage `json:",omitempty"`
	*system.DiskUsage
}

// Usage is the answer to how much space is taken.
func (v Version) Usage(u system.DiskUsage, logs *LogUsage, verbose bool) any {
	old := legacyUsage{LogUsage: logs}
	if v.Before(52) {
		old.LayersSize = new(int64)
	}
	if img := u.ImageUsage; img != nil {
		old.LayersSize = &img.TotalSize
		old.Images = v.images(append([]image.Summary{}, img.Items...))
	}
	if c := u.ContainerUsage; c != nil {
		old.Containers = append([]container.Summary{}, c.Items...)
		for i := range old.Containers {
			v.Summary(&old.Containers[i])
			old.Containers[i].ImageManifestDescriptor = nil
		}
	}
	if u.VolumeUsage != nil {
		old.Volumes = []*volume.Volume{}
		for i := range u.VolumeUsage.Items {
			old.Volumes = append(old.Volumes, &u.VolumeUsage.Items[i])
		}
	}
	if u.BuildCacheUsage != nil {
		old.BuildCache = append([]build.CacheRecord{}, u.BuildCacheUsage.Items...)
		if v.Before(42) && u.BuildCacheUsage.TotalSize > 0 {
			old.BuilderSize = &u.BuildCacheUsage.TotalSize
		}
	}
	if v.Before(52) {
		return old
	}
	if !verbose {
		if u.ImageUsage != nil {
			u.ImageUsage.Items = nil
		}
		if u.ContainerUsage != nil {
			u.ContainerUsage.Items = nil
		}
		if u.VolumeUsage != nil {
			u.VolumeUsage.Items = nil
		}
		if u.BuildCacheUsage != nil {
			u.BuildCacheUsage.Items = nil
		}
	}
	if v.Before(53) && !verbose {
		old.DiskUsage = &u
		return old
	}
	return struct {
		system.DiskUsage
		LogUsage *LogUsage `json:",omitempty"`
	}{u, logs}
}
