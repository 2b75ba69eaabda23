package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/tarehq/tare/fault"
)

// BuildOptions are what an image is built with.
type BuildOptions struct {
	Names       []string
	Dockerfile  string // in the context, with slashes
	Remote      string // a URL that the daemon fetches the context from; "": the stream
	Args        map[string]*string
	Labels      map[string]string
	Target      string
	Platform    string
	Network     string
	ExtraHosts  []string // name:address
	ShmSize     int64    // bytes; 0: the daemon's
	Ulimits     []Ulimit
	Parent      string // of the control groups of its steps
	CacheFrom   []string
	NoCache     bool
	Pull        bool
	Quiet       bool
	Limits      BuildLimits
	Isolation   string
	SecurityOpt []string
	Squash      bool
	Credentials []Credentials // by their ServerAddress
}

// BuildLimits are what a step may use; zero is no limit. tared has none of them.
type BuildLimits struct {
	Memory, MemorySwap             int64 // bytes
	CPUShares, CPUPeriod, CPUQuota int64
	CPUSet, MemoryNodes            string
}

// BuildFailed is the end of a build by a command that failed.
type BuildFailed struct {
	Code    int // of the command
	Message string
}

func (e *BuildFailed) Error() string { return e.Message }

// ImageBuild builds an image of a context, a tar. The image's ID comes in a line
// with Aux.
func (c *Client) ImageBuild(ctx context.Context, in io.Reader, o BuildOptions, each func(Progress) error) error {
	query, err := o.query()
	if err != nil {
		return err
	}
	auths := map[string]Credentials{}
	for _, a := range o.Credentials {
		auths[a.ServerAddress] = a
	}
	text, err := json.Marshal(auths)
	if err != nil {
		return err
	}
	body, err := c.open(ctx, request{method: "POST", path: "/build", query: query, stream: in, header: [][2]string{
		{"Content-Type", "application/x-tar"}, {"X-Registry-Config", base64.URLEncoding.EncodeToString(text)}}})
	if err != nil {
		return err
	}
	defer body.Close()
	return decodeStream(body, func(p Progress) error {
		switch {
		case p.Error == nil:
			return each(p)
		case p.Error.Code != 0:
			return &BuildFailed{p.Error.Code, p.Error.Message}
		}
		return fault.New(fault.Internal, "%s", p.Error.Message)
	})
}

func (o *BuildOptions) query() (url.Values, error) {
	query := url.Values{"t": o.Names, "extrahosts": o.ExtraHosts, "rm": {"1"}}
	for name, value := range map[string]string{"dockerfile": o.Dockerfile, "remote": o.Remote, "target": o.Target, "platform": o.Platform,
		"networkmode": o.Network, "cgroupparent": o.Parent, "cpusetcpus": o.Limits.CPUSet, "cpusetmems": o.Limits.MemoryNodes, "isolation": o.Isolation} {
		set(query, name, value)
	}
	flag(query, "nocache", o.NoCache)
	flag(query, "pull", o.Pull)
	flag(query, "q", o.Quiet)
	flag(query, "squash", o.Squash)
	for name, n := range map[string]int64{"shmsize": o.ShmSize, "memory": o.Limits.Memory, "memswap": o.Limits.MemorySwap, "cpushares": o.Limits.CPUShares,
		"cpuperiod": o.Limits.CPUPeriod, "cpuquota": o.Limits.CPUQuota} {
		if n != 0 {
			query.Set(name, fmt.Sprint(n))
		}
	}
	for name, value := range map[string]struct {
		given bool
		value any
	}{"buildargs": {len(o.Args) > 0, o.Args}, "labels": {len(o.Labels) > 0, o.Labels}, "ulimits": {len(o.Ulimits) > 0, o.Ulimits}, "cachefrom": {len(o.CacheFrom) > 0, o.CacheFrom},
		"securityopt": {len(o.SecurityOpt) > 0, o.SecurityOpt}} {
		if !value.given {
			continue
		}
		text, err := json.Marshal(value.value)
		if err != nil {
			return nil, err
		}
		query.Set(name, string(text))
	}
	return query, nil
}
