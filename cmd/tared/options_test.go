package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// config writes a configuration file and gives the flags that name it.
func config(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config-file", path}
}

func TestDefaults(t *testing.T) {
	o, err := readOptions(config(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if o.DataRoot != "/var/lib/tare" || o.ExecRoot != "/run/tare" || o.Pidfile != "/run/tare/tared.pid" || o.Group != "tare" ||
		len(o.Hosts) != 1 || o.Hosts[0] != "unix:///run/tare/tare.sock" || o.Bridge != "tare0" || o.MTU != 1500 || o.DefaultRuntime != "tarerun" {
		t.Errorf("%+v", o)
	}
	if o, err = readOptions(append(config(t, "{}"), "--exec-root=/tmp/x")); err != nil || o.Hosts[0] != "unix:///tmp/x/tare.sock" || o.Pidfile != "/tmp/x/tared.pid" {
		t.Errorf("%v %+v", err, o)
	}
}

func TestFlagsAndFile(t *testing.T) {
	o, err := readOptions(append(config(t, `{
		"hosts": ["unix:///a", "tcp://127.0.0.1:5000"], "data-root": "/d", "bip": "172.30.0.1/24", "mtu": 1400, "insecure-tcp": true,
		"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}], "labels": ["a=b"], "debug": true,
		"runtimes": {"crun": {"path": "/usr/bin/crun"}}, "default-runtime": "crun",
		"live-restore": true, "userland-proxy": false, "log-driver": "json-file", "features": {"containerd-snapshotter": true}
	}`), "--add-runtime", "runc=/usr/sbin/runc", "-b", "br7", "-p", "/p.pid", "-G", "wheel", "--icc", "--init=false"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(o.Hosts, " ") != "unix:///a tcp://127.0.0.1:5000" || o.DataRoot != "/d" || o.bip.String() != "172.30.0.1/24" || o.MTU != 1400 ||
		len(o.Pools) != 1 || o.Pools[0].Size != 24 || o.LogLevel != "debug" || o.Bridge != "br7" || o.Pidfile != "/p.pid" || o.Group != "wheel" {
		t.Errorf("%+v", o)
	}
	o, err = readOptions(append(config(t, ""), "--default-address-pool", "base=172.80.0.0/16,size=24", "--default-address-pool", "base=172.90.0.0/16,size=20"))
	if err != nil || len(o.Pools) != 2 || o.Pools[1].Base.String() != "172.90.0.0/16" {
		t.Errorf("%v %+v", err, o)
	}
}

func TestRegistryOptions(t *testing.T) {
	o, err := readOptions(config(t, ""))
	if err != nil || o.RegistryDir != "/etc/tare/certs.d" || o.Downloads != 3 || o.Uploads != 5 || o.PullAttempts != 5 {
		t.Errorf("%v %+v", err, o)
	}
	o, err = readOptions(append(config(t, `{"insecure-registries": ["10.1.2.3/16", "http://reg:5000", "[::1]:5000", "fd00::1"], "max-concurrent-downloads": 9, "max-concurrent-uploads": 0}`),
		"--registry-mirror=http://a/x", "--registry-mirror=https://b/", "--registry-hosts-dir=/h/../r", "--max-download-attempts=2"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(o.Mirrors, " ") != "http://a/x/ https://b/" || strings.Join(o.Insecure, " ") != "10.1.0.0/16 reg:5000 [::1]:5000 fd00::1/128" ||
		o.RegistryDir != "/r" || o.Downloads != 9 || o.Uploads != 0 || o.PullAttempts != 2 {
		t.Errorf("%+v", o)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct{ file, flags, want string }{
		{`{"bip": "10.1.0.1/16"}`, "--bip=10.2.0.1/16", "the following directives are specified both as a flag and in the configuration file: bip: (from flag: 10.2.0.1/16, from file: 10.1.0.1/16)"},
		{`{"hosts": ["unix:///a"], "debug": true}`, "-D -H unix:///b", "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true), hosts: (from flag: [unix:///b], from file: [unix:///a])"},
		{`{"bridge-name": 1, "colour": "red"}`, "", "the following directives don't match any configuration option: bridge-name, colour"},
		{`{"config-file": "x"}`, "", "the following directives don't match any configuration option: config-file"},
		{`{"storage-driver": "zfs"}`, "", `unknown storage driver "zfs": want overlay, btrfs or vfs`},
		{`{"iptables": false, "published-ports": "respect-host-firewall"}`, "", "is done by rules"},
		{`{"containerd": "/x"}`, "", "the directive containerd: \"/x\" is not supported: tared keeps images and containers itself"},
		{`{"proxies": {"http-proxy": "http://u:p@a"}}`, "--http-proxy=http://b", "the following directives are specified both as a flag and in the configuration file: http-proxy: (from flag: http://b, from file: http://xxxxx:xxxxx@a)"},
		{`{"proxies": {"colour": "x"}}`, "", "the following directives don't match any configuration option: proxies.colour"},
		{`{"tlsverify": false}`, "--tlsverify=false", "tlsverify: (from flag: false, from file: false)"},
		{`{"host-gateway-ip": "1.2.3.4", "host-gateway-ips": ["1.2.3.4"]}`, "", "host-gateway-ip and host-gateway-ips must not both be specified in the config file"},
		{`{"host-gateway-ip": "1.2.3.4"}`, "--host-gateway-ip=1.2.3.5", "host-gateway-ips: (from flag: [1.2.3.5], from file: [1.2.3.4])"},
		{"", "--host-gateway-ip=1.2.3.4 --host-gateway-ip=1.2.3.5", "only one IPv4 host gateway IP address can be specified"},
		{"", "--default-ipc-mode=host", `IPC mode "host" is not supported as default value; use "shareable" or "private"`},
		{"", "--default-ipc-mode=x", `default IPC mode setting (x) is invalid; use "shareable" or "private"`},
		{"", "--default-cgroupns-mode=x", `invalid default cgroup namespace (x): use "host" or "private"`},
		{"", "--default-ulimit=nofile=5:4", "ulimit soft limit must be less than or equal to hard limit: 5 > 4"},
		{`{"default-ulimits": {"files": {"Hard": 1, "Soft": 1}}}`, "", "invalid default-ulimits: invalid ulimit type: files"},
		{`{"default-shm-size": "lots"}`, "", "invalid size: 'lots'"},
		{"", "--dns=here", "here is not an ip address"},
		{`{"dns": ["here"]}`, "", "unable to parse IP"},
		{"", "--dns-search=a_b!", "a_b! is not a valid domain"},
		{"", "--exec-opt=x", "invalid exec-opt (x): must be formatted 'opt=value'"},
		{"", "--exec-opt=x=y", "invalid exec-opt (x=y): unknown option: 'x'"},
		{"", "--seccomp-profile=/nope", "opening seccomp profile (/nope) failed: open /nope: no such file or directory"},
		{"", "--log-format=xml", "invalid log format: xml"},
		{"", "--metrics-addr=:99999", `invalid metrics-addr ":99999": want HOST:PORT`},
		{`{"shutdown-timeout": 99999999999}`, "", "invalid shutdown-timeout 99999999999: the most is 2147483647 seconds"},
		{`{"proxies": {"http-proxy": "a"}, "http-proxy": "b"}`, "", "http-proxy must not both be specified in the config file by itself and in proxies"},
		{"", "--metrics-addr=9090", `invalid metrics-addr "9090": want HOST:PORT`},
		{"", "--oom-score-adjust=2000", "invalid value 2000 for oom-score-adjust: the range is -1000 to 1000"},
		{"", "--feature=containerd-snapshotter=false", "the feature containerd-snapshotter cannot be turned off"},
		{`{"features": {"time-travel": true}}`, "", "the feature time-travel is not supported"},
		{`{"features": {"cdi": true}}`, "--feature=cdi", "features: (from flag: map[cdi:true], from file: "},
		{`{"registry-mirrors": ["ftp://x"]}`, "", `invalid mirror: unsupported scheme "ftp" in "ftp://x"`},
		{`{"registry-mirrors": ["https://x"]}`, "--registry-mirror=https://y", "the following directives are specified both as a flag and in the configuration file: registry-mirrors"},
		{"", "--registry-mirror=https://me:pw@x", "invalid mirror: username/password not allowed in URI"},
		{"", "--registry-mirror=https://x/?a=b", "invalid mirror: query or fragment"},
		{"", "--insecure-registry=a/b", "insecure registry a/b is not valid"},
		{`{"insecure-registries": ["ftp://x"]}`, "", "insecure registry ftp://x should not contain '://'"},
		{"", "--max-concurrent-downloads=-1", "invalid max concurrent downloads: -1"},
		{"", "--max-concurrent-uploads=-2", "invalid max concurrent uploads: -2"},
		{`{"max-download-attempts": 0}`, "", "invalid max download attempts: 0"},
		{`{"mtu": "x"}`, "", "cannot unmarshal"},
		{`{`, "", "unexpected end of JSON input"},
		{"", "-s zfs", `unknown storage driver "zfs"`},
		{`{"storage-driver": "vfs"}`, "--storage-driver=btrfs", "specified both as a flag and in the configuration file: storage-driver"},
		{"", "--rootless", "--rootless=true is not supported yet"},
		{"", "--exec-opt native.cgroupdriver=systemd --exec-opt native.cgroupdriver=lorry", "native.cgroupdriver option lorry not supported"},
		{"", "--data-root /x --exec-root /y/../x", "--data-root and --exec-root are both /x"},
		{`{"runtimes": {"a": {"path": "/a"}}}`, "--add-runtime=a=/b", "the runtime a is specified both as a flag and in the configuration file"},
		{"", "--nonsense", "unknown flag: --nonsense"},
		{"", "extra", `unexpected argument "extra": tared takes flags only`},
		{"", "-H tcp://0.0.0.0:2375", "refusing to listen on tcp://0.0.0.0:2375 without TLS"},
		{"", "-H tcp://0.0.0.0:2376 --tls --tlscert=c --tlskey=k", "refusing to listen on tcp://0.0.0.0:2376 without client verification"},
		{"", "-H 127.0.0.1:99999 --insecure-tcp", `"99999" is no port`},
		{"", "-H npipe:////x", "unsupported proto 'npipe'"},
		{"", "--tlsverify", "TLS needs --tlscert and --tlskey"},
		{"", "--tlsverify --tls=false", "contradict each other"},
		{"", "--tls --tlscert=/nope/c --tlskey=/nope/k", "cannot use TLS: stat /nope/c: no such file or directory"},
		{"", "--bip=172.20.0.0/16", "the bridge needs one in it, such as 172.20.0.1/16"},
		{"", "--bip=here", `invalid --bip "here"`},
		{"", "--bip6=10.0.0.1/24", "invalid --bip6 10.0.0.1/24: it is of the other IP version"},
		{"", "--bip6=fd00::/64", "the bridge needs one in it, such as fd00::1/64"},
		{"", "--bip=10.0.0.1/24 --fixed-cidr=10.0.1.0/25", "it is no range in the bridge's subnet 10.0.0.0/24"},
		{"", "--fixed-cidr=10.0.0.0", `"10.0.0.0" is no address with the length of its subnet`},
		{"", "--default-gateway=fd00::1", "--default-gateway wants an IPv4 address"},
		{"", "--default-network-opt=bridge=mtu", "want DRIVER=OPTION=VALUE"},
		{"", "--bridge=none --bip=10.0.0.1/24", "--bridge=none and --bip contradict each other"},
		{"", "--bridge=averyveryverylongname", "at most 15 bytes"},
		{"", "--mtu=5", "invalid MTU 5"},
		{"", "--default-address-pool=base=10.0.0.0/24,size=16", "invalid default address pool 10.0.0.0/24 with size 16"},
		{"", "--default-runtime=kata", "specified default runtime 'kata' does not exist"},
		{"", "--add-runtime=tarerun=/x", "is reserved"},
		{"", "--add-runtime=x", "want name=path"},
		{"", "--log-level=loud", "invalid logging level: loud"},
		{"", "--label=x", "bad attribute format: x"},
		{"", "--label=a=1 --label=a=2", "conflict labels for a=2 and a=1"},
	} {
		_, err := readOptions(append(config(t, test.file), strings.Fields(test.flags)...))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.file, test.flags, err, test.want)
		}
	}
	if _, err := readOptions([]string{"--config-file=/nope/daemon.json"}); err == nil || !strings.Contains(err.Error(), "unable to configure the daemon with file /nope/daemon.json: ") {
		t.Error(err)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"unix://": "unix:///run/tare/tare.sock", "unix:///x/../y": "unix:///y", "fd://": "fd://",
		"tcp://": "tcp://localhost:2375", "tcp://:5": "tcp://0.0.0.0:5", "1.2.3.4": "tcp://1.2.3.4:2375", "tcp://[::1]:7": "tcp://[::1]:7", ":8": "tcp://0.0.0.0:8",
	} {
		got, err := parseHost(host, &options{ExecRoot: "/run/tare", InsecureTCP: true})
		if err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", host, got, err, want)
		}
	}
}

func TestLogOptions(t *testing.T) {
	o, err := readOptions(append(config(t, `{"log-opts": {"max-size": "1m", "max-file": "3"}}`), "--log-driver", "local"))
	if err != nil || o.LogDriver != "local" || o.LogOpts["max-file"] != "3" {
		t.Errorf("%v %+v", err, o)
	}
	o, err = readOptions(append(config(t, ""), "--log-opt", "max-size=1m", "--log-opt", "tag=a=b"))
	if err != nil || o.LogDriver != "json-file" || o.LogOpts["max-size"] != "1m" || o.LogOpts["tag"] != "a=b" {
		t.Errorf("%v %+v", err, o)
	}
	for file, want := range map[string]string{
		`{"log-driver": "x"}`:             `failed to set log opts: error looking up logging plugin x: plugin "x" not found`,
		`{"log-opts": {"x": "1"}}`:        "failed to set log opts: unknown log opt 'x' for json-file log driver",
		`{"log-opts": {"max-size": "0"}}`: "failed to set log opts: max-size must be a positive number, or -1 for no bound",
	} {
		if _, err := readOptions(config(t, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := readOptions(append(config(t, `{"log-opts": {"max-size": "1m"}}`), "--log-opt", "tag=x")); err == nil || !strings.Contains(err.Error(), "specified both as a flag and in the configuration file") {
		t.Errorf("in both places: %v", err)
	}
}

// Like dockerd, --validate looks for the user.
func TestValidateKnowsUsers(t *testing.T) {
	valid := func(who string) error { return run(append(config(t, ""), "--validate", "--userns-remap="+who)) }
	if err := valid("nosuchuser"); err == nil || !strings.Contains(err.Error(), `uid lookup for "nosuchuser"`) {
		t.Errorf("nosuchuser: %v", err)
	}
	for _, who := range []string{"default", "root"} {
		if err := valid(who); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
}
