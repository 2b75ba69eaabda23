package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/snapshot"
)

// options is how the daemon was told to run, by flags and by the
// configuration file. The tags are dockerd's keys in that file.
type options struct {
	Hosts          []string           `json:"hosts"`
	DataRoot       string             `json:"data-root"`
	ExecRoot       string             `json:"exec-root"`
	Pidfile        string             `json:"pidfile"`
	Group          string             `json:"group"`
	PluginDir      string             `json:"plugin-dir"`
	AuthzPlugins   []string           `json:"authorization-plugins"`
	Bridge         string             `json:"bridge"`
	BIP            string             `json:"bip"`
	MTU            int                `json:"mtu"`
	ForwardAll     bool               `json:"ip-forward-no-drop"`
	Pools          []addressPool      `json:"default-address-pools"`
	LogLevel       string             `json:"log-level"`
	LogFormat      string             `json:"log-format"`
	RawLogs        bool               `json:"raw-logs"` // the daemon's own log is never coloured
	Debug          bool               `json:"debug"`
	Labels         []string           `json:"labels"`
	DefaultRuntime string             `json:"default-runtime"`
	Runtimes       map[string]runtime `json:"runtimes"`
	CDISpecDirs    []string           `json:"cdi-spec-dirs"`
	TLS            *bool              `json:"tls"`
	TLSVerify      *bool              `json:"tlsverify"`
	TLSCACert      string             `json:"tlscacert"`
	TLSCert        string             `json:"tlscert"`
	TLSKey         string             `json:"tlskey"`
	InsecureTCP    bool               `json:"insecure-tcp"`
	StorageDriver  string             `json:"storage-driver"`
	StorageOpts    []string           `json:"storage-opts"`
	LogDriver      string             `json:"log-driver"`
	LogOpts        map[string]string  `json:"log-opts"`

	LiveRestore     bool        `json:"live-restore"`
	ShutdownTimeout int         `json:"shutdown-timeout"` // seconds; negative for no limit
	OOMScoreAdjust  int         `json:"oom-score-adjust"`
	MetricsAddr     string      `json:"metrics-addr"`
	Experimental    bool        `json:"experimental"`
	Features        switches    `json:"features"`
	Builder         keep.Config `json:"builder"`
	HTTPProxy       string      `json:"http-proxy"`
	HTTPSProxy      string      `json:"https-proxy"`
	NoProxy         string      `json:"no-proxy"`

	containerOptions
	networkOptions
	firewallOptions

	Mirrors      []string `json:"registry-mirrors"`
	Insecure     []string `json:"insecure-registries"`
	RegistryDir  string   `json:"registry-hosts-dir"`
	Downloads    int      `json:"max-concurrent-downloads"`
	Uploads      int      `json:"max-concurrent-uploads"`
	PullAttempts int      `json:"max-download-attempts"`

	configFile        string
	validate, version bool
	bip               netip.Prefix
}

// addressPool is a range that subnets of Size bits are cut from.
type addressPool struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

const (
	builtinRuntime = "tarerun"
	defaultBridge  = "tare0"
	noBridge       = "none"
	defaultGroup   = "tare"
	defaultConfig  = "/etc/tare/daemon.json"

	defaultRegistryDir = "/etc/tare/certs.d"
)

// fileKeys gives the key in the configuration file of each flag whose name
// differs from it.
var fileKeys = map[string]string{
	"host": "hosts", "label": "labels", "add-runtime": "runtimes", "default-address-pool": "default-address-pools",
	"log-opt": "log-opts", "authorization-plugin": "authorization-plugins", "cdi-spec-dir": "cdi-spec-dirs", "registry-mirror": "registry-mirrors", "insecure-registry": "insecure-registries",
	"default-ulimit": "default-ulimits", "dns-opt": "dns-opts", "host-gateway-ip": "host-gateway-ips", "exec-opt": "exec-opts", "storage-opt": "storage-opts", "feature": "features", "default-network-opt": "default-network-opts",
}

// readOptions parses the arguments and the configuration file.
func readOptions(args []string) (*options, error) {
	o := &options{Runtimes: map[string]runtime{}, Features: switches{}}
	flags := o.flags()
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fault.New(fault.Invalid, "unexpected argument %q: tared takes flags only", flags.Arg(0))
	}
	if o.version {
		return o, nil
	}
	if err := refuseFlags(flags); err != nil {
		return nil, err
	}
	if err := o.readFile(flags); err != nil {
		return nil, err
	}
	return o, o.settle()
}

func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("tared", pflag.ContinueOnError)
	f.Usage = func() {
		fmt.Print("Usage:  tared [OPTIONS]\n\nThe daemon: it serves Docker's API on a socket\n\nOptions:\n" + f.FlagUsages())
	}
	f.StringArrayVarP(&o.Hosts, "host", "H", nil, "Daemon socket(s) to listen on: unix://PATH, tcp://HOST:PORT or fd:// (default unix://EXEC-ROOT/tare.sock)")
	f.StringVar(&o.DataRoot, "data-root", "/var/lib/tare", "Root directory of persistent state")
	f.StringVar(&o.ExecRoot, "exec-root", "/run/tare", "Root directory of state that does not outlive a boot")
	f.StringVarP(&o.Pidfile, "pidfile", "p", "", "Path of the PID file (default EXEC-ROOT/tared.pid)")
	f.StringVar(&o.configFile, "config-file", defaultConfig, "Configuration file")
	f.StringVarP(&o.Group, "group", "G", defaultGroup, "Group that owns the unix sockets; without one a docker.sock is of the group docker")
	f.StringVar(&o.PluginDir, "plugin-dir", "", "Directory of plugins' sockets and .spec and .json files (default Docker's: /run/docker/plugins, /etc/docker/plugins and /usr/lib/docker/plugins)")
	f.StringArrayVar(&o.AuthzPlugins, "authorization-plugin", nil, "Plugins that must agree to every request, in this order")
	f.StringVarP(&o.Bridge, "bridge", "b", defaultBridge, "Bridge that containers are attached to, made if it does not exist; \"none\" for no default network")
	f.StringVar(&o.BIP, "bip", "", "Address of the bridge in CIDR notation")
	f.IntVar(&o.MTU, "mtu", 1500, "MTU of the containers' network in bytes")
	f.BoolVar(&o.ForwardAll, "ip-forward-no-drop", false, "Let the host forward between all its networks when forwarding is turned on for containers")
	f.Var((*poolValue)(&o.Pools), "default-address-pool", "Range that networks take their subnets from")
	f.StringVarP(&o.LogLevel, "log-level", "l", "info", `Logging level ("debug"|"info"|"warn"|"error"|"fatal")`)
	f.StringVar(&o.LogFormat, "log-format", "text", `Logging format ("text"|"json")`)
	f.BoolVar(&o.RawLogs, "raw-logs", false, "Full timestamps without colours, as the log always has them")
	f.BoolVarP(&o.Debug, "debug", "D", false, "Log everything")
	f.StringArrayVar(&o.Labels, "label", nil, "Set a key=value label of the daemon")
	f.StringVar(&o.DefaultRuntime, "default-runtime", builtinRuntime, "OCI runtime of containers that ask for none")
	f.Var(runtimeValue(o.Runtimes), "add-runtime", "Register an OCI runtime")
	f.StringArrayVar(&o.CDISpecDirs, "cdi-spec-dir", []string{"/etc/cdi", "/var/run/cdi"}, "Directory of files that describe devices (CDI); an empty one alone switches them off")
	f.VarPF(switchValue{&o.TLS}, "tls", "", "Use TLS on TCP sockets; implied by --tlsverify").NoOptDefVal = "true"
	f.VarPF(switchValue{&o.TLSVerify}, "tlsverify", "", "Use TLS and ask clients for a certificate").NoOptDefVal = "true"
	f.StringVar(&o.TLSCACert, "tlscacert", "", "Trust clients whose certificate is signed by this CA")
	f.StringVar(&o.TLSCert, "tlscert", "", "Path of the TLS certificate")
	f.StringVar(&o.TLSKey, "tlskey", "", "Path of the TLS key")
	f.BoolVar(&o.InsecureTCP, "insecure-tcp", false, "Listen on TCP without knowing the clients: whoever can connect has root on this machine")
	f.StringArrayVar(&o.Mirrors, "registry-mirror", nil, "Preferred mirror of Docker Hub")
	f.StringArrayVar(&o.Insecure, "insecure-registry", nil, "Registry, or CIDR of registries, that may speak HTTP or have any certificate")
	f.StringVar(&o.RegistryDir, "registry-hosts-dir", defaultRegistryDir, "Directory of hosts.toml files and certificates, by registry")
	f.IntVar(&o.Downloads, "max-concurrent-downloads", 3, "Layers fetched at a time from one registry; 0 for no limit")
	f.IntVar(&o.Uploads, "max-concurrent-uploads", 5, "Layers that one push sends at a time; 0 for no limit")
	f.IntVar(&o.PullAttempts, "max-download-attempts", 5, "Attempts in a row to go on with a layer")
	f.StringArrayVar(&o.StorageOpts, "storage-opt", nil, "Option of the storage driver: overlay2.size=10G, how much a container may write that does not say")
	f.StringVarP(&o.StorageDriver, "storage-driver", "s", "", "How layers and containers' files are kept: overlay, btrfs or vfs (default overlay, or vfs where the file system cannot carry it)")
	f.StringVar(&o.LogDriver, "log-driver", driver.JSONFile, "Log driver of containers that name none")
	f.Var((*mapValue)(&o.LogOpts), "log-opt", "Option of that log driver (key=value)")
	f.BoolVar(&o.LiveRestore, "live-restore", true, "Leave containers running when the daemon stops")
	f.IntVar(&o.ShutdownTimeout, "shutdown-timeout", 15, "Seconds that containers have to stop with the daemon, without --live-restore; longer for those with a longer stop timeout")
	f.IntVar(&o.OOMScoreAdjust, "oom-score-adjust", 0, "oom_score_adj of the daemon")
	f.StringVar(&o.MetricsAddr, "metrics-addr", "", "Address and port at which Prometheus metrics are served")
	f.BoolVar(&o.Experimental, "experimental", false, "Tell clients that experimental features are wanted")
	f.Var(o.Features, "feature", "Turn a feature on or off: NAME[=BOOL]")
	f.StringVar(&o.HTTPProxy, "http-proxy", "", "URL of the proxy for HTTP to registries")
	f.StringVar(&o.HTTPSProxy, "https-proxy", "", "URL of the proxy for HTTPS to registries")
	f.StringVar(&o.NoProxy, "no-proxy", "", "Hosts and addresses, separated by commas, that need no proxy")
	o.containerOptions.flags(f)
	o.networkOptions.flags(f)
	o.firewallOptions.flags(f)
	f.BoolVar(&o.validate, "validate", false, "Check the configuration and exit")
	f.BoolVarP(&o.version, "version", "v", false, "Print the version and exit")
	addRefusedFlags(f)
	return f
}

// settle fills in what follows from other options and refuses what cannot be.
func (o *options) settle() error {
	var err error
	for _, path := range []*string{&o.DataRoot, &o.ExecRoot, &o.Pidfile, &o.InitPath, &o.RegistryDir, &o.TLSCACert, &o.TLSCert, &o.TLSKey} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.DataRoot == o.ExecRoot {
		return fault.New(fault.Invalid, "--data-root and --exec-root are both %s: they must be different directories", o.DataRoot)
	}
	if o.Pidfile == "" {
		o.Pidfile = filepath.Join(o.ExecRoot, "tared.pid")
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"unix://" + filepath.Join(o.ExecRoot, "tare.sock")}
	}
	for i, h := range o.Hosts {
		if o.Hosts[i], err = parseHost(h, o); err != nil {
			return err
		}
	}
	if o.Debug {
		o.LogLevel = "debug"
	}
	o.LogLevel = strings.ToLower(o.LogLevel)
	if _, err := parseLevel(o.LogLevel); err != nil {
		return err
	}
	if err := o.readStorageOpts(); err != nil {
		return err
	}
	if o.StorageDriver != "" {
		if o.StorageDriver, err = snapshot.ParseDriver(o.StorageDriver); err != nil {
			return err
		}
	}
	for _, step := range []func() error{o.containerOptions.check, o.firewallOptions.check, o.checkNetwork, o.checkRuntimes, o.checkTLS, o.checkLabels, o.checkRegistries, o.checkDaemon, o.checkLog} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) checkNetwork() error {
	var err error
	switch {
	case o.Bridge == noBridge && o.BIP != "":
		return fault.New(fault.Invalid, "--bridge=none and --bip contradict each other: leave one out")
	case o.Bridge == "":
		o.Bridge = defaultBridge
	case len(o.Bridge) > 15 || strings.ContainsAny(o.Bridge, "/ \t\n"):
		return fault.New(fault.Invalid, "invalid bridge name %q: an interface's name has at most 15 bytes, no slash and no space", o.Bridge)
	}
	if o.BIP != "" {
		if o.bip, err = netip.ParsePrefix(o.BIP); err != nil || !o.bip.Addr().Is4() {
			return fault.New(fault.Invalid, "invalid --bip %q: want an IPv4 address with the length of its subnet, such as 172.20.0.1/16", o.BIP)
		}
		if o.bip.Masked().Addr() == o.bip.Addr() {
			return fault.New(fault.Invalid, "invalid --bip %q: this is the subnet's own address, the bridge needs one in it, such as %s", o.BIP, netip.PrefixFrom(o.bip.Addr().Next(), o.bip.Bits()))
		}
	}
	if o.MTU < 68 || o.MTU > 65535 {
		return fault.New(fault.Invalid, "invalid MTU %d: want 68 to 65535 bytes", o.MTU)
	}
	for _, p := range o.Pools {
		if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
			return fault.New(fault.Invalid, "invalid default address pool %s with size %d: want a range, and a size from its own length on", p.Base, p.Size)
		}
	}
	return o.networkOptions.check(o.bip)
}

func (o *options) checkLabels() error {
	seen := map[string]string{}
	for _, label := range o.Labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return fault.New(fault.Invalid, "bad attribute format: %s", label)
		}
		if old, ok := seen[key]; ok && old != value {
			return fault.New(fault.Invalid, "conflict labels for %s=%s and %s=%s", key, value, key, old)
		}
		seen[key] = value
	}
	return nil
}

func (o *options) checkLog() error {
	if err := driver.Check(o.LogDriver, o.LogOpts); err != nil {
		return fmt.Errorf("failed to set log opts: %w", err)
	}
	return nil
}

func isOn(b *bool) bool  { return b != nil && *b }
func isOff(b *bool) bool { return b != nil && !*b }

// usesTLS tells whether TCP sockets speak TLS.
func (o *options) usesTLS() bool { return o.verifies() || isOn(o.TLS) }

// verifies tells whether clients need a certificate.
func (o *options) verifies() bool { return isOn(o.TLSVerify) }

// openTCP tells whether somebody has said that TCP clients need not be known:
// in our words, or in those by which dockerd is told.
func (o *options) openTCP() bool { return o.InsecureTCP || isOff(o.TLSVerify) || isOff(o.TLS) }

func (o *options) checkTLS() error {
	if o.verifies() && isOff(o.TLS) {
		return fault.New(fault.Invalid, "--tls=false and --tlsverify contradict each other: leave one out")
	}
	if !o.usesTLS() {
		return nil
	}
	if o.TLSCert == "" || o.TLSKey == "" {
		return fault.New(fault.Invalid, "TLS needs --tlscert and --tlskey")
	}
	if o.verifies() && o.TLSCACert == "" {
		return fault.New(fault.Invalid, "--tlsverify needs --tlscacert")
	}
	for _, path := range []string{o.TLSCert, o.TLSKey, o.TLSCACert} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return fault.New(fault.Invalid, "cannot use TLS: %w", err)
		}
	}
	return nil
}
