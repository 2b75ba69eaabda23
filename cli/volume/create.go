package volume

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Create is the command volume create.
func Create() *command.Command {
	f := command.NewFlags()
	o := &create{flags: f}
	f.StringVarP(&o.driver, "driver", "d", "local", "Specify volume driver name")
	o.opts = option.NewList(f, "opt", "o", "Set driver specific options", nil)
	o.labels = option.NewList(f, "label", "", "Set metadata for a volume", option.CheckLabel)
	f.StringVar(&o.name, "name", "", "Specify volume name")
	f.MarkHidden("name")
	clusterFlags(f)
	return &command.Command{Usage: "[OPTIONS] [VOLUME]", MaxArgs: 1, Flags: f, Example: "tare volume create --label project=shop data", Run: o.run}
}

// cluster are the flags of cluster volumes.
var cluster = []string{"availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred", "topology-required", "type"}

func clusterFlags(f *pflag.FlagSet) {
	f.String("availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
	f.String("group", "", "Cluster Volume group (cluster volumes)")
	f.String("limit-bytes", "", "Minimum size of the Cluster Volume in bytes")
	f.String("required-bytes", "", "Maximum size of the Cluster Volume in bytes")
	f.String("scope", "single", `Cluster Volume access scope ("single", "multi")`)
	f.StringSlice("secret", nil, "Cluster Volume secrets")
	f.String("sharing", "none", `Cluster Volume access sharing ("none", "readonly", "onewriter", "all")`)
	f.StringSlice("topology-preferred", nil, "A topology that the Cluster Volume would be preferred in")
	f.StringSlice("topology-required", nil, "A topology that the Cluster Volume must be accessible from")
	f.String("type", "block", `Cluster Volume access type ("mount", "block")`)
}

type create struct {
	flags        *pflag.FlagSet
	name, driver string
	opts, labels *option.List
}

func (o *create) run(ctx context.Context, s *command.Session, args []string) error {
	for _, name := range cluster {
		if o.flags.Changed(name) {
			return fault.New(fault.NotImplemented, "--%s needs a swarm, which tared cannot be part of", name)
		}
	}
	if len(args) == 1 {
		if o.name != "" {
			return fault.New(fault.Invalid, "conflicting options: cannot specify a volume-name through both --name and as a positional arg")
		}
		o.name = args[0]
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	v, err := cl.VolumeCreate(ctx, &client.VolumeCreateRequest{Name: o.name, Driver: o.driver, DriverOpts: o.opts.Map(), Labels: o.labels.Map()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, v.Name)
	return err
}
