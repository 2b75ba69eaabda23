package links

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
)

// Env are the variables that told of links before there were names: where
// the other is, and all of its own environment. Docker sets them no longer,
// unless it is told to.
func (l *Table) Env(r *record.Record) ([]string, error) {
	targets, err := l.targets(r)
	return linkEnv(r.Name, targets), err
}

func linkEnv(parent string, targets []linked) (env []string) {
	for _, t := range targets {
		prefix := strings.ReplaceAll(strings.ToUpper(t.alias), "-", "_")
		env = append(env, portEnv(prefix, t.Address(), t.Config.ExposedPorts)...)
		env = append(env, fmt.Sprintf("%s_NAME=/%s/%s", prefix, parent, t.alias))
		for _, kv := range t.Config.Env {
			if key, _, set := strings.Cut(kv, "="); set && key != "HOME" && key != "PATH" {
				env = append(env, prefix+"_ENV_"+kv)
			}
		}
	}
	return env
}

// portEnv tells of the ports, TCP first. Ports in a row are a range too.
func portEnv(prefix string, ip netip.Addr, exposed wirenet.PortSet) (env []string) {
	var ports []wirenet.Port
	for p := range exposed {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b wirenet.Port) int {
		if a.Proto() != b.Proto() {
			if a.Proto() == "tcp" {
				return -1
			}
			if b.Proto() == "tcp" {
				return 1
			}
			return strings.Compare(string(a.Proto()), string(b.Proto()))
		}
		return int(a.Num()) - int(b.Num())
	})
	url := func(p wirenet.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto(), ip, p.Num()) }
	name := func(p wirenet.Port) string {
		return fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Num(), strings.ToUpper(string(p.Proto())))
	}
	if len(ports) > 0 {
		env = append(env, prefix+"_PORT="+url(ports[0]))
	}
	for i := 0; i < len(ports); {
		first, last := ports[i], ports[i]
		for i++; i < len(ports) && ports[i].Proto() == last.Proto() && ports[i].Num() == last.Num()+1; i++ {
			last = ports[i]
		}
		if first != last {
			n := name(first)
			env = append(env, n+"_START="+url(first), fmt.Sprintf("%s_PORT_START=%d", n, first.Num()),
				n+"_END="+url(last), fmt.Sprintf("%s_PORT_END=%d", n, last.Num()))
		}
	}
	for _, p := range ports {
		n := name(p)
		env = append(env, n+"="+url(p), n+"_ADDR="+ip.String(), fmt.Sprintf("%s_PORT=%d", n, p.Num()), n+"_PROTO="+string(p.Proto()))
	}
	return env
}
