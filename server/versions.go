package server

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
	"github.com/tarehq/tare/fault"
	"golang.org/x/net/websocket"
)

// Version is a version of the Engine API.
type Version struct{ Major, Minor int }

// The versions that are answered: the newest is that of the wire types.
var (
	MinVersion = Version{1, 24}
	MaxVersion = Version{1, 56}
)

func (v Version) String() string { return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) }

// before tells whether v is older than 1.minor.
func (v Version) before(minor int) bool { return v.Major < 1 || v.Major == 1 && v.Minor < minor }

// tooOldError is answered in plain text, see writeError.
type tooOldError struct{ Version }

func (e tooOldError) Error() string {
	return fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", e.Version, MinVersion)
}

func (tooOldError) Is(target error) bool { return target == fault.Invalid }

func (v Version) check() error {
	if v.before(MinVersion.Minor) {
		return fault.New(fault.Invalid, "%w", tooOldError{v})
	}
	if v.Major > MaxVersion.Major || v.Minor > MaxVersion.Minor {
		return fault.New(fault.Invalid, "client version %s is too new. Maximum supported API version is %s", v, MaxVersion)
	}
	return nil
}

// cutVersion splits /v1.41/info into its version and /info. A path without a
// version is answered as the newest.
func cutVersion(path string) (Version, string, error) {
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return MaxVersion, path, nil
	}
	text, rest, _ := strings.Cut(rest, "/")
	if text == "" || strings.Trim(text, "0123456789.") != "" {
		return MaxVersion, path, nil
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

// streamType is the content type of a container's output.
func (v Version) streamType(tty bool) string {
	if tty || v.before(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// allStreams tells whether an attach over a websocket has all streams, because
// clients could not choose.
func (v Version) allStreams() bool { return v.before(42) }

// socketPayload is the type of a websocket's messages, RFC 6455, section 5.6.
func (v Version) socketPayload() byte {
	if v.before(28) {
		return websocket.TextFrame
	}
	return websocket.BinaryFrame
}

// createBody is the request of POST /containers/create with the fields that
// the wire types have dropped, and those that may be written in an older way.
type createBody struct {
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

// create brings an older client's request to the newest meaning: fields that
// did not exist then are ignored, defaults that were different are made plain.
func (v Version) create(body *createBody, cgroupVersion int) error {
	c, hc := body.Config, body.HostConfig
	if v.before(25) {
		hc.AutoRemove = false
	}
	if v.before(40) && hc.IpcMode.IsEmpty() {
		hc.IpcMode = container.IPCModeShareable
	}
	if v.before(41) && cgroupVersion == 1 && hc.CgroupnsMode.IsEmpty() {
		hc.CgroupnsMode = container.CgroupnsModeHost
	}
	if v.before(42) {
		hc.ConsoleSize = [2]uint{}
	}
	if v.before(43) {
		hc.Annotations = nil
	}
	if v.before(44) {
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
	if v.before(48) {
		for _, endpoint := range body.NetworkingConfig.EndpointsConfig {
			if endpoint != nil {
				endpoint.GwPriority = 0
			}
		}
	}
	return v.createMAC(body)
}

func (v Version) createMount(m *mount.Mount) error {
	bind := m.BindOptions
	if bind != nil && v.before(40) {
		bind.NonRecursive = false
	}
	if v.before(42) {
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
	if v.before(44) && m.Type == mount.TypeBind {
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
	if v.before(45) && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
		return fault.New(fault.Invalid, "VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if v.before(48) && m.Type == mount.TypeImage {
		return fault.New(fault.Invalid, `Mount type "Image" needs API v1.48 or newer`)
	}
	return nil
}

// createMAC moves the container-wide address of clients before 1.52 to the
// endpoint that it is meant for. Before 1.44 an endpoint had none of its own,
// and a client named at most one.
func (v Version) createMAC(body *createBody) error {
	mode, mac, endpoints := body.HostConfig.NetworkMode, body.MacAddress, body.NetworkingConfig.EndpointsConfig
	attachable := mode.IsBridge() || mode.IsUserDefined()
	if v.before(44) {
		for _, endpoint := range endpoints {
			if endpoint != nil {
				endpoint.MacAddress = nil
			}
		}
	}
	switch {
	case len(mac) == 0:
		return nil
	case !v.before(52):
		return fault.New(fault.Invalid, "container-wide MAC address no longer supported; use endpoint-specific MAC address instead")
	case !attachable && v.before(44):
		return fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
	case !attachable:
		return nil // createWarnings tells of it
	}
	name := mode.NetworkName()
	for only := range endpoints {
		if v.before(44) {
			name = only
		}
	}
	endpoint := endpoints[name]
	switch {
	case endpoint != nil:
	case len(endpoints) > 0 && !v.before(44):
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

// createWarnings tells of what the version has and newer ones have not.
func (v Version) createWarnings(body *createBody) []string {
	if len(body.MacAddress) == 0 || v.before(44) || !v.before(52) {
		return nil
	}
	return []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}
}

// update brings an older client's request to the newest meaning. No limit of
// processes is 0 or any number below it.
func (v Version) update(u *container.UpdateConfig) {
	switch {
	case v.before(40):
		u.PidsLimit = nil
	case u.PidsLimit != nil && *u.PidsLimit < 0:
		u.PidsLimit = new(int64)
	}
}

// oneShot tells whether statistics shall come without those of a second before.
func (v Version) oneShot(r *request) bool { return !v.before(41) && r.flag("one-shot") }

// checkListFilters refuses what the list of containers could not be filtered by.
func (v Version) checkListFilters(filters map[string]map[string]bool) error {
	if _, asked := filters["annotation"]; asked && v.before(56) {
		return fault.New(fault.Invalid, "invalid filter 'annotation'")
	}
	return nil
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

func (v Version) usage(u system.DiskUsage, logs *LogUsage, verbose bool) any {
	old := legacyUsage{LogUsage: logs}
	if v.before(52) {
		old.LayersSize = new(int64)
	}
	if img := u.ImageUsage; img != nil {
		old.LayersSize = &img.TotalSize
		old.Images = v.images(append([]image.Summary{}, img.Items...))
	}
	if c := u.ContainerUsage; c != nil {
		old.Containers = append([]container.Summary{}, c.Items...)
		for i := range old.Containers {
			v.summary(&old.Containers[i])
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
		if v.before(42) && u.BuildCacheUsage.TotalSize > 0 {
			old.BuilderSize = &u.BuildCacheUsage.TotalSize
		}
	}
	if v.before(52) {
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
	if v.before(53) && !verbose {
		old.DiskUsage = &u
		return old
	}
	return struct {
		system.DiskUsage
		LogUsage *LogUsage `json:",omitempty"`
	}{u, logs}
}

// platforms are those that loading and saving are about. The parameter came
// with 1.48, and several with 1.52.
func (v Version) platforms(r *request) ([]string, error) {
	if v.before(48) {
		return nil, nil
	}
	if v.before(52) {
		if _, err := r.platform("platform"); err != nil {
			return nil, err
		}
	}
	return r.platforms("platform")
}
