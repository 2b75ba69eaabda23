package main

import (
	"os/exec"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// runtime is an OCI runtime that is executed.
type runtime struct {
	Path    string            `json:"path"`
	Args    []string          `json:"runtimeArgs,omitempty"`
	Type    string            `json:"runtimeType,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// runcShim is what Docker calls runc by the name of its containerd shim.
const runcShim = "io.containerd.runc.v2"

// usual are the runtimes that are offered when they are in PATH, by their own
// names, and runc by its shim's.
var usual = []struct{ name, program string }{{"runc", "runc"}, {runcShim, "runc"}, {"crun", "crun"}}

// runtimes gives the runtimes by name; the built-in one has no path.
func (o *options) runtimes() map[string]supervise.Runtime {
	all := map[string]supervise.Runtime{builtinRuntime: {}}
	for _, u := range usual {
		if path, err := exec.LookPath(u.program); err == nil {
			all[u.name] = supervise.Runtime{Path: path}
		}
	}
	for name, rt := range o.Runtimes {
		all[name] = supervise.Runtime{Path: rt.Path, Args: rt.Args}
	}
	return all
}

// checkRuntimes refuses what cannot be executed. A runtime that is registered
// by its shim is taken if the shim is runc's, which only executes it.
func (o *options) checkRuntimes() error {
	for name, rt := range o.Runtimes {
		switch {
		case name == builtinRuntime:
			return fault.New(fault.Invalid, "runtime name %q is reserved for the runtime that is built in", name)
		case rt.Path != "" && rt.Type != "":
			return fault.New(fault.Invalid, "cannot have both path and runtimeType configured for runtime %s", name)
		case rt.Type != "" && len(rt.Args) > 0:
			return fault.New(fault.Invalid, "cannot have runtimeArgs and runtimeType configured for runtime %s", name)
		case rt.Path != "" && len(rt.Options) > 0:
			return fault.New(fault.Invalid, "runtime %s has a path and options: options are for a runtimeType, give runtimeArgs", name)
		case rt.Type != "":
			path, err := shimPath(name, rt)
			if err != nil {
				return err
			}
			o.Runtimes[name] = runtime{Path: path}
		case rt.Path == "":
			return fault.New(fault.Invalid, "either a runtimeType or a path must be configured for runtime %s", name)
		}
	}
	if _, ok := o.runtimes()[o.DefaultRuntime]; !ok {
		return fault.New(fault.Invalid, "specified default runtime '%s' does not exist", o.DefaultRuntime)
	}
	return nil
}

// shimPath finds the program that a shim would execute.
func shimPath(name string, rt runtime) (string, error) {
	if rt.Type != runcShim {
		return "", fault.New(fault.NotImplemented, "runtimeType %s of runtime %s is not supported: there are no shims here, give the path of an OCI runtime", rt.Type, name)
	}
	for option := range rt.Options {
		if option != "BinaryName" {
			return "", fault.New(fault.NotImplemented, "the option %s of runtime %s is not supported: BinaryName is", option, name)
		}
	}
	program := rt.Options["BinaryName"]
	if program == "" {
		program = "runc"
	}
	if strings.Contains(program, "/") {
		return program, nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fault.New(fault.NotFound, "runtime %s: %s is not in PATH", name, program)
	}
	return path, nil
}
