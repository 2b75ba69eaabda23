package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// dockerdFlags are all flags of dockerd, with a value and what becomes of it: a
// text that the options then hold, or the error that names it after "refused:".
// The key in the configuration file is the flag's name unless another is given.
var dockerdFlags = []struct {
	flag, key, value string
	file             string // the value as JSON; "" for what follows from value, "-" for no such key
	want             string
}{
	{"add-runtime", "runtimes", "crun=/bin/true", `{"crun": {"path": "/bin/true"}}`, "/bin/true"},
	{"allow-direct-routing", "", "true", "true", "DirectRouting:true"},
	{"allow-nondistributable-artifacts", "", "reg:5000", `["reg:5000"]`, ""},
	{"api-cors-header", "", "*", "", "refused: use a reverse proxy"},
	{"authorization-plugin", "authorization-plugins", "x", `["x"]`, "AuthzPlugins:[x]"},
	{"bip", "", "10.9.8.7/24", "", "10.9.8.7/24"},
	{"bip6", "", "2001:db8::1/64", "", "BIP6:2001:db8::1/64"},
	{"bridge", "", "br7", "", "br7"},
	{"bridge-accept-fwmark", "", "0x1/0xff", "", "mark:1 markMask:255"},
	{"cdi-spec-dir", "cdi-spec-dirs", "/x", `["/x"]`, "CDISpecDirs:[/x]"},
	{"cgroup-parent", "", "/elsewhere", "", "/elsewhere"},
	{"containerd", "", "/x", "", "refused: uses no containerd"},
	{"containerd-namespace", "", "x", "", "refused: uses no containerd"},
	{"containerd-plugins-namespace", "containerd-plugin-namespace", "x", "", "refused: uses no containerd"},
	{"cpu-rt-period", "", "1000000", "1000000", "RealtimePeriod:1000000"},
	{"cpu-rt-runtime", "", "50000", "50000", "RealtimeRuntime:50000"},
	{"cri-containerd", "", "true", "true", "refused: uses no containerd"},
	{"data-root", "", "/d/r", "", "/d/r"},
	{"debug", "", "true", "true", "LogLevel:debug"},
	{"default-address-pool", "default-address-pools", "base=10.0.0.0/8,size=24", `[{"base": "10.0.0.0/8", "size": 24}]`, "10.0.0.0/8"},
	{"default-cgroupns-mode", "", "host", "", "CgroupnsMode:host"},
	{"default-gateway", "", "1.2.3.4", "", "DefaultGateway:1.2.3.4"},
	{"default-gateway-v6", "", "fd00::1", "", "DefaultGateway6:fd00::1"},
	{"default-ipc-mode", "", "shareable", "", "IpcMode:shareable"},
	{"default-network-opt", "default-network-opts", "bridge=a=b", `{"bridge": {"a": "b"}}`, "NetworkOptions:bridge=a=b"},
	{"default-runtime", "", "tarerun", "", "tarerun"},
	{"default-shm-size", "", "96M", "", "ShmSize:96MiB"},
	{"default-ulimit", "default-ulimits", "nofile=11:12", `{"nofile": {"Name": "nofile", "Soft": 11, "Hard": 12}}`, "[nofile=11:12]"},
	{"dns", "", "192.0.2.7", `["192.0.2.7"]`, "192.0.2.7"},
	{"dns-opt", "dns-opts", "ndots:7", `["ndots:7"]`, "ndots:7"},
	{"dns-search", "", "search.example", `["search.example"]`, "search.example"},
	{"exec-opt", "exec-opts", "native.cgroupdriver=cgroupfs", `["native.cgroupdriver=cgroupfs"]`, "native.cgroupdriver=cgroupfs"},
	{"exec-root", "", "/e/r", "", "/e/r"},
	{"experimental", "", "true", "true", "Experimental:true"},
	{"feature", "features", "buildkit=false", `{"buildkit": false}`, "map[buildkit:false]"},
	{"firewall-backend", "", "iptables", "", "refused: not supported yet"},
	{"fixed-cidr", "", "10.0.0.0/8", "", "FixedCIDR:10.0.0.0/8"},
	{"fixed-cidr-v6", "", "2001:db8::/64", "", "FixedCIDR6:2001:db8::/64"},
	{"group", "", "wheel", "", "Group:wheel"},
	{"host", "hosts", "unix:///h.sock", `["unix:///h.sock"]`, "unix:///h.sock"},
	{"host-gateway-ip", "host-gateway-ips", "192.0.2.8", `["192.0.2.8"]`, "192.0.2.8"},
	{"http-proxy", "", "http://proxy:1", "", "HTTPProxy:http://proxy:1"},
	{"https-proxy", "", "http://proxy:2", "", "HTTPSProxy:http://proxy:2"},
	{"icc", "", "false", "false", "ICC:false"},
	{"init", "", "true", "true", "Init:true"},
	{"init-path", "", "/bin/true", "", "InitPath:/bin/true"},
	{"insecure-registry", "insecure-registries", "reg:5000", `["reg:5000"]`, "reg:5000"},
	{"ip", "", "127.0.0.1", "", "PublishIP:127.0.0.1"},
	{"ip-forward", "", "false", "false", "Forward:false"},
	{"ip-forward-no-drop", "", "true", "true", "ForwardAll:true"},
	{"ip-masq", "", "false", "false", "Masquerade:false"},
	{"ip6tables", "", "false", "false", "Rules6:false"},
	{"iptables", "", "false", "false", "Rules4:false"},
	{"ipv6", "", "true", "true", "IPv6:true"},
	{"label", "labels", "a=b", `["a=b"]`, "a=b"},
	{"live-restore", "", "false", "false", "LiveRestore:false"},
	{"log-driver", "", "local", "", "LogDriver:local"},
	{"log-format", "", "json", "", "LogFormat:json"},
	{"log-level", "", "WARN", "", "LogLevel:warn"},
	{"log-opt", "log-opts", "max-size=1m", `{"max-size": "1m"}`, "LogOpts:map[max-size:1m]"},
	{"max-concurrent-downloads", "", "7", "7", "Downloads:7"},
	{"max-concurrent-uploads", "", "7", "7", "Uploads:7"},
	{"max-download-attempts", "", "7", "7", "PullAttempts:7"},
	{"metrics-addr", "", "127.0.0.1:9323", "", "MetricsAddr:127.0.0.1:9323"},
	{"mtu", "", "1400", "1400", "MTU:1400"},
	{"network-control-plane-mtu", "", "1400", "1400", "refused: no swarm mode"},
	{"network-diagnostic-port", "", "1", "1", "refused: not supported yet"},
	{"no-new-privileges", "", "true", "true", "NoNewPrivileges:true"},
	{"no-proxy", "", "example", "", "NoProxy:example"},
	{"node-generic-resource", "node-generic-resources", "a=b", `["a=b"]`, "refused: no swarm mode"},
	{"nri-opts", "", "enable=true", `{"enable": true}`, "refused: not supported yet"},
	{"oom-score-adjust", "", "17", "17", "OOMScoreAdjust:17"},
	{"pidfile", "", "/p.pid", "", "Pidfile:/p.pid"},
	{"raw-logs", "", "true", "true", "RawLogs:true"},
	{"registry-mirror", "registry-mirrors", "http://m/", `["http://m/"]`, "http://m/"},
	{"restart", "", "false", "false", "refused: restart policy"},
	{"rootless", "", "true", "true", "refused: not supported yet"},
	{"seccomp-profile", "", "unconfined", "", "Seccomp:unconfined"},
	{"selinux-enabled", "", "true", "true", "SELinux:true"},
	{"shutdown-timeout", "", "9", "9", "ShutdownTimeout:9"},
	{"storage-driver", "", "vfs", "", "StorageDriver:vfs"},
	{"storage-opt", "storage-opts", "overlay2.size=8m", `["overlay2.size=8m"]`, "StorageOpts:[overlay2.size=8m]"},
	{"swarm-default-advertise-addr", "", "eth0", "", "refused: no swarm mode"},
	{"tls", "", "false", "false", "TLS"},
	{"tlscacert", "", "/ca", "", "TLSCACert:/ca"},
	{"tlscert", "", "/cert", "", "TLSCert:/cert"},
	{"tlskey", "", "/key", "", "TLSKey:/key"},
	{"tlsverify", "", "false", "false", "TLSVerify"},
	{"userland-proxy", "", "false", "false", "UserlandProxy:false"},
	{"userland-proxy-path", "", "/x", "", "refused: no proxy program"},
	{"userns-remap", "", "default", "", "UsernsRemap:default"},
	{"config-file", "", "", "-", ""},
	{"validate", "", "true", "-", ""},
	{"version", "", "true", "-", ""},
}

// dump shows the options as the table has them.
func dump(o *options) string {
	text := fmt.Sprintf("%+v", *o)
	return text + fmt.Sprintf(" ShmSize:%s TLS:%v TLSVerify:%v %v", &o.ShmSize, isOff(o.TLS), isOff(o.TLSVerify), o.Ulimits.list())
}

// Each flag of dockerd's is honoured or refused by its name, and so is its key.
func TestEveryFlagOfDockerd(t *testing.T) {
	known := map[string]bool{}
	for _, f := range dockerdFlags {
		known[f.flag] = true
		if f.value == "" {
			continue
		}
		o, err := readOptions(append(config(t, ""), "--"+f.flag+"="+f.value))
		checkFlag(t, "--"+f.flag, o, err, f.want, f.flag)
		if f.file == "-" {
			continue
		}
		key, value := f.key, f.file
		if key == "" {
			key = f.flag
		}
		if value == "" {
			value = fmt.Sprintf("%q", f.value)
		}
		o, err = readOptions(config(t, fmt.Sprintf(`{%q: %s}`, key, value)))
		checkFlag(t, key, o, err, f.want, key)
	}
	(&options{Runtimes: map[string]runtime{}, Features: switches{}}).flags().VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "insecure-tcp", "registry-hosts-dir", "plugin-dir", "published-ports", "userns-auto", "help": // our own
		default:
			if !known[f.Name] {
				t.Errorf("the flag %s is no flag of dockerd's, and not known here", f.Name)
			}
		}
	})
}

func checkFlag(t *testing.T, what string, o *options, err error, want, name string) {
	t.Helper()
	if reason, refused := strings.CutPrefix(want, "refused: "); refused {
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want a refusal by %q", what, err, reason)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if !strings.Contains(dump(o), want) {
		t.Errorf("%s: %q is not in %s", what, want, dump(o))
	}
}

// The keys that dockerd has in the file alone.
func TestKeysOfTheFileAlone(t *testing.T) {
	o, err := readOptions(config(t, `{"proxies": {"http-proxy": "http://a", "https-proxy": "http://b", "no-proxy": "c"}, "host-gateway-ip": "192.0.2.1"}`))
	if err != nil || o.HTTPProxy != "http://a" || o.HTTPSProxy != "http://b" || o.NoProxy != "c" || len(o.HostGateways) != 1 || o.HostGateways[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%v %+v", err, o)
	}
	for key, want := range map[string]string{
		"default-init": "use init-path", "resolv-conf": "not supported yet",
		"swarm-raft-heartbeat-tick": "no swarm mode", "swarm-raft-election-tick": "no swarm mode", "deprecated-key-path": "leave it out",
	} {
		if _, err := readOptions(config(t, fmt.Sprintf(`{%q: 1}`, key))); err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", key, err, want)
		}
	}
}

func TestContainerSettings(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := readOptions(append(config(t, ""), "--seccomp-profile="+profile, "--no-new-privileges", "--init", "--default-ulimit=core=0", "--default-ulimit=nofile=5:6", "--default-shm-size=1g", "--dns=192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	s := o.settings()
	if !strings.Contains(s.Seccomp, "SCMP_ACT_ALLOW") || !s.NoNewPrivileges || !s.Init || len(s.Ulimits) != 2 || s.ShmSize != 1<<30 || len(s.DNS) != 1 || s.IpcMode != "private" {
		t.Errorf("%+v", s)
	}
}
