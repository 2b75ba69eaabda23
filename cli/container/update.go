package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Update is the command update. Its limits are those of create.
func Update() *command.Command {
	f := command.NewFlags()
	c := &createFlags{set: f}
	c.addChangeable(f)
	f.StringVar(&c.restart, "restart", "", "Restart policy to apply when a container exits")
	return &command.Command{
		Usage: "[OPTIONS] CONTAINER [CONTAINER...]", MinArgs: 1, MaxArgs: -1, Flags: f,
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			if f.NFlag() == 0 {
				return fault.New(fault.Invalid, "you must provide one or more flags when using this command")
			}
			u, err := c.update()
			if err != nil {
				return err
			}
			cl, err := s.Client()
			if err != nil {
				return err
			}
			var warnings []string
			err = command.Each(args, func(name string) error {
				told, err := cl.ContainerUpdate(ctx, name, u)
				warnings = append(warnings, told...)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(s.Out, name)
				return err
			})
			if len(warnings) > 0 {
				fmt.Fprintln(s.Out, strings.Join(warnings, "\n"))
			}
			return err
		},
	}
}

// update is what the flags ask for.
func (c *createFlags) update() (client.UpdateRequest, error) {
	r := client.CreateRequest{HostConfig: &client.HostConfig{}}
	if err := c.fillLimits(&r); err != nil {
		return client.UpdateRequest{}, err
	}
	policy, err := parseRestart(c.restart)
	u := client.UpdateRequest{UpdateConfig: client.UpdateConfig{Resources: r.HostConfig.Resources, RestartPolicy: policy}}
	for _, name := range c.rates.Networks() {
		if u.NetworkingConfig == nil {
			u.NetworkingConfig = &client.NetworkingConfig{EndpointsConfig: map[string]*client.EndpointSettings{}}
		}
		options := c.rates.Options(name)
		if name == "" {
			name = "*"
		}
		u.NetworkingConfig.EndpointsConfig[name] = &client.EndpointSettings{DriverOpts: options}
	}
	return u, err
}
