// Package build has the command that builds images: it packs the context and
// has the daemon build.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// flags are those of one call of build.
type flags struct {
	set     *pflag.FlagSet
	file    string
	iidfile string
	args    *option.List
	labels  *option.List
	shm     *option.Bytes
	memory  *option.Bytes
	swap    *option.Bytes
	zip     bool
	ulimits option.Ulimits
	client.BuildOptions
}

// Build is the command build.
func Build() *command.Command {
	f := command.NewFlags()
	b := &flags{set: f}
	b.args = option.NewList(f, "build-arg", "", "Set build-time variables", nil)
	b.labels = option.NewList(f, "label", "", "Set metadata for an image", nil)
	b.shm = option.NewBytes(f, "shm-size", "", "Size of /dev/shm")
	f.Var(&b.ulimits, "ulimit", "Ulimit options")
	f.StringArrayVarP(&b.Names, "tag", "t", nil, `Name and optionally a tag in the "name:tag" format`)
	f.StringArrayVar(&b.ExtraHosts, "add-host", nil, "Add a custom host-to-IP mapping (host:ip)")
	f.StringSliceVar(&b.CacheFrom, "cache-from", nil, "Images to consider as cache sources")
	f.StringVarP(&b.file, "file", "f", "", `Name of the Dockerfile (default "PATH/Dockerfile")`)
	f.StringVar(&b.iidfile, "iidfile", "", "Write the image ID to the file")
	f.StringVar(&b.Parent, "cgroup-parent", "", "Set the parent cgroup for the \"RUN\" instructions during build")
	f.StringVar(&b.Network, "network", "default", "Set the networking mode for the RUN instructions during build")
	f.StringVar(&b.Platform, "platform", "", "Set platform if server is multi-platform capable")
	f.StringVar(&b.Target, "target", "", "Set the target build stage to build")
	b.memory = option.NewBytes(f, "memory", "m", "Memory limit")
	b.swap = option.NewSwap(f, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	f.Int64VarP(&b.Limits.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&b.Limits.CPUPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&b.Limits.CPUQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	f.StringVar(&b.Limits.CPUSet, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&b.Limits.MemoryNodes, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.StringVar(&b.Isolation, "isolation", "", "Container isolation technology")
	f.StringSliceVar(&b.SecurityOpt, "security-opt", nil, "Security options")
	f.BoolVar(&b.zip, "compress", false, "Compress the build context using gzip")
	f.BoolVar(&b.Squash, "squash", false, "Squash newly built layers into a single new layer")
	f.BoolVar(&b.NoCache, "no-cache", false, "Do not use cache when building the image")
	f.BoolVar(&b.Pull, "pull", false, "Always attempt to pull a newer version of the image")
	f.BoolVarP(&b.Quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	f.Bool("rm", true, "Remove intermediate containers after a successful build (there are none)")
	f.Bool("force-rm", false, "Always remove intermediate containers (there are none)")
	return &command.Command{
		Usage: "[OPTIONS] PATH | URL | -", MinArgs: 1, MaxArgs: 1, Flags: f, Example: "tare build -t web:1 .",
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			return command.Interruptible(ctx, func(ctx context.Context) error { return b.run(ctx, s, args[0]) })
		},
	}
}

func (b *flags) run(ctx context.Context, s *command.Session, place string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if err := b.values(s, cl); err != nil {
		return err
	}
	if b.iidfile != "" { // one that an earlier build wrote would be taken for this one's
		if err := os.Remove(b.iidfile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	in, err := b.context(ctx, s.In, place)
	if err != nil {
		return err
	}
	if c, ok := in.(io.Closer); ok {
		defer c.Close()
	}
	id := ""
	err = cl.ImageBuild(ctx, in, b.BuildOptions, func(p client.Progress) error {
		var aux struct{ ID string }
		if len(p.Aux) > 0 && json.Unmarshal(p.Aux, &aux) == nil && aux.ID != "" {
			id = aux.ID
		}
		_, err := io.WriteString(s.Out, p.Stream)
		return err
	})
	var failed *client.BuildFailed
	if errors.As(err, &failed) {
		return &command.Exit{Code: failed.Code, Err: err}
	}
	if err != nil || b.iidfile == "" {
		return err
	}
	if id == "" {
		return fault.New(fault.Internal, "cannot write %s because server did not provide an image ID", b.iidfile)
	}
	return os.WriteFile(b.iidfile, []byte(id), 0o666)
}

// values puts arguments, labels and credentials into the request.
func (b *flags) values(s *command.Session, cl *client.Client) error {
	b.Args, b.Labels = map[string]*string{}, map[string]string{}
	for _, v := range s.Config().ProxyFor(cl.Host()) {
		b.Args[v.Name] = &v.Value
	}
	for _, kv := range b.args.Values {
		name, value, given := strings.Cut(kv, "=")
		if name == "" {
			return fault.New(fault.Invalid, "invalid build argument %q: say NAME=VALUE", kv)
		}
		if !given {
			if value = s.Getenv(name); value == "" {
				continue
			}
		}
		b.Args[name] = &value
	}
	for _, kv := range b.labels.Values {
		name, value, _ := strings.Cut(kv, "=")
		b.Labels[name] = value
	}
	b.Ulimits = b.ulimits
	b.ShmSize, b.Limits.Memory, b.Limits.MemorySwap = b.shm.N, b.memory.N, b.swap.N
	for _, server := range s.Config().Servers() {
		c, err := s.Config().Credentials(server)
		if err != nil {
			fmt.Fprintf(s.Err, "WARNING: %v\n", err)
			continue
		}
		c.ServerAddress = server
		b.Credentials = append(b.Credentials, c)
	}
	return nil
}
