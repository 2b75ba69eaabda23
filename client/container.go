package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"github.com/tarehq/tare/fault"
)

// ContainerLine is what a plain list shows of a container.
type ContainerLine struct {
	Id      string
	Names   []string // each with a leading slash
	Image   string
	ImageID string
	Command string
	Created int64 // Unix seconds
	Ports   []PortSummary
	Status  string
}

// ContainerSummary is one container of a list.
type ContainerSummary struct {
	ContainerLine
	SizeRw          int64 `json:",omitempty"`
	SizeRootFs      int64 `json:",omitempty"`
	Labels          map[string]string
	State           string
	NetworkSettings *NetworksSummary
	Mounts          []MountPoint

	ImageManifestDescriptor *ManifestDescriptor
}

// ManifestDescriptor tells what machines an image's manifest is for.
type ManifestDescriptor struct {
	Platform *Platform `json:"platform,omitempty"`
}

// Platform is a kind of machine.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	OSVersion    string `json:"os.version,omitempty"`
	Variant      string `json:"variant,omitempty"`
}

// String is the form of the option --platform.
func (p Platform) String() string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// NetworksSummary holds the names of a container's networks as keys.
type NetworksSummary struct {
	Networks map[string]*struct{}
}

// PortSummary is one exposed or published port.
type PortSummary struct {
	IP          string `json:",omitempty"`
	PrivatePort uint16
	PublicPort  uint16 `json:",omitempty"`
	Type        string
}

// MountPoint is one mount of a listed container.
type MountPoint struct {
	Type        string `json:",omitempty"`
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
}

// ListOptions choose the containers of a list. Limit 0 is all of them.
type ListOptions struct {
	All, Size bool
	Limit     int
	Filters   Filters
}

// ContainerList lists containers, the newest first.
func (c *Client) ContainerList(ctx context.Context, o ListOptions) ([]ContainerSummary, error) {
	return fetchList[ContainerSummary](ctx, c, "/containers/json", o.query())
}

// ContainerLines calls each for every container of the list, the newest first.
// What it is given is overwritten by the next one. A daemon of Tare tells no more
// than that, others tell all.
func (c *Client) ContainerLines(ctx context.Context, o ListOptions, each func(*ContainerLine)) error {
	query := o.query()
	query.Set("brief", "1")
	return fetchEach(ctx, c, "/containers/json", query, each)
}

func (o ListOptions) query() url.Values {
	query := url.Values{}
	flag(query, "all", o.All)
	flag(query, "size", o.Size)
	if o.Limit > 0 {
		query.Set("limit", itoa(o.Limit))
	}
	filter(query, o.Filters)
	return query
}

// ContainerState is the part of an inspected container that commands act on.
type ContainerState struct {
	Id     string
	Name   string
	Config struct {
		Tty       bool
		OpenStdin bool
	}
	State struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		ExitCode   int
	}
	NetworkSettings struct {
		Ports map[string][]PortBinding
	}
}

// ContainerInspect returns what commands act on.
func (c *Client) ContainerInspect(ctx context.Context, name string) (ContainerState, error) {
	return fetch[ContainerState](ctx, c, "GET", "/containers/"+segment(name)+"/json", nil, nil)
}

// ContainerInspectRaw returns the daemon's JSON as it is.
func (c *Client) ContainerInspectRaw(ctx context.Context, name string, size bool) ([]byte, error) {
	query := url.Values{}
	flag(query, "size", size)
	return fetch[[]byte](ctx, c, "GET", "/containers/"+segment(name)+"/json", query, nil)
}

// ContainerStart starts a container. detachKeys "" is the daemon's default.
func (c *Client) ContainerStart(ctx context.Context, name, detachKeys string) error {
	query := url.Values{}
	set(query, "detachKeys", detachKeys)
	return already(c.call(ctx, "POST", "/containers/"+segment(name)+"/start", query, nil, nil))
}

// already drops the answer that things are as asked.
func already(err error) error {
	if fault.KindOf(err) == fault.NotModified {
		return nil
	}
	return err
}

// StopOptions say how a container is stopped. Timeout is in seconds, nil the
// container's own, negative without end.
type StopOptions struct {
	Signal  string
	Timeout *int
}

func (o StopOptions) query() url.Values {
	query := url.Values{}
	set(query, "signal", o.Signal)
	if o.Timeout != nil {
		query.Set("t", itoa(*o.Timeout))
	}
	return query
}

// ContainerStop stops a container; one that is stopped is no error.
func (c *Client) ContainerStop(ctx context.Context, name string, o StopOptions) error {
	return already(c.call(ctx, "POST", "/containers/"+segment(name)+"/stop", o.query(), nil, nil))
}

// ContainerRestart stops and starts a container.
func (c *Client) ContainerRestart(ctx context.Context, name string, o StopOptions) error {
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/restart", o.query(), nil, nil)
}

// ContainerKill sends a signal, SIGKILL when it is empty.
func (c *Client) ContainerKill(ctx context.Context, name, signal string) error {
	query := url.Values{}
	set(query, "signal", signal)
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/kill", query, nil, nil)
}

// ContainerPause makes a container's processes stand still.
func (c *Client) ContainerPause(ctx context.Context, name string) error {
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/pause", nil, nil, nil)
}

// ContainerUnpause lets them go on.
func (c *Client) ContainerUnpause(ctx context.Context, name string) error {
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/unpause", nil, nil, nil)
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, name, newName string) error {
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/rename", url.Values{"name": {newName}}, nil, nil)
}

// UpdateConfig is what of a container can be changed; what is zero stays.
type UpdateConfig struct {
	Resources
	RestartPolicy RestartPolicy
}

// UpdateRequest is UpdateConfig and options of the container's endpoints, by
// their networks' names, "*" for all.
type UpdateRequest struct {
	UpdateConfig
	NetworkingConfig *NetworkingConfig `json:",omitempty"`
}

// ContainerUpdate changes a container's limits and its restart policy.
func (c *Client) ContainerUpdate(ctx context.Context, name string, u UpdateRequest) (warnings []string, err error) {
	out, err := fetch[struct{ Warnings []string }](ctx, c, "POST", "/containers/"+segment(name)+"/update", nil, u)
	return out.Warnings, err
}

// RemoveOptions say how a container is removed.
type RemoveOptions struct{ Force, Volumes, Link bool }

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, name string, o RemoveOptions) error {
	query := url.Values{}
	flag(query, "force", o.Force)
	flag(query, "v", o.Volumes)
	flag(query, "link", o.Link)
	return c.call(ctx, "DELETE", "/containers/"+segment(name), query, nil, nil)
}

// WaitResponse tells how a container ended.
type WaitResponse struct {
	Error      *WaitError `json:",omitempty"`
	StatusCode int64
}

// WaitError is why waiting failed.
type WaitError struct {
	Message string `json:",omitempty"`
}

// Waiter is a wait that the daemon has registered.
type Waiter struct {
	client *Client
	resp   *response
}

// ContainerWait registers a wait: when it returns, no end of the container can
// be missed. condition is "not-running", "next-exit" or "removed".
func (c *Client) ContainerWait(ctx context.Context, name, condition string) (*Waiter, error) {
	query := url.Values{}
	set(query, "condition", condition)
	resp, err := c.do(ctx, request{method: "POST", path: "/containers/" + segment(name) + "/wait", query: query})
	if err != nil {
		return nil, err
	}
	return &Waiter{c, resp}, nil
}

// Code blocks until the container has ended and returns its exit code.
func (w *Waiter) Code(ctx context.Context) (int, error) {
	var out WaitResponse
	if err := w.client.decode(ctx, w.resp, "wait", &out); err != nil {
		return 0, err
	}
	if out.Error != nil {
		return int(out.StatusCode), fault.New(fault.Internal, "%s", out.Error.Message)
	}
	return int(out.StatusCode), nil
}

// Close gives the wait up.
func (w *Waiter) Close() error { return w.resp.body.Close() }

// LogsOptions choose what of a log is read. Since and Until are Unix seconds
// with a fraction; Tail is a number or "all".
type LogsOptions struct {
	Follow, Timestamps, Details bool
	Since, Until, Tail          string
}

// ContainerLogs opens a container's log: framed unless it has a terminal.
func (c *Client) ContainerLogs(ctx context.Context, name string, o LogsOptions) (io.ReadCloser, error) {
	query := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	flag(query, "follow", o.Follow)
	flag(query, "timestamps", o.Timestamps)
	flag(query, "details", o.Details)
	set(query, "since", o.Since)
	set(query, "until", o.Until)
	set(query, "tail", o.Tail)
	return c.open(ctx, request{method: "GET", path: "/containers/" + segment(name) + "/logs", query: query})
}

// ContainerLogsClear empties a container's log. Docker's daemon cannot.
func (c *Client) ContainerLogsClear(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/containers/"+segment(name)+"/logs", nil, nil, nil)
}

// AttachOptions choose the streams. Logs replays the output so far.
type AttachOptions struct {
	Stdin, Stdout, Stderr, Logs bool
	DetachKeys                  string
}

// ContainerAttach takes a connection to the container's streams.
func (c *Client) ContainerAttach(ctx context.Context, name string, o AttachOptions) (*Stream, error) {
	query := url.Values{"stream": {"1"}}
	flag(query, "stdin", o.Stdin)
	flag(query, "stdout", o.Stdout)
	flag(query, "stderr", o.Stderr)
	flag(query, "logs", o.Logs)
	set(query, "detachKeys", o.DetachKeys)
	return c.hijack(ctx, "/containers/"+segment(name)+"/attach", query, nil)
}

// ContainerResize sets the size of a container's terminal.
func (c *Client) ContainerResize(ctx context.Context, name string, height, width uint) error {
	return c.call(ctx, "POST", "/containers/"+segment(name)+"/resize", size(height, width), nil, nil)
}

func size(height, width uint) url.Values {
	return url.Values{"h": {itoa(int(height))}, "w": {itoa(int(width))}}
}

// decodeStream calls each for every value of a stream of JSON.
func decodeStream[T any](r io.Reader, each func(T) error) error {
	d := json.NewDecoder(r)
	for {
		var v T
		if err := d.Decode(&v); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
