package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

// request is one call of build as it was asked for.
type request struct {
	place, file, target, network, progress string
	iidfile, metadata, call, shm, parent   string
	tags, args, labels, contexts           []string
	secrets, ssh, outputs, platforms       []string
	cacheFrom, cacheTo, hosts, ulimits     []string
	allow, annotations, attests, noFilter  []string
	provenance, sbom                       string
	memory, swap                           string
	noCache, pull, push, load, quiet       bool
	check                                  bool
	flags                                  *pflag.FlagSet
}

// parse reads the arguments of build.
func parse(args []string) (*request, error) {
	r := &request{}
	f := pflag.NewFlagSet("build", pflag.ContinueOnError)
	r.flags = f
	f.StringArrayVar(&r.hosts, "add-host", nil, "Add a custom host-to-IP mapping (format: `host:ip`)")
	f.StringArrayVar(&r.allow, "allow", nil, "Allow extra privileged entitlement (e.g., network.host, security.insecure)")
	f.StringArrayVar(&r.annotations, "annotation", nil, "Add annotation to the image")
	f.StringArrayVar(&r.attests, "attest", nil, "Attestation parameters (format: `type=sbom,generator=image`)")
	f.StringArrayVar(&r.args, "build-arg", nil, "Set build-time variables")
	f.StringArrayVar(&r.contexts, "build-context", nil, "Additional build contexts (e.g., `name=path`)")
	f.StringArrayVar(&r.cacheFrom, "cache-from", nil, "External cache sources (e.g., `user/app:cache`, `type=local,src=path/to/dir`)")
	f.StringArrayVar(&r.cacheTo, "cache-to", nil, "Cache export destinations (e.g., `user/app:cache`, `type=local,dest=path/to/dir`)")
	f.StringVar(&r.call, "call", "build", "Set method for evaluating build (`check`, `outline`, `targets`)")
	f.BoolVar(&r.check, "check", false, "Shorthand for --call=check")
	f.StringVar(&r.parent, "cgroup-parent", "", "Set the parent cgroup for the \"RUN\" instructions during build")
	f.StringVarP(&r.file, "file", "f", "", "Name of the Dockerfile (default: `PATH/Dockerfile`)")
	f.StringVar(&r.iidfile, "iidfile", "", "Write the image ID to a file")
	f.StringArrayVar(&r.labels, "label", nil, "Set metadata for an image")
	f.BoolVar(&r.load, "load", false, "Shorthand for --output=type=docker")
	f.StringVar(&r.metadata, "metadata-file", "", "Write build result metadata to a file")
	f.StringVar(&r.network, "network", "default", "Set the networking mode for the RUN instructions during build")
	f.BoolVar(&r.noCache, "no-cache", false, "Do not use cache when building the image")
	f.StringArrayVar(&r.noFilter, "no-cache-filter", nil, "Do not cache specified stages")
	f.StringArrayVarP(&r.outputs, "output", "o", nil, "Output destination (format: `type=local,dest=path`)")
	f.StringArrayVar(&r.platforms, "platform", nil, "Set target platform for build")
	f.StringVar(&r.progress, "progress", "auto", "Set type of progress output (auto, none, plain, quiet, rawjson, tty)")
	f.StringVar(&r.provenance, "provenance", "", "Shorthand for --attest=type=provenance")
	f.BoolVar(&r.pull, "pull", false, "Always attempt to pull all referenced images")
	f.BoolVar(&r.push, "push", false, "Shorthand for --output=type=registry")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	f.StringVar(&r.sbom, "sbom", "", "Shorthand for --attest=type=sbom")
	f.StringArrayVar(&r.secrets, "secret", nil, "Secret to expose to the build (format: `id=mysecret[,src=/local/secret]`)")
	f.StringVar(&r.shm, "shm-size", "", "Shared memory size for build containers")
	f.StringArrayVar(&r.ssh, "ssh", nil, "SSH agent socket or keys to expose to the build (format: `default|<id>[=<socket>|<key>[,<key>]]`)")
	f.StringArrayVarP(&r.tags, "tag", "t", nil, "Image identifier (format: `[registry/]repository[:tag]`)")
	f.StringVar(&r.target, "target", "", "Set the target build stage to build")
	f.StringArrayVar(&r.ulimits, "ulimit", nil, "Ulimit options")
	f.StringVarP(&r.memory, "memory", "m", "", "Memory limit of the \"RUN\" instructions")
	f.StringVar(&r.swap, "memory-swap", "", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	f.Uint64P("cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Uint64("cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	f.Uint64("cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	f.String("cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.String("cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.String("builder", "", "Override the configured builder instance (there is one)")
	for _, name := range []string{"rm", "force-rm", "compress"} { // of the builder of old, without an effect
		f.Bool(name, false, "")
		_ = f.MarkHidden(name)
	}
	for _, name := range []string{"provenance", "sbom"} {
		f.Lookup(name).NoOptDefVal = "true"
	}
	f.Usage = func() {
		fmt.Fprintf(os.Stdout, "Usage:  tare build [OPTIONS] PATH | URL | -\n\nStart a build\n\nOptions:\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() != 1 {
		return nil, fmt.Errorf("build wants one argument, the place of the context: say \"tare build .\" for this directory")
	}
	r.place = f.Arg(0)
	if r.progress == "auto" && os.Getenv("BUILDKIT_PROGRESS") != "" {
		r.progress = os.Getenv("BUILDKIT_PROGRESS")
	}
	if r.check {
		r.call = "check"
	}
	return r, nil
}
