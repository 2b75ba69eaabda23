package contexts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// endpointKeys is what --docker may set, for the help.
const endpointKeys = `

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation`

// Create is the command context create.
func Create() *command.Command {
	f := command.NewFlags()
	o := &create{}
	f.StringVar(&o.description, "description", "", "Description of the context")
	f.StringToStringVar(&o.docker, "docker", nil, "Set the docker endpoint")
	f.StringVar(&o.from, "from", "", "Create context from a named context")
	return &command.Command{
		Usage: "[OPTIONS] CONTEXT", MinArgs: 1, MaxArgs: 1, Flags: f,
		Long:    "Create a context" + endpointKeys,
		Example: `tare context create far --description "the big one" --docker "host=tcp://far:2376,ca=ca.pem,cert=cert.pem,key=key.pem"`,
		Run:     func(_ context.Context, s *command.Session, args []string) error { return o.run(s, args[0]) },
	}
}

type create struct {
	description, from string
	docker            map[string]string
}

func (o *create) run(s *command.Session, name string) error {
	store := config.NewContexts(s.ConfigDir())
	if err := vacant(store, name); err != nil {
		return err
	}
	if o.from != "" && o.docker != nil {
		return fault.New(fault.Invalid, "cannot use --docker flag when --from is set")
	}
	c, material := &config.Context{Metadata: map[string]json.RawMessage{}}, config.Material(nil)
	var err error
	if o.docker == nil {
		if o.from == "" {
			o.from = s.ContextName()
		}
		c, material, err = copied(s, o.from)
	} else {
		material, err = setDocker(s, c, o.docker)
	}
	if err != nil {
		return err
	}
	c.Name = name
	if o.description != "" {
		c.Describe(o.description)
	}
	if err := store.Put(c, material); err != nil {
		return err
	}
	return told(s, name, "Successfully created context %q")
}

// vacant refuses a name that a new context cannot have.
func vacant(store config.Contexts, name string) error {
	if err := config.CheckName(name); err != nil {
		return err
	}
	_, err := store.Get(name)
	switch {
	case err == nil:
		return fault.New(fault.Conflict, "context %q already exists", name)
	case errors.Is(err, fault.NotFound):
		return nil
	}
	return err
}

// told says what was done to a context, whose name is the output.
func told(s *command.Session, name, text string) error {
	if _, err := fmt.Fprintln(s.Out, name); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.Err, text+"\n", name)
	return err
}

// copied is a context as it is, the default one too, with its TLS files.
func copied(s *command.Session, name string) (*config.Context, config.Material, error) {
	if name != config.DefaultContext {
		store := config.NewContexts(s.ConfigDir())
		c, err := store.Get(name)
		if err != nil {
			return nil, nil, err
		}
		material, err := store.TLS(name)
		return c, material, err
	}
	e, err := s.DefaultEndpoint()
	if err != nil {
		return nil, nil, err
	}
	c := &config.Context{Name: name, Metadata: map[string]json.RawMessage{}}
	c.Describe(defaultDescription)
	c.SetDocker(config.ContextEndpoint{Host: e.Host, SkipTLSVerify: e.TLS != nil && !e.TLS.Verify})
	if e.TLS == nil {
		return c, nil, nil
	}
	material, err := readTLS(*e.TLS)
	return c, material, err
}

// setDocker sets a context's daemon by the keys of --docker, and returns the TLS
// files that belong to it.
func setDocker(s *command.Session, c *config.Context, keys map[string]string) (config.Material, error) {
	fail := func(err error) (config.Material, error) {
		return nil, fault.New(fault.KindOf(err), "unable to create docker endpoint config: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		switch key {
		case "from", "host", "ca", "cert", "key", "skip-tls-verify":
		default:
			return fail(fault.New(fault.Invalid, "unrecognized config key: %s", key))
		}
	}
	if from, ok := keys["from"]; ok {
		if len(keys) > 1 {
			return fail(fault.New(fault.Invalid, "from takes the whole endpoint of a context: no other key goes with it"))
		}
		other, material, err := copied(s, from)
		if err != nil {
			return fail(err)
		}
		e, err := other.Docker()
		if err != nil {
			return fail(err)
		}
		c.SetDocker(e)
		return config.Material{"docker": material["docker"]}, nil
	}
	e := config.ContextEndpoint{Host: keys["host"]}
	if text, ok := keys["skip-tls-verify"]; ok {
		var err error
		if e.SkipTLSVerify, err = strconv.ParseBool(text); err != nil {
			return fail(fault.New(fault.Invalid, "invalid skip-tls-verify: %w", err))
		}
	}
	files := client.TLSFile{CA: keys["ca"], Cert: keys["cert"], Key: keys["key"]}
	_, err := client.ParseHost(e.Host, files != client.TLSFile{})
	if err == nil && !strings.Contains(e.Host, "://") { // as -H has it; no other program can use such a context
		err = fault.New(fault.Invalid, "unable to parse docker host `%s`: say tcp://%[1]s, or unix:// and a path", e.Host)
	}
	if err != nil && e.Host != "" {
		return fail(fault.New(fault.Invalid, "invalid docker endpoint options: %w", err))
	}
	material, err := readTLS(files)
	if err != nil {
		return fail(fault.New(fault.Invalid, "invalid docker endpoint options: %w", err))
	}
	c.SetDocker(e)
	return material, nil
}

// readTLS reads and checks TLS files.
func readTLS(files client.TLSFile) (config.Material, error) {
	kept := map[string][]byte{}
	for name, path := range map[string]string{"ca.pem": files.CA, "cert.pem": files.Cert, "key.pem": files.Key} {
		if path == "" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		kept[name] = text
	}
	if ca, ok := kept["ca.pem"]; ok && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return nil, fault.New(fault.Invalid, "failed to retrieve context tls info: ca.pem seems invalid")
	}
	if kept["cert.pem"] != nil || kept["key.pem"] != nil {
		if _, err := tls.X509KeyPair(kept["cert.pem"], kept["key.pem"]); err != nil {
			return nil, fault.New(fault.Invalid, "failed to retrieve context tls info: cert.pem and key.pem: %w", err)
		}
	}
	if len(kept) == 0 {
		return config.Material{}, nil
	}
	return config.Material{"docker": kept}, nil
}
