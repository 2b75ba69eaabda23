package main

import (
	"encoding/json"
	"fmt"
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
	only  string // as JSON: the one value that says what is done anyway; "*" for all
	why   string // and what to do, where that will not change
}

const (
	noContainerd = "tared keeps images and containers itself and uses no containerd: leave it out"
	noSwarm      = "there is no swarm mode: leave it out"
)

// refusals lists what is left of dockerd's options. A row goes when the daemon
// learns to do it.
var refusals = []refusal{
	{flag: "allow-nondistributable-artifacts", only: "*"}, // what is here is pushed whatever its kind
	{flag: "api-cors-header", why: "use a reverse proxy if you need CORS headers"},
	{flag: "containerd", why: noContainerd},
	{flag: "containerd-namespace", why: noContainerd},
	{flag: "containerd-plugins-namespace", key: "containerd-plugin-namespace", why: noContainerd},
	{flag: "cri-containerd", value: "bool", only: "false", why: noContainerd},
	{flag: "firewall-backend", only: `"nftables"`},
	{flag: "network-control-plane-mtu", why: noSwarm},
	{flag: "network-diagnostic-port"},
	{flag: "node-generic-resource", key: "node-generic-resources", why: noSwarm},
	{flag: "nri-opts"},
	{flag: "restart", value: "bool", only: "true", why: "use a restart policy on run"},
	{flag: "rootless", value: "bool", only: "false"},
	{flag: "swarm-default-advertise-addr", why: noSwarm},
	{flag: "userland-proxy-path", why: "no proxy program is executed: leave it out"},
	{key: "default-init", why: "use init-path"},
	{key: "deprecated-key-path", why: "there is no such key: leave it out"},
	{key: "resolv-conf"},
	{key: "swarm-raft-heartbeat-tick", why: noSwarm},
	{key: "swarm-raft-election-tick", why: noSwarm},
}

// refuse is the error for one of them.
func (r refusal) refuse(what string) error {
	if r.why != "" {
		return fault.New(fault.NotImplemented, "%s is not supported: %s", what, r.why)
	}
	return fault.New(fault.NotImplemented, "%s is not supported yet", what)
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
				return r.refuse("--" + r.flag + "=" + given)
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
	return r.only == "*" || given == r.only
}

// checkKey tells whether a key of the configuration file is a refused one, and
// returns an error unless its value says what is done anyway.
func checkKey(key string, value json.RawMessage) (refused bool, err error) {
	for _, r := range refusals {
		if key != r.key && (r.key != "" || key != r.flag) {
			continue
		}
		if r.only == "*" {
			return true, nil
		}
		if r.only != "" {
			var got, want any
			if json.Unmarshal(value, &got) == nil && json.Unmarshal([]byte(r.only), &want) == nil && reflect.DeepEqual(got, want) {
				return true, nil
			}
		}
		return true, r.refuse(fmt.Sprintf("the directive %s: %s", key, value))
	}
	return false, nil
}
