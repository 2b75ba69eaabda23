package client

import (
	"context"
	"net/url"
)

// Stats is a sample of what a container uses. One that does not run has its
// names alone.
type Stats struct {
	ID          string                 `json:"id,omitempty"`
	Name        string                 `json:"name,omitempty"` // with a leading slash
	Read        string                 `json:"read"`           // when it was taken, RFC 3339; the year 1 for none
	CPUStats    CPUStats               `json:"cpu_stats"`
	PreCPUStats CPUStats               `json:"precpu_stats"` // of the sample before
	MemoryStats MemoryStats            `json:"memory_stats"`
	BlkioStats  BlkioStats             `json:"blkio_stats"`
	PidsStats   PidsStats              `json:"pids_stats"`
	Networks    map[string]NetworkStat `json:"networks,omitempty"`
}

// CPUStats is time in nanoseconds, the container's and the machine's.
type CPUStats struct {
	CPUUsage struct {
		TotalUsage  uint64   `json:"total_usage"`
		PercpuUsage []uint64 `json:"percpu_usage,omitempty"`
	} `json:"cpu_usage"`
	SystemUsage uint64 `json:"system_cpu_usage,omitempty"`
	OnlineCPUs  uint32 `json:"online_cpus,omitempty"`
}

// MemoryStats is in bytes; Stats is the kernel's memory.stat.
type MemoryStats struct {
	Usage uint64            `json:"usage,omitempty"`
	Limit uint64            `json:"limit,omitempty"`
	Stats map[string]uint64 `json:"stats,omitempty"`
}

// BlkioStats counts bytes by device and kind of operation.
type BlkioStats struct {
	IoServiceBytesRecursive []BlkioStat `json:"io_service_bytes_recursive"`
}

// BlkioStat is one count; Op begins with r or w, in either case, for the two
// that matter.
type BlkioStat struct {
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// PidsStats counts processes and threads.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
}

// NetworkStat counts the bytes of one interface.
type NetworkStat struct {
	RxBytes uint64 `json:"rx_bytes"`
	TxBytes uint64 `json:"tx_bytes"`
}

// Top is a table of processes.
type Top struct {
	Processes [][]string
	Titles    []string
}

// ContainerTop lists a container's processes by the arguments of the ps on the
// daemon's machine; "" is the daemon's choice.
func (c *Client) ContainerTop(ctx context.Context, name, arguments string) (Top, error) {
	query := url.Values{}
	set(query, "ps_args", arguments)
	return fetch[Top](ctx, c, "GET", "/containers/"+segment(name)+"/top", query, nil)
}

// ContainerStats calls each for a container's samples: one, which takes a second, or with
// stream one a second until the container is removed.
func (c *Client) ContainerStats(ctx context.Context, name string, stream bool, each func(Stats) error) error {
	query := url.Values{"stream": {"0"}}
	if stream {
		query.Set("stream", "1")
	}
	body, err := c.open(ctx, request{method: "GET", path: "/containers/" + segment(name) + "/stats", query: query})
	if err != nil {
		return err
	}
	defer body.Close()
	return decodeStream(body, each)
}
