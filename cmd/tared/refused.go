package main

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
)

// refusal is one of dockerd's options that is known here and not supported.
type refusal struct {
	flag  string // "" if dockerd has it in the file only
	key   string // "" if it is the flag's name
	value string // the flag's kind: "bool" or "" for one with an argument
	only  string // as JSON: the one value that says what is done anyway
}

// refusals lists what is left of dockerd's options. A row goes when the daemon
// learns to do it.
var refusals = []refusal{
	{flag: "allow-direct-routing", value: "bool", only: "false"},
	{flag: "authorization-plugin", key: "authorization-plugins"},
	{flag: "bip6"},
	{flag: "bridge-accept-fwmark"},
	{flag: "containerd"},
	{flag: "containerd-namespace"},
	{flag: "containerd-plugins-namespace", key: "containerd-plugin-namespace"},
	{flag: "cpu-rt-period"},
	{flag: "cpu-rt-runtime"},
	{flag: "cri-containerd", value: "bool", only: "false"},
	{flag: "default-cgroupns-mode"},
	{flag: "default-gateway"},
	{flag: "default-gateway-v6"},
	{flag: "default-ipc-mode", only: `"private"`},
	{flag: "default-network-opt", key: "default-network-opts"},
	{flag: "default-shm-size"},
	{flag: "default-ulimit", key: "default-ulimits"},
	{flag: "dns"},
	{flag: "dns-opt", key: "dns-opts"},
	{flag: "dns-search"},
	{flag: "exec-opt", key: "exec-opts", only: `["native.cgroupdriver=cgroupfs"]`},
	{flag: "experimental", value: "bool", only: "false"},
	{flag: "feature", key: "features", only: `{"containerd-snapshotter":true}`},
	{flag: "firewall-backend", only: `"nftables"`},
	{flag: "fixed-cidr"},
	{flag: "fixed-cidr-v6"},
	{flag: "host-gateway-ip", key: "host-gateway-ips"},
	{flag: "http-proxy"},
	{flag: "https-proxy"},
	{flag: "icc", value: "bool", only: "true"},
	{flag: "init", value: "bool", only: "false"},
	{flag: "ip"},
	{flag: "ip-forward", value: "bool", only: "true"},
	{flag: "ip-masq", value: "bool", only: "true"},
	{flag: "ip6tables", value: "bool"},
	{flag: "iptables", value: "bool"},
	{flag: "ipv6", value: "bool", only: "false"},
	{flag: "live-restore", value: "bool", only: "true"},
	{flag: "log-format", only: `"text"`},
	{flag: "metrics-addr"},
	{flag: "network-control-plane-mtu"},
	{flag: "network-diagnostic-port"},
	{flag: "no-new-privileges", value: "bool", only: "false"},
	{flag: "no-proxy"},
	{flag: "node-generic-resource", key: "node-generic-resources"},
	{flag: "oom-score-adjust"},
	{flag: "raw-logs", value: "bool"},
	{flag: "rootless", value: "bool", only: "false"},
	{flag: "seccomp-profile", only: `"builtin"`},
	{flag: "selinux-enabled", value: "bool", only: "false"},
	{flag: "shutdown-timeout"},
	{flag: "storage-opt", key: "storage-opts"},
	{flag: "swarm-default-advertise-addr"},
	{flag: "userland-proxy", value: "bool", only: "false"},
	{flag: "userland-proxy-path"},
	{flag: "userns-remap"},
	{key: "builder"},
	{key: "default-init"},
	{key: "deprecated-key-path"},
	{key: "allow-nondistributable-artifacts"},
	{key: "nri-opts"},
	{key: "proxies"},
	{key: "resolv-conf"},
	{key: "swarm-raft-heartbeat-tick"},
	{key: "swarm-raft-election-tick"},
}

// refusedValue holds what a refused flag was set to, each time.
type refusedValue struct {
	given []string
	kind  string
}

func (v *refusedValue) Set(s string) error { v.given = append(v.given, s); return nil }
func (v *refusedValue) String() string     { return strings.Join(v.given, ",") }
func (v *refusedValue) Type() string       { return v.kind }

func addRefusedFlags(flags *pflag.FlagSet) {
	for _, r := range refusals {
		if r.flag == "" {
			continue
		}
		f := flags.VarPF(&refusedValue{kind: r.value}, r.flag, "", "")
		f.Hidden = true
		if r.value == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// refuseFlags returns an error for the first flag that asks for what is not
// there.
func refuseFlags(flags *pflag.FlagSet) error {
	for _, r := range refusals {
		if r.flag == "" || !flags.Changed(r.flag) {
			continue
		}
		for _, given := range flags.Lookup(r.flag).Value.(*refusedValue).given {
			if r.only == "" || !r.same(given) {
				return fault.New(fault.NotImplemented, "--%s=%s is not supported yet", r.flag, given)
			}
		}
	}
	return nil
}

// same tells whether a flag's text is the one value.
func (r refusal) same(given string) bool {
	var one string
	if json.Unmarshal([]byte(r.only), &one) == nil {
		return given == one
	}
	var list []string
	if json.Unmarshal([]byte(r.only), &list) == nil {
		return len(list) == 1 && given == list[0]
	}
	if r.key == "features" {
		return given == "containerd-snapshotter" || given == "containerd-snapshotter=true"
	}
	return given == r.only
}

// checkKey tells whether a key of the configuration file is a refused one, and
// returns an error unless its value says what is done anyway.
func checkKey(key string, value json.RawMessage) (refused bool, err error) {
	for _, r := range refusals {
		if key != r.key && (r.key != "" || key != r.flag) {
			continue
		}
		if r.only != "" {
			var got, want any
			if json.Unmarshal(value, &got) == nil && json.Unmarshal([]byte(r.only), &want) == nil && reflect.DeepEqual(got, want) {
				return true, nil
			}
		}
		return true, fault.New(fault.NotImplemented, "the directive %s: %s is not supported yet", key, value)
	}
	return false, nil
}
