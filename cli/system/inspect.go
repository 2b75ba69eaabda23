package system

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Inspect is the command inspect, of objects of any kind.
func Inspect() *command.Command {
	return inspecting("NAME|ID [NAME|ID...]", "", `tare inspect -f "{{.State.Status}}" web`)
}

// InspectContainer is the command container inspect.
func InspectContainer() *command.Command {
	return inspecting("CONTAINER [CONTAINER...]", "container", `tare container inspect -f "{{json .Mounts}}" web`)
}

// InspectImage is the command image inspect.
func InspectImage() *command.Command {
	return inspecting("IMAGE [IMAGE...]", "image", `tare image inspect -f "{{.Config.Cmd}}" alpine`)
}

// InspectNetwork is the command network inspect.
func InspectNetwork() *command.Command {
	return inspecting("NETWORK [NETWORK...]", "network", "tare network inspect bridge")
}

// InspectVolume is the command volume inspect.
func InspectVolume() *command.Command {
	return inspecting("VOLUME [VOLUME...]", "volume", `tare volume inspect -f "{{.Mountpoint}}" data`)
}

type inspect struct {
	format, kind, platform string
	size, verbose          bool
}

// kinds is what can be inspected, in the order in which a name is looked up.
const kinds = `"container", "image", "network", "volume"`

func inspecting(what, kind, example string) *command.Command {
	f := command.NewFlags()
	o := &inspect{kind: kind}
	f.StringVarP(&o.format, "format", "f", "", option.FormatInspect)
	if kind == "" {
		f.StringVar(&o.kind, "type", "", "Only inspect objects of the given type")
	}
	switch kind {
	case "network":
		f.BoolVarP(&o.verbose, "verbose", "v", false, "Verbose output for diagnostics")
	case "volume":
	case "image":
		f.StringVar(&o.platform, "platform", "", "Inspect a specific platform of the multi-platform image.\n"+
			"If the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n"+
			"'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	default:
		f.BoolVarP(&o.size, "size", "s", false, "Display total file sizes if the type is container")
	}
	return &command.Command{Usage: "[OPTIONS] " + what, MinArgs: 1, MaxArgs: -1, Flags: f, Example: example,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if f.Changed("type") && o.kind == "" {
				return fault.New(fault.Invalid, "type is empty: must be one of "+kinds)
			}
			return o.run(ctx, s, args)
		}}
}

func (o *inspect) run(ctx context.Context, s *command.Session, names []string) error {
	fetch, err := o.fetcher(s.Err)
	if err != nil {
		return err
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	return command.Inspect(s, o.format, names, func(name string) ([]byte, error) { return fetch(ctx, cl, name) })
}

// lookup reads one kind of object by its name.
type lookup func(ctx context.Context, cl *client.Client, name string) ([]byte, error)

// fetcher chooses where names are looked up.
func (o *inspect) fetcher(warn io.Writer) (lookup, error) {
	container := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.ContainerInspectRaw(ctx, name, o.size)
	}
	image := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.ImageInspectRaw(ctx, name, o.platform)
	}
	network := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.NetworkInspectRaw(ctx, name, o.verbose)
	}
	volume := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.VolumeInspectRaw(ctx, name)
	}
	switch o.kind {
	case "container":
		return container, nil
	case "image":
		return image, nil
	case "network":
		return network, nil
	case "volume":
		return volume, nil
	case "":
		return o.anyOf(warn, container, image, network, volume), nil
	case "config", "node", "secret", "service", "task":
		return nil, fault.New(fault.NotImplemented, "--type %s needs a swarm, which tared cannot be part of", o.kind)
	case "plugin":
		return nil, fault.New(fault.NotImplemented, "--type plugin means plugins of Docker's daemon, which tared does not run")
	}
	return nil, fault.New(fault.Invalid, "unknown type: %q: must be one of "+kinds, o.kind)
}

// anyOf looks a name up among the kinds in their order. Only a container has a
// size.
func (o *inspect) anyOf(warn io.Writer, kinds ...lookup) lookup {
	return func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		for i, kind := range kinds {
			raw, err := kind(ctx, cl, name)
			if errors.Is(err, fault.NotFound) {
				continue
			}
			if err == nil && i > 0 && o.size {
				fmt.Fprintf(warn, "WARNING: --size ignored for %s\n", [...]string{"container", "image", "network", "volume"}[i])
			}
			return raw, err
		}
		return nil, fault.New(fault.NotFound, "Error: No such object: %s", name)
	}
}
