// Command tare-manifest carries out tare manifest: it is a program of its own
// because it talks to registries itself, and tare stays quick to start without
// what that takes.
//
//	tare-manifest --config DIR annotate|create|inspect|push|rm [OPTIONS] ARG...
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/manifest"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// hostsDir is where the administrator says how registries are reached, in
// containerd's layout.
const hostsDir = "/etc/tare/certs.d"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Stdout, os.Args[1:])
	switch {
	case err != nil && ctx.Err() != nil:
		os.Exit(128 + int(syscall.SIGINT))
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are the flags of all verbs; tare has checked that each has its own.
type options struct {
	config, verb                    string
	insecure, verbose, amend, purge bool
	annotation                      manifest.Annotation
	args                            []string
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("tare-manifest", pflag.ContinueOnError)
	f.StringVar(&o.config, "config", "", "Location of client config files")
	f.BoolVar(&o.insecure, "insecure", false, "Allow communication with an insecure registry")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "Output additional info including layers and platform")
	f.BoolVarP(&o.amend, "amend", "a", false, "Amend an existing manifest list")
	f.BoolVarP(&o.purge, "purge", "p", false, "Remove the local manifest list after push")
	f.StringVar(&o.annotation.OS, "os", "", "Set operating system")
	f.StringVar(&o.annotation.Architecture, "arch", "", "Set architecture")
	f.StringVar(&o.annotation.Variant, "variant", "", "Set architecture variant")
	f.StringVar(&o.annotation.OSVersion, "os-version", "", "Set operating system version")
	f.StringSliceVar(&o.annotation.OSFeatures, "os-features", nil, "Set operating system feature")
	f.Usage = func() {} // tare manifest has the help
	err := f.Parse(args)
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return nil, err
	}
	o.args = f.Args()
	if len(o.args) < 2 || o.config == "" || err != nil {
		return nil, fault.New(fault.Invalid, "this program carries out tare manifest: call that")
	}
	o.verb, o.args = o.args[0], o.args[1:]
	if least := map[string]int{"annotate": 2, "create": 2}[o.verb]; len(o.args) < least {
		return nil, fault.New(fault.Invalid, "%s requires at least %d arguments", o.verb, least)
	}
	return o, nil
}

func run(ctx context.Context, out io.Writer, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	c := remote.Config{HostsDir: hostsDir, UserAgent: "tare", AllowHTTP: "say --insecure to ask HOST by HTTP"}
	if o.insecure {
		c.Insecure = o.domains()
	}
	client, err := remote.New(c)
	if err != nil {
		return err
	}
	defer client.Close()
	file, err := config.Load(o.config)
	if err != nil {
		return err
	}
	lists := manifest.New(o.config, client, func(domain string) remote.Credentials { return credentials(file, domain) })
	switch first := o.args[0]; o.verb {
	case "annotate":
		return lists.Annotate(first, o.args[1], o.annotation)
	case "create":
		return lists.Create(ctx, out, first, o.args[1:], o.amend)
	case "inspect":
		if len(o.args) > 1 {
			return lists.Inspect(ctx, out, first, o.args[1], o.verbose)
		}
		return lists.Inspect(ctx, out, "", first, o.verbose)
	case "push":
		return lists.Push(ctx, out, first, o.purge)
	case "rm":
		return lists.Remove(o.args)
	}
	return fault.New(fault.Invalid, "unknown command: manifest %s", o.verb)
}

// domains are the registries of all the names.
func (o *options) domains() []string {
	var out []string
	for _, name := range o.args {
		if ref, err := reference.Parse(name); err == nil {
			out = append(out, ref.Domain)
		}
	}
	return out
}

func credentials(file *config.File, domain string) remote.Credentials {
	server := config.ServerKey(domain)
	c, ok := config.FromEnvironment(os.Getenv("DOCKER_AUTH_CONFIG"), server)
	if !ok {
		var err error
		if c, err = file.Credentials(server); err != nil {
			fmt.Fprintf(os.Stderr, "WARNING: %v\n", err)
		}
	}
	return remote.Credentials{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
}
