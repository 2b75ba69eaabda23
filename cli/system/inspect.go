package system

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Inspect is the command inspect, of objects of any kind.
func Inspect() *command.Command {
	return inspecting("NAME|ID [NAME|ID...]", "")
}

// InspectContainer is the command container inspect.
func InspectContainer() *command.Command { return inspecting("CONTAINER [CONTAINER...]", "container") }

// InspectImage is the command image inspect.
func InspectImage() *command.Command { return inspecting("IMAGE [IMAGE...]", "image") }

type inspect struct {
	format, kind, platform string
	size                   bool
}

func inspecting(what, kind string) *command.Command {
	f := command.NewFlags()
	o := &inspect{kind: kind}
	f.StringVarP(&o.format, "format", "f", "", option.FormatInspect)
	if kind == "" {
		f.StringVar(&o.kind, "type", "", "Only inspect objects of the given type")
	}
	if kind == "image" {
		f.StringVar(&o.platform, "platform", "", "Inspect a specific platform of the multi-platform image.\n"+
			"If the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n"+
			"'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	} else {
		f.BoolVarP(&o.size, "size", "s", false, "Display total file sizes if the type is container")
	}
	return &command.Command{Usage: "[OPTIONS] " + what, MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if f.Changed("type") && o.kind == "" {
				return fault.New(fault.Invalid, "type is empty: must be one of \"container\", \"image\"")
			}
			return o.run(ctx, s, args)
		}}
}

func (o *inspect) run(ctx context.Context, s *command.Session, names []string) error {
	fetch, err := o.fetcher(s.Err)
	if err != nil {
		return err
	}
	inspector, err := format.NewInspector(o.format)
	if err != nil {
		return &command.Exit{Code: 64, Err: err}
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	var found [][]byte
	failed := command.Each(names, func(name string) error {
		raw, err := fetch(ctx, cl, name)
		if err == nil {
			found = append(found, raw)
		}
		return err
	})
	text, err := inspector.Render(found)
	if _, werr := io.WriteString(s.Out, text); err == nil {
		err = werr
	}
	return errors.Join(err, failed)
}

// fetcher chooses where names are looked up.
func (o *inspect) fetcher(warn io.Writer) (func(ctx context.Context, cl *client.Client, name string) ([]byte, error), error) {
	container := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.ContainerInspectRaw(ctx, name, o.size)
	}
	image := func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
		return cl.ImageInspectRaw(ctx, name, o.platform)
	}
	switch o.kind {
	case "container":
		return container, nil
	case "image":
		return image, nil
	case "":
		return func(ctx context.Context, cl *client.Client, name string) ([]byte, error) {
			raw, err := container(ctx, cl, name)
			if errors.Is(err, fault.NotFound) {
				if raw, err = image(ctx, cl, name); err == nil && o.size {
					fmt.Fprintln(warn, "WARNING: --size ignored for image")
				}
			}
			if errors.Is(err, fault.NotFound) {
				err = fault.New(fault.NotFound, "Error: No such object: %s", name)
			}
			return raw, err
		}, nil
	case "network", "volume", "config", "node", "plugin", "secret", "service", "task":
		return nil, fault.New(fault.NotImplemented, "--type %s is not supported yet", o.kind)
	}
	return nil, fault.New(fault.Invalid, "unknown type: %q: must be one of \"container\", \"image\"", o.kind)
}
