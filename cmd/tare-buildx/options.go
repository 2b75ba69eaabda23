package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/tarehq/tare/cli/command"
)

// attributes are what the front end reads of the request.
func (r *request) attributes(s *command.Session, host string, o *client.SolveOpt) error {
	a := o.FrontendAttrs
	for _, v := range s.Config().ProxyFor(host) {
		a["build-arg:"+v.Name] = v.Value
	}
	for _, kv := range r.args {
		name, value, given := strings.Cut(kv, "=")
		if !given {
			if value, given = os.LookupEnv(name); !given {
				continue
			}
		}
		a["build-arg:"+name] = value
	}
	for _, kv := range r.labels {
		name, value, _ := strings.Cut(kv, "=")
		a["label:"+name] = value
	}
	for key, value := range map[string]string{"target": r.target, "cgroup-parent": r.parent, "platform": strings.Join(r.platforms, ",")} {
		if value != "" {
			a[key] = value
		}
	}
	if r.noCache {
		a["no-cache"] = ""
	} else if len(r.noFilter) > 0 {
		a["no-cache"] = strings.Join(r.noFilter, ",")
	}
	if r.pull {
		a["image-resolve-mode"] = "pull"
	}
	return r.limits(a, o)
}

// limits are those of steps.
func (r *request) limits(a map[string]string, o *client.SolveOpt) error {
	switch r.network {
	case "", "default":
	case "host":
		a["force-network-mode"] = "host"
		o.AllowedEntitlements = append(o.AllowedEntitlements, entitlements.EntitlementNetworkHost.String())
	case "none":
		a["force-network-mode"] = "none"
	default:
		return fmt.Errorf("network mode %q not supported by buildkit: say default, host or none", r.network)
	}
	for key, text := range map[string]string{"shm-size": r.shm, "memory": r.memory, "memswap": r.swap} {
		if text == "" {
			continue
		}
		if key == "memswap" && text == "-1" {
			a[key] = text
			continue
		}
		n, err := units.RAMInBytes(text)
		if err != nil {
			return err
		}
		a[key] = strconv.FormatInt(n, 10)
	}
	for _, name := range []string{"cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"} {
		if f := r.flags.Lookup(name); f.Changed {
			a[strings.ReplaceAll(name, "-", "")] = f.Value.String()
		}
	}
	var ulimits, hosts []string
	for _, text := range r.ulimits {
		u, err := units.ParseUlimit(text)
		if err != nil {
			return err
		}
		ulimits = append(ulimits, u.String())
	}
	for _, text := range r.hosts {
		host, ip, ok := strings.Cut(text, "=")
		if !ok {
			host, ip, ok = strings.Cut(text, ":")
		}
		ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		if !ok || host == "" || ip != "host-gateway" && net.ParseIP(ip) == nil {
			return fmt.Errorf("invalid host %q: say NAME=ADDRESS", text)
		}
		hosts = append(hosts, host+"="+ip)
	}
	for key, list := range map[string][]string{"ulimit": ulimits, "add-hosts": hosts} {
		if len(list) > 0 {
			a[key] = strings.Join(list, ",")
		}
	}
	for _, name := range r.allow {
		if _, _, err := entitlements.Parse(name); err != nil {
			return err
		}
	}
	o.AllowedEntitlements = append(o.AllowedEntitlements, r.allow...)
	return nil
}

// attestations are attributes of the front end, too.
func (r *request) attestations(a map[string]string) error {
	list := r.attests
	for kind, given := range map[string]string{"provenance": r.provenance, "sbom": r.sbom} {
		switch enabled, err := strconv.ParseBool(given); {
		case given == "":
		case err == nil && enabled:
			list = append(list, "type="+kind)
		case err == nil:
			list = append(list, "type="+kind+",disabled=true")
		default:
			list = append(list, "type="+kind+","+given)
		}
	}
	for _, text := range list {
		fields, err := csvvalue.Fields(text, nil)
		if err != nil {
			return err
		}
		kind, rest := "", []string{}
		disabled := false
		for _, field := range fields {
			switch key, value, _ := strings.Cut(field, "="); key {
			case "type":
				kind = value
			case "disabled":
				disabled, _ = strconv.ParseBool(value)
			default:
				rest = append(rest, field)
			}
		}
		if kind == "" {
			return fmt.Errorf("attestation type not specified in %q", text)
		}
		if delete(a, "attest:"+kind); !disabled {
			a["attest:"+kind] = strings.Join(rest, ",")
		}
	}
	return nil
}

// exports are what becomes of the result.
func (r *request) exports() ([]client.ExportEntry, error) {
	texts := r.outputs
	if r.push {
		texts = append(texts, "type=registry")
	}
	if r.load || len(texts) == 0 {
		texts = append(texts, "type=moby")
	}
	var list []client.ExportEntry
	for _, text := range texts {
		if text == "type=cacheonly" { // nothing becomes of it
			continue
		}
		e, err := r.export(text)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func (r *request) export(text string) (client.ExportEntry, error) {
	switch {
	case text == "-":
		text = "type=tar,dest=-"
	case !strings.Contains(text, "=") && !strings.Contains(text, ","):
		text = "type=local,dest=" + text
	}
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return client.ExportEntry{}, err
	}
	for i, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		if key == "dest" && value != "-" {
			if value, err = filepath.Abs(value); err != nil {
				return client.ExportEntry{}, err
			}
			fields[i] = "dest=" + value
		}
	}
	here := false
	for i, field := range fields {
		switch field {
		case "type=image", "type=moby":
			fields[i], here = "type=moby", true
		case "type=registry":
			fields[i], here = "type=moby", true
			fields = append(fields, "push=true")
		case "type=docker":
			if !strings.Contains(text, "dest=") { // into the daemon
				fields[i], here = "type=moby", true
			}
		}
	}
	parsed, err := build.ParseOutput([]string{joinFields(fields)})
	if err != nil {
		return client.ExportEntry{}, err
	}
	e := parsed[0]
	if name := strings.Join(r.tags, ","); name != "" && e.Attrs["name"] == "" && (here || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker) {
		e.Attrs["name"] = name
	}
	for _, text := range r.annotations {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return e, fmt.Errorf("invalid annotation %q: say KEY=VALUE", text)
		}
		kind := "annotation"
		if t, rest, ok := strings.Cut(key, ":"); ok {
			key = rest
			if kind = "annotation-" + t; t == "manifest" {
				kind = "annotation"
			}
		}
		e.Attrs[kind+"."+key] = value
	}
	return e, nil
}

// joinFields is the line of values that has the fields.
func joinFields(fields []string) string {
	quoted := make([]string, len(fields))
	for i, f := range fields {
		if quoted[i] = f; strings.ContainsAny(f, "\",\n") {
			quoted[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
	}
	return strings.Join(quoted, ",")
}
