package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/pattern"
)

// options are the flags of all commands; each adds those that it has.
type options struct {
	file, root string
	addrs      []string
	cert, key  string
	auth       string
	anonymous  bool
	logLevel   string
	grace      time.Duration
	dryRun     bool

	execRoot string

	args  []string // that are no flags
	flags *pflag.FlagSet
}

// set tells whether the user gave the flag.
func (o *options) set(flag string) bool { return o.flags.Changed(flag) }

const defaultConfig = "/etc/tare/registry.toml"

func newOptions() *options { return &options{} }

func storageFlags(f *pflag.FlagSet, o *options) {
	f.StringVar(&o.file, "config", defaultConfig, "Configuration file; the default one need not be there")
	f.StringVar(&o.root, "root", defaultRoot(), "Directory that everything is kept in")
}

func serveFlags(f *pflag.FlagSet, o *options) {
	storageFlags(f, o)
	f.StringArrayVar(&o.addrs, "addr", []string{config.DefaultListen}, "HOST:PORT to listen on; may be given several times")
	f.StringVar(&o.cert, "tls-cert", "", "Certificate of the server in PEM; read again when it changes")
	f.StringVar(&o.key, "tls-key", "", "Key of the certificate")
	f.StringVar(&o.auth, "auth", "", "How users log in: htpasswd:FILE (as htpasswd -B makes it)")
	f.BoolVar(&o.anonymous, "anonymous-pull", false, "With --auth: whoever is not logged in may pull")
	f.StringVar(&o.logLevel, "log-level", "info", `What is logged ("debug"|"info"|"warn"|"error")`)
}

func startFlags(f *pflag.FlagSet, o *options) {
	serveFlags(f, o)
	backgroundFlags(f, o)
}

func backgroundFlags(f *pflag.FlagSet, o *options) {
	f.StringVar(&o.execRoot, "exec-root", "", "Directory of the state of a registry in the background (default one of the user's)")
}

func collectFlags(f *pflag.FlagSet, o *options) {
	storageFlags(f, o)
	f.DurationVar(&o.grace, "grace", 0, "How long something has to be without use (default 24h, or collect.grace of the configuration)")
}

func retainFlags(f *pflag.FlagSet, o *options) {
	storageFlags(f, o)
	f.BoolVar(&o.dryRun, "dry-run", false, "Print what would go, and why, and remove nothing")
}

// defaultRoot is a directory that the user can write to.
func defaultRoot() string {
	if os.Geteuid() != 0 {
		if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
			return filepath.Join(data, "tare-registry")
		}
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, ".local/share/tare-registry")
		}
	}
	return config.DefaultRoot
}

// config reads the file and has the flags that were given override it.
func (o *options) config() (*config.Config, error) {
	c, err := config.Load(o.file)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && !o.set("config"):
		c = config.Default()
	default:
		return nil, err
	}
	if o.set("root") || c.Storage.S3 == nil && c.Storage.Root == config.DefaultRoot {
		c.Storage = config.Storage{Root: o.root}
	}
	if o.set("grace") {
		c.Collect.Grace = config.Duration(o.grace)
	}
	if o.set("addr") {
		c.HTTP.Listen = o.addrs
	}
	if o.set("log-level") {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, o.logLevel) {
			return nil, fault.New(fault.Invalid, "%q is no level of logging: want debug, info, warn or error", o.logLevel)
		}
		c.Log.Level = o.logLevel
	}
	return c, errors.Join(o.mergeTLS(c), o.mergeAuth(c))
}

func (o *options) mergeTLS(c *config.Config) error {
	if (o.cert == "") != (o.key == "") {
		return fault.New(fault.Invalid, "give --tls-cert and --tls-key together")
	}
	if o.cert != "" {
		c.HTTP.TLS = &config.TLS{Cert: o.cert, Key: o.key}
	}
	return nil
}

func (o *options) mergeAuth(c *config.Config) error {
	if o.auth != "" {
		kind, file, _ := strings.Cut(o.auth, ":")
		if kind != "htpasswd" || file == "" {
			return fault.New(fault.Invalid, "%q is no way to log in: want --auth htpasswd:FILE; token servers are for the configuration file", o.auth)
		}
		if c.Auth == nil {
			c.Auth = &config.Auth{}
		}
		c.Auth.Htpasswd = file
	}
	if !o.anonymous {
		return nil
	}
	if c.Auth == nil || len(c.Auth.Rules) > 0 {
		return fault.New(fault.Invalid, "--anonymous-pull goes with --auth, and not with rules in the configuration: say there who may pull")
	}
	everything, known := pattern.List{pattern.MustParse("**")}, []string{"authenticated"}
	c.Auth.Rules = []config.Rule{{Match: everything, Pull: []string{"*"}, Push: known, Delete: known}}
	return nil
}

func checkConfig(_ context.Context, out, _ io.Writer, o *options) error {
	if _, err := config.Load(o.args[0]); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s is right\n", o.args[0])
	return err
}
