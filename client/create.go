package client

import (
	"context"
	"net/url"
)

// CreateRequest is the body of POST /containers/create.
type CreateRequest struct {
	Config
	HostConfig       *HostConfig       `json:",omitempty"`
	NetworkingConfig *NetworkingConfig `json:",omitempty"`
}

// Config is the part of a container's configuration that an image may have
// too. Entrypoint holds one empty string to reset the image's.
type Config struct {
	Hostname     string              `json:",omitempty"`
	Domainname   string              `json:",omitempty"`
	User         string              `json:",omitempty"`
	AttachStdin  bool                `json:",omitempty"`
	AttachStdout bool                `json:",omitempty"`
	AttachStderr bool                `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"` // by port/protocol
	Tty          bool                `json:",omitempty"`
	OpenStdin    bool                `json:",omitempty"`
	StdinOnce    bool                `json:",omitempty"`
	Env          []string            `json:",omitempty"` // KEY=VALUE, or KEY to take an image's variable away
	Cmd          []string            `json:",omitempty"`
	Healthcheck  *Healthcheck        `json:",omitempty"`
	Image        string              `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"` // anonymous ones, by path in the container
	WorkingDir   string              `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	StopTimeout  *int                `json:",omitempty"` // seconds
}

// Healthcheck says how to find out whether a container works. Durations are in
// nanoseconds; 0 inherits.
type Healthcheck struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// HostConfig is the part of a container's configuration that concerns the host.
type HostConfig struct {
	Binds           []string                 `json:",omitempty"` // source:target[:options]
	ContainerIDFile string                   `json:",omitempty"`
	LogConfig       *LogConfig               `json:",omitempty"`
	NetworkMode     string                   `json:",omitempty"`
	PortBindings    map[string][]PortBinding `json:",omitempty"` // by port/protocol
	RestartPolicy   *RestartPolicy           `json:",omitempty"`
	AutoRemove      bool                     `json:",omitempty"`
	VolumeDriver    string                   `json:",omitempty"`
	VolumesFrom     []string                 `json:",omitempty"`
	ConsoleSize     [2]uint                  // height, width
	Annotations     map[string]string        `json:",omitempty"`

	CapAdd          []string          `json:",omitempty"`
	CapDrop         []string          `json:",omitempty"`
	CgroupnsMode    string            `json:",omitempty"`
	Dns             []string          `json:",omitempty"`
	DnsOptions      []string          `json:",omitempty"`
	DnsSearch       []string          `json:",omitempty"`
	ExtraHosts      []string          `json:",omitempty"`
	GroupAdd        []string          `json:",omitempty"`
	IpcMode         string            `json:",omitempty"`
	Links           []string          `json:",omitempty"`
	OomScoreAdj     int               `json:",omitempty"`
	PidMode         string            `json:",omitempty"`
	Privileged      bool              `json:",omitempty"`
	PublishAllPorts bool              `json:",omitempty"`
	ReadonlyRootfs  bool              `json:",omitempty"`
	SecurityOpt     []string          `json:",omitempty"`
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"` // options by path
	UTSMode         string            `json:",omitempty"`
	UsernsMode      string            `json:",omitempty"`
	ShmSize         int64             `json:",omitempty"` // bytes
	Sysctls         map[string]string `json:",omitempty"`
	Runtime         string            `json:",omitempty"`
	Umask           *uint32           `json:",omitempty"`
	Isolation       string            `json:",omitempty"`

	Resources

	Mounts []Mount `json:",omitempty"`
	// Empty and not nil for --security-opt systempaths=unconfined.
	MaskedPaths   []string
	ReadonlyPaths []string
	Init          *bool `json:",omitempty"`
}

// Resources are the limits of a container. Sizes are in bytes, periods and
// quotas in microseconds.
type Resources struct {
	CpuShares            int64            `json:",omitempty"`
	Memory               int64            `json:",omitempty"`
	NanoCpus             int64            `json:",omitempty"`
	CgroupParent         string           `json:",omitempty"`
	BlkioWeight          uint16           `json:",omitempty"`
	BlkioWeightDevice    []WeightDevice   `json:",omitempty"`
	BlkioDeviceReadBps   []ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteBps  []ThrottleDevice `json:",omitempty"`
	BlkioDeviceReadIOps  []ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteIOps []ThrottleDevice `json:",omitempty"`
	CpuPeriod            int64            `json:",omitempty"`
	CpuQuota             int64            `json:",omitempty"`
	CpuRealtimePeriod    int64            `json:",omitempty"`
	CpuRealtimeRuntime   int64            `json:",omitempty"`
	CpusetCpus           string           `json:",omitempty"`
	CpusetMems           string           `json:",omitempty"`
	Devices              []DeviceMapping  `json:",omitempty"`
	DeviceCgroupRules    []string         `json:",omitempty"`
	DeviceRequests       []DeviceRequest  `json:",omitempty"`
	MemoryReservation    int64            `json:",omitempty"`
	MemorySwap           int64            `json:",omitempty"`
	MemorySwappiness     *int64           `json:",omitempty"`
	OomKillDisable       *bool            `json:",omitempty"`
	PidsLimit            *int64           `json:",omitempty"`
	Ulimits              []Ulimit         `json:",omitempty"`
}

// LogConfig names the log driver; an empty Type is the daemon's default.
type LogConfig struct {
	Type   string
	Config map[string]string
}

// PortBinding is where a port is published; an empty HostPort takes any.
type PortBinding struct {
	HostIp   string
	HostPort string
}

// RestartPolicy says when an ended container is started again.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// WeightDevice is a block device's share of the throughput.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice is a block device's limit, per second.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// DeviceMapping is a device of the host in the container.
type DeviceMapping struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// DeviceRequest asks a driver for devices.
type DeviceRequest struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// Ulimit is a resource limit of the process.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// Mount is one --mount.
type Mount struct {
	Type          string         `json:",omitempty"`
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	Consistency   string         `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	ImageOptions  *ImageOptions  `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
}

// BindOptions belong to mounts of type bind.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions belong to mounts of type volume.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *VolumeDriver     `json:",omitempty"`
}

// VolumeDriver names a volume's driver.
type VolumeDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// ImageOptions belong to mounts of type image.
type ImageOptions struct {
	Subpath string `json:",omitempty"`
}

// TmpfsOptions belong to mounts of type tmpfs.
type TmpfsOptions struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

// NetworkingConfig holds the endpoints to make, by network name.
type NetworkingConfig struct {
	EndpointsConfig map[string]*EndpointSettings
}

// EndpointSettings is a container's place in a network.
type EndpointSettings struct {
	IPAMConfig *EndpointIPAMConfig `json:",omitempty"`
	Links      []string            `json:",omitempty"`
	Aliases    []string            `json:",omitempty"`
	DriverOpts map[string]string   `json:",omitempty"`
	GwPriority int                 `json:",omitempty"`
	MacAddress string              `json:",omitempty"`
}

// EndpointIPAMConfig asks for addresses.
type EndpointIPAMConfig struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// CreateResponse answers a create.
type CreateResponse struct {
	Id       string
	Warnings []string
}

// ContainerCreate makes a container. name and platform may be empty.
func (c *Client) ContainerCreate(ctx context.Context, name, platform string, r *CreateRequest) (CreateResponse, error) {
	query := url.Values{}
	set(query, "name", name)
	set(query, "platform", platform)
	return fetch[CreateResponse](ctx, c, "POST", "/containers/create", query, r)
}
