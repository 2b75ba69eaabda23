package classic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/caching"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// request is what is asked for.
type request struct {
	front   map[string]string // options of the front end
	tags    []string
	args    []string // names of build arguments, sorted
	file    string   // the Dockerfile's name in the context
	remote  string   // a context that is not the body
	quiet   bool
	traced  bool // the client is told as BuildKit's are
	host    bool // RUN steps have the host's network
	limits  build.Limits
	epoch   time.Time
	id      string // by which the client may cancel
	session string
	caches  []string // images whose cache may be used
	outputs []*controlapi.Exporter
}

func readRequest(q url.Values, gateway string) (*request, error) {
	o := &request{front: map[string]string{}, quiet: reply.Truth(q, "q"), traced: q.Get("version") == "2", remote: q.Get("remote"), id: q.Get("buildid"), session: q.Get("session")}
	o.file = strings.TrimPrefix(path.Clean(orElse(q.Get("dockerfile"), "Dockerfile")), "/")
	o.front["filename"] = o.file
	if v := q.Get("version"); v != "" && v != "1" && v != "2" {
		return nil, fault.New(fault.Invalid, "invalid version %q", v)
	}
	if reply.Truth(q, "squash") {
		return nil, fault.New(fault.Invalid, "squash is only supported with experimental mode")
	}
	if err := o.limit(q); err != nil {
		return nil, err
	}
	if err := o.maps(q); err != nil {
		return nil, err
	}
	var err error
	if o.epoch, err = output.EpochOf(o.front); err != nil {
		return nil, err
	}
	if err := o.network(q.Get("networkmode")); err != nil {
		return nil, err
	}
	for param, option := range map[string]string{"target": "target", "platform": "platform", "cgroupparent": "cgroup-parent"} {
		if v := q.Get(param); v != "" {
			o.front[option] = v
		}
	}
	if reply.Truth(q, "nocache") {
		o.front["no-cache"] = ""
	}
	if reply.Truth(q, "pull") {
		o.front["image-resolve-mode"] = "pull"
	}
	if size := q.Get("shmsize"); size != "" && size != "0" {
		o.front["shm-size"] = size
	}
	if o.front["add-hosts"], err = extraHosts(q["extrahosts"], gateway); err != nil {
		return nil, err
	}
	if o.front["ulimit"], err = ulimits(q.Get("ulimits")); err != nil {
		return nil, err
	}
	if text := q.Get("cachefrom"); text != "" {
		if err := json.Unmarshal([]byte(text), &o.caches); err != nil {
			return nil, fault.New(fault.Invalid, "error reading cache-from: %w", err)
		}
	}
	return o, o.results(q)
}

// cacheOptions says in BuildKit's way what is asked of caches: the image carries
// one if a build argument says so.
func (o *request) cacheOptions() *controlapi.CacheOptions {
	c := &controlapi.CacheOptions{}
	for _, e := range caching.Images(o.caches) {
		c.Imports = append(c.Imports, &controlapi.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	if on, err := strconv.ParseBool(o.front["build-arg:BUILDKIT_INLINE_CACHE"]); err == nil && on {
		c.Exports = append(c.Exports, &controlapi.CacheOptionsEntry{Type: "inline"})
	}
	return c
}

// inline are the caches that the image is to carry: one by default, since for clients
// of old any image of theirs can be --cache-from.
func (o *request) inline() []caching.Export {
	c := o.cacheOptions()
	if _, said := o.front["build-arg:BUILDKIT_INLINE_CACHE"]; !said {
		c.Exports = []*controlapi.CacheOptionsEntry{{Type: "inline"}}
	}
	list, _ := caching.Exports(c) // there is nothing in it to refuse
	return list
}

// maps reads the build arguments and labels.
func (o *request) maps(q url.Values) error {
	for name, prefix := range map[string]string{"buildargs": "build-arg:", "labels": "label:"} {
		values := map[string]*string{}
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), &values); err != nil {
				return fault.New(fault.Invalid, "error reading %s: %w", strings.Replace(name, "buildargs", "build args", 1), err)
			}
		}
		for k, v := range values {
			if v != nil {
				o.front[prefix+k] = *v
			}
		}
		if name == "buildargs" {
			o.args = slices.Sorted(maps.Keys(values))
		}
	}
	return nil
}

// network reads the network of RUN steps.
func (o *request) network(mode string) error {
	switch mode {
	case "", "default", "bridge":
	case "host":
		o.host = true
		o.front["force-network-mode"] = mode
	case "none":
		o.front["force-network-mode"] = mode
	default:
		if o.traced {
			return fault.New(fault.Invalid, "network mode %q not supported by buildkit", mode)
		}
		o.limits.Network = mode
	}
	return nil
}

// results reads the names and outputs.
func (o *request) results(q url.Values) error {
	for _, t := range q["t"] {
		if t == "" {
			continue
		}
		name, err := reference.Parse(t)
		if err != nil {
			return err
		}
		o.tags = append(o.tags, name.String())
	}
	if text := q.Get("outputs"); text != "" {
		var list []struct {
			Type  string
			Attrs map[string]string
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return fault.New(fault.Invalid, "error reading outputs: %w", err)
		}
		for _, x := range list {
			o.outputs = append(o.outputs, &controlapi.Exporter{Type: x.Type, Attrs: x.Attrs})
		}
	}
	return nil
}

// limit reads the limits of steps. What is no number is none, as with Docker.
func (o *request) limit(q url.Values) error {
	if v := q.Get("isolation"); v != "" && !strings.EqualFold(v, "default") {
		return fault.New(fault.Invalid, "unsupported isolation: %q", v)
	}
	if _, given := q["securityopt"]; given {
		return fault.New(fault.Invalid, "security options are not supported on linux")
	}
	l := &o.limits
	for param, n := range map[string]*int64{"memory": &l.Memory, "memswap": &l.MemorySwap, "cpushares": &l.CPUShares, "cpuperiod": &l.CPUPeriod, "cpuquota": &l.CPUQuota} {
		*n, _ = strconv.ParseInt(q.Get(param), 10, 64)
	}
	l.CpusetCpus, l.CpusetMems = q.Get("cpusetcpus"), q.Get("cpusetmems")
	if o.traced { // of which the front end reads them, by the same names
		for _, param := range []string{"memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems"} {
			if v := q.Get(param); v != "" && v != "0" {
				o.front[param] = v
			}
		}
	}
	return nil
}

// extraHosts turns name:address into what the front end reads.
func extraHosts(list []string, gateway string) (string, error) {
	var hosts []string
	for _, h := range list {
		name, address, found := strings.Cut(h, ":")
		if !found {
			return "", fault.New(fault.Invalid, "bad format for add-host: %q", h)
		}
		if address == "host-gateway" {
			if address = gateway; gateway == "" {
				return "", fault.New(fault.Invalid, "unable to derive the IP value for host-gateway: say --host-gateway-ip to the daemon")
			}
		}
		hosts = append(hosts, name+"="+strings.Trim(address, "[]"))
	}
	return strings.Join(hosts, ","), nil
}

// ulimits turns the JSON of the query into what the front end reads.
func ulimits(text string) (string, error) {
	var list []struct {
		Name       string
		Soft, Hard int64
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return "", fault.New(fault.Invalid, "error reading ulimit settings: %w", err)
		}
	}
	var words []string
	for _, u := range list {
		words = append(words, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	return strings.Join(words, ","), nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// registryAuth reads the credentials of a request, by registry.
func registryAuth(header string) (map[string]build.Credentials, error) {
	auths := map[string]build.Credentials{}
	if header == "" {
		return auths, nil
	}
	var list map[string]struct{ Username, Password, IdentityToken, RegistryToken string }
	if err := json.NewDecoder(base64.NewDecoder(base64.URLEncoding, strings.NewReader(header))).Decode(&list); err != nil {
		return nil, fault.New(fault.Invalid, "the header X-Registry-Config cannot be read: %w", err)
	}
	for host, a := range list {
		auths[host] = build.Credentials(a)
	}
	return auths, nil
}
