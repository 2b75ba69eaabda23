package container

import (
	"encoding/csv"
	"net"
	"strconv"
	"strings"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// fillPorts adds --publish and --expose.
func (c *createFlags) fillPorts(r *client.CreateRequest) error {
	h := r.HostConfig
	h.PublishAllPorts = c.publishAll
	expose := func(port string) {
		if r.ExposedPorts == nil {
			r.ExposedPorts = map[string]struct{}{}
		}
		r.ExposedPorts[port] = struct{}{}
	}
	for _, spec := range c.publish.Values {
		spec, err := shortPort(spec)
		if err != nil {
			return err
		}
		mapping, err := parsePublish(spec)
		if err != nil {
			return err
		}
		for _, m := range mapping {
			expose(m.port)
			if h.PortBindings == nil {
				h.PortBindings = map[string][]client.PortBinding{}
			}
			h.PortBindings[m.port] = append(h.PortBindings[m.port], m.binding)
		}
	}
	for _, spec := range c.expose.Values {
		if strings.Contains(spec, ":") {
			return fault.New(fault.Invalid, "invalid port format for --expose: %s", spec)
		}
		ports, proto := cutProto(spec)
		start, end, err := parseRange(ports)
		if err != nil {
			return fault.New(fault.Invalid, "invalid range format for --expose: %w", err)
		}
		for port := start; port <= end; port++ {
			expose(strconv.Itoa(port) + "/" + proto)
		}
	}
	return nil
}

// published is one port of the container with its place on the host.
type published struct {
	port    string // port/protocol
	binding client.PortBinding
}

// parsePublish reads [[address:]host port[-end]:]port[-end][/protocol].
func parsePublish(spec string) ([]published, error) {
	parts := strings.Split(spec, ":")
	container := parts[len(parts)-1]
	var ip, host string
	if len(parts) > 1 {
		host = parts[len(parts)-2]
		ip = strings.Join(parts[:len(parts)-2], ":")
	}
	container, proto := cutProto(container)
	if len(ip) > 1 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if ip != "" && net.ParseIP(ip) == nil {
		return nil, fault.New(fault.Invalid, "invalid IP address: %s", ip)
	}
	if container == "" {
		return nil, fault.New(fault.Invalid, "no port specified: %s<empty>", spec)
	}
	start, end, err := parseRange(container)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid containerPort: %s", container)
	}
	hostStart, hostEnd := 0, 0
	if host != "" {
		if hostStart, hostEnd, err = parseRange(host); err != nil {
			return nil, fault.New(fault.Invalid, "invalid hostPort: %s", host)
		}
		if end-start != hostEnd-hostStart && end != start {
			return nil, fault.New(fault.Invalid, "invalid ranges specified for container and host Ports: %s and %s", container, host)
		}
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fault.New(fault.Invalid, "invalid proto: %s", proto)
	}
	var out []published
	for port := start; port <= end; port++ {
		p := published{port: strconv.Itoa(port) + "/" + proto, binding: client.PortBinding{HostIp: ip}}
		if host != "" {
			p.binding.HostPort = strconv.Itoa(hostStart + port - start)
			if start == end && hostEnd > hostStart {
				// One port takes any that is free of a range.
				p.binding.HostPort += "-" + strconv.Itoa(hostEnd)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// shortPort turns target=80,published=8080,protocol=tcp into the short form.
func shortPort(spec string) (string, error) {
	if !strings.Contains(spec, "=") {
		return spec, nil
	}
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return "", err
	}
	var target, publishedPort string
	proto := "tcp"
	for _, field := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || value == "" {
			return "", fault.New(fault.Invalid, "invalid field: %s", field)
		}
		switch key {
		case "target":
			target = value
		case "published":
			publishedPort = value
		case "protocol":
			proto = value
		case "mode":
			if value != "ingress" && value != "host" {
				return "", fault.New(fault.Invalid, "invalid publish mode value (%s): must be either 'ingress' or 'host'", value)
			}
		default:
			return "", fault.New(fault.Invalid, "invalid field key: %s", key)
		}
	}
	if target == "" {
		return "", fault.New(fault.Invalid, "missing mandatory field '%s'", "target")
	}
	return publishedPort + ":" + target + "/" + proto, nil
}

// cutProto splits port/protocol; the protocol is tcp unless said.
func cutProto(s string) (ports, proto string) {
	ports, proto, _ = strings.Cut(s, "/")
	if proto == "" {
		proto = "tcp"
	}
	return ports, strings.ToLower(proto)
}

// parseRange reads a port or start-end.
func parseRange(s string) (start, end int, err error) {
	first, last, isRange := strings.Cut(s, "-")
	if start, err = parsePort(first); err != nil || !isRange {
		return start, start, err
	}
	if end, err = parsePort(last); err != nil {
		return 0, 0, err
	}
	if end < start {
		return 0, 0, fault.New(fault.Invalid, "invalid port range: %s", s)
	}
	return start, end, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fault.New(fault.Invalid, "invalid port: %q", s)
	}
	return int(n), nil
}
