package main

import (
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// runtime is an OCI runtime that is executed.
type runtime struct {
	Path string   `json:"path"`
	Args []string `json:"runtimeArgs,omitempty"`
	Type string   `json:"runtimeType,omitempty"`
}

// runtimes gives the runtimes by name; the built-in one has no path.
func (o *options) runtimes() map[string]supervise.Runtime {
	all := map[string]supervise.Runtime{builtinRuntime: {}}
	for name, rt := range o.Runtimes {
		all[name] = supervise.Runtime{Path: rt.Path}
	}
	return all
}

func (o *options) checkRuntimes() error {
	for name, rt := range o.Runtimes {
		switch {
		case name == builtinRuntime:
			return fault.New(fault.Invalid, "runtime name %q is reserved for the runtime that is built in", name)
		case rt.Type != "":
			return fault.New(fault.NotImplemented, "runtimeType of runtime %s is not supported yet: give its path", name)
		case len(rt.Args) > 0:
			return fault.New(fault.NotImplemented, "runtimeArgs of runtime %s are not supported yet", name)
		case rt.Path == "":
			return fault.New(fault.Invalid, "runtime %s has no path", name)
		}
	}
	if _, ok := o.Runtimes[o.DefaultRuntime]; !ok && o.DefaultRuntime != builtinRuntime {
		return fault.New(fault.Invalid, "specified default runtime '%s' does not exist", o.DefaultRuntime)
	}
	return nil
}
