package container

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// proof says what becomes of a field: a test that shows its effect, or what the
// check says that refuses it.
type proof struct {
	where string // a script, or package.TestName
	words string // of that test, by which the field is seen

	refused func(*create.Request)
	answer  string
}

// shown names the test that shows a field's effect, and words that stand in it.
func shown(where, words string) proof { return proof{where: where, words: words} }

// refused asks for the field; the check answers with the words.
func refused(answer string, ask func(*create.Request)) proof {
	return proof{refused: ask, answer: answer}
}

const (
	limits  = "test/e2e/limits.txt"
	process = "test/e2e/process.txt"
	sharing = "test/e2e/sharing.txt"
	devices = "test/e2e/devices.txt"
	volumes = "test/e2e/volumes.txt"
)

func mounted(m mount.Mount) func(*create.Request) {
	return func(r *create.Request) { r.HostConfig.Mounts = []mount.Mount{m} }
}

// proofs has a row for each field of a create request.
var proofs = map[string]proof{
	"Config.Hostname":                  shown("test/e2e/isolation.txt", "--hostname somewhere"),
	"Config.Domainname":                shown(sharing, "--domainname example.org"),
	"Config.User":                      shown(process, "-u ann:disk"),
	"Config.AttachStdin":               shown(process, ".Config.AttachStdin"),
	"Config.AttachStdout":              shown(process, ".Config.AttachStdout"),
	"Config.AttachStderr":              shown(process, ".Config.AttachStderr"),
	"Config.ExposedPorts":              shown(process, "--expose 8080"),
	"Config.Tty":                       shown(process, `"Tty":true`),
	"Config.OpenStdin":                 shown(process, "tare run --rm -i"),
	"Config.StdinOnce":                 shown("supervise.TestStdinHalfClose", "StdinOnce"),
	"Config.Env":                       shown(process, "-e A=1 -e FROM"),
	"Config.Cmd":                       shown("container/create.TestEntrypointAndCommand", "Cmd"),
	"Config.Healthcheck.Test":          shown("test/e2e/health.txt", "--health-cmd"),
	"Config.Healthcheck.Interval":      shown("test/e2e/health.txt", "--health-interval 150ms"),
	"Config.Healthcheck.Timeout":       shown("test/e2e/health.txt", "--health-timeout 200ms"),
	"Config.Healthcheck.StartPeriod":   shown("test/e2e/health.txt", "--health-start-period 1h"),
	"Config.Healthcheck.StartInterval": shown("test/e2e/health.txt", "--health-start-interval 40ms"),
	"Config.Healthcheck.Retries":       shown("test/e2e/health.txt", "--health-retries 100000"),
	"Config.ArgsEscaped":               shown(process, ".Config.ArgsEscaped"),
	"Config.Image":                     shown(process, `"Image":"nosuch"`),
	"Config.Volumes":                   shown(volumes, "-v /scratch"),
	"Config.WorkingDir":                shown(process, "-w /made/here"),
	"Config.Entrypoint":                shown("container/create.TestEntrypointAndCommand", "Entrypoint"),
	"Config.NetworkDisabled":           shown(process, "NetworkDisabled"),
	"Config.OnBuild":                   shown(process, "OnBuild"),
	"Config.Labels":                    shown(process, `"Labels":{"a":"b"}`),
	"Config.StopSignal":                shown(process, "--stop-signal USR1"),
	"Config.StopTimeout":               shown(process, "--stop-timeout 0"),
	"Config.Shell":                     shown(process, `"Shell"`),

	"HostConfig.Binds":                           shown("test/e2e/isolation.txt", "shared:/s:ro"),
	"HostConfig.ContainerIDFile":                 shown(process, ".HostConfig.ContainerIDFile"),
	"HostConfig.LogConfig.Type":                  shown("test/e2e/logdrivers.txt", "--log-driver local"),
	"HostConfig.LogConfig.Config":                shown("test/e2e/logdrivers.txt", "--log-opt max-size=20k"),
	"HostConfig.NetworkMode":                     shown("test/e2e/isolation.txt", "--network container:limits"),
	"HostConfig.PortBindings.HostIP":             shown("network.TestLoopbackBindingIsTheHostsAlone", "127.0.0.1"),
	"HostConfig.PortBindings.HostPort":           shown("test/e2e/network.txt", "-p 18080:80"),
	"HostConfig.RestartPolicy.Name":              shown("test/e2e/lifecycle.txt", "--restart always"),
	"HostConfig.RestartPolicy.MaximumRetryCount": shown("test/e2e/lifecycle.txt", "--restart on-failure:3"),
	"HostConfig.AutoRemove":                      shown("test/e2e/run.txt", "--rm"),
	"HostConfig.VolumeDriver":                    shown("test/e2e.TestVolumePlugin", "--volume-driver"),
	"HostConfig.VolumesFrom":                     shown(volumes, "--volumes-from anon:ro"),
	"HostConfig.ConsoleSize":                     shown(process, `"ConsoleSize":[33,77]`),
	"HostConfig.Annotations":                     shown(process, `"annotations":{"org.example":"note"}`),
	"HostConfig.CapAdd":                          shown("test/e2e/isolation.txt", "--cap-add NET_ADMIN"),
	"HostConfig.CapDrop":                         shown("test/e2e/isolation.txt", "--cap-drop ALL"),
	"HostConfig.CgroupnsMode":                    shown(sharing, "--cgroupns host"),
	"HostConfig.DNS":                             shown("test/e2e/network.txt", "--dns 192.0.2.53"),
	"HostConfig.DNSOptions":                      shown(process, "--dns-option ndots:3"),
	"HostConfig.DNSSearch":                       shown(process, "--dns-search example.org"),
	"HostConfig.ExtraHosts":                      shown("test/e2e/network.txt", "--add-host box:10.1.2.3"),
	"HostConfig.GroupAdd":                        shown(process, "--group-add disk"),
	"HostConfig.IpcMode":                         shown(sharing, "--ipc container:donor"),
	"HostConfig.Cgroup":                          refused("Cgroup \"container:x\" is not supported", func(r *create.Request) { r.HostConfig.Cgroup = "container:x" }),
	"HostConfig.Links":                           shown(sharing, "--link db:data-base"),
	"HostConfig.OomScoreAdj":                     shown(limits, "--oom-score-adj 123"),
	"HostConfig.PidMode":                         shown("test/e2e/isolation.txt", "--pid container:limits"),
	"HostConfig.Privileged":                      shown("test/e2e/isolation.txt", "--privileged"),
	"HostConfig.PublishAllPorts":                 shown(process, "-P --expose 8080"),
	"HostConfig.ReadonlyRootfs":                  shown("test/e2e/isolation.txt", "--read-only"),
	"HostConfig.SecurityOpt":                     shown(devices, "--security-opt writable-cgroups"),
	"HostConfig.StorageOpt":                      shown("test/e2e.TestBtrfs", "limitedTree"),
	"HostConfig.Tmpfs":                           shown(devices, "--tmpfs /t:size=2m"),
	"HostConfig.UTSMode":                         shown(sharing, "--uts host"),
	"HostConfig.UsernsMode":                      shown("test/e2e.TestUsersOfTheirOwn", "--userns=auto:size=5000"),
	"HostConfig.ShmSize":                         shown(limits, "--shm-size 5m"),
	"HostConfig.Sysctls":                         shown(devices, "--sysctl net.core.somaxconn=77"),
	"HostConfig.Runtime":                         shown("test/e2e/badinput.txt", "invalid runtime name: nosuch"),
	"HostConfig.Umask":                           shown(limits, "--umask 77"),
	"HostConfig.Isolation":                       refused("invalid isolation (hyperv): linux only supports 'default'", func(r *create.Request) { r.HostConfig.Isolation = "hyperv" }),
	"HostConfig.CPUShares":                       shown(limits, "--cpu-shares 512"),
	"HostConfig.Memory":                          shown(limits, "memory.limit_in_bytes 67108864"),
	"HostConfig.NanoCPUs":                        shown(limits, "--cpus 0.5"),
	"HostConfig.CgroupParent":                    shown(sharing, "--cgroup-parent $CGROUP/deeper"),
	"HostConfig.BlkioWeight":                     shown(limits, "blkio.bfq.weight 300"),
	"HostConfig.BlkioWeightDevice.Path":          shown(limits, "bfq.weight_device 200"),
	"HostConfig.BlkioWeightDevice.Weight":        shown(limits, "bfq.weight_device 200"),
	"HostConfig.BlkioDeviceReadBps.Path":         shown(limits, "invalid BlkioDeviceReadBps"),
	"HostConfig.BlkioDeviceReadBps.Rate":         shown(limits, "throttle.read_bps_device 1048576"),
	"HostConfig.BlkioDeviceWriteBps.Path":        shown(limits, "throttle.write_bps_device 2097152"),
	"HostConfig.BlkioDeviceWriteBps.Rate":        shown(limits, "throttle.write_bps_device 2097152"),
	"HostConfig.BlkioDeviceReadIOps.Path":        shown(limits, "throttle.read_iops_device 30"),
	"HostConfig.BlkioDeviceReadIOps.Rate":        shown(limits, "throttle.read_iops_device 30"),
	"HostConfig.BlkioDeviceWriteIOps.Path":       shown(limits, "invalid BlkioDeviceWriteIOps"),
	"HostConfig.BlkioDeviceWriteIOps.Rate":       shown(limits, "throttle.write_iops_device 40"),
	"HostConfig.CPUPeriod":                       shown(limits, "cpu.cfs_period_us 50000"),
	"HostConfig.CPUQuota":                        shown(limits, "cpu.cfs_quota_us 20000"),
	"HostConfig.CPURealtimePeriod":               shown("test/e2e.TestRealtime", `"--cpu-rt-period", "500000"`),
	"HostConfig.CPURealtimeRuntime":              shown("test/e2e.TestRealtime", `"--cpu-rt-runtime", "5000"`),
	"HostConfig.CpusetCpus":                      shown(limits, "--cpuset-cpus 0"),
	"HostConfig.CpusetMems":                      shown(limits, "--cpuset-mems 63"),
	"HostConfig.Devices.PathOnHost":              shown(devices, "--device $WORK/nodes:/dev/mine"),
	"HostConfig.Devices.PathInContainer":         shown(devices, "--device $WORK/nodes:/dev/mine"),
	"HostConfig.Devices.CgroupPermissions":       shown(devices, "--device /dev/loop-control:/dev/mine:r"),
	"HostConfig.DeviceCgroupRules":               shown(devices, "--device-cgroup-rule 'c 10:237 rwm'"),
	"HostConfig.DeviceRequests.Driver":           shown(devices, `"Driver":"nosuch"`),
	"HostConfig.DeviceRequests.Count":            shown(devices, "--gpus all"),
	"HostConfig.DeviceRequests.DeviceIDs":        shown(devices, "--device vendor.com/toy=one"),
	"HostConfig.DeviceRequests.Capabilities":     shown(devices, `with capabilities: \[\[gpu\]\]`),
	"HostConfig.DeviceRequests.Options":          shown(devices, `"Options":{"a":"b"}`),
	"HostConfig.MemoryReservation":               shown(limits, "--memory-reservation 32m"),
	"HostConfig.MemorySwap":                      shown(limits, "--memory-swap 96m"),
	"HostConfig.MemorySwappiness":                shown(limits, "memory.swappiness 30"),
	"HostConfig.OomKillDisable":                  shown(limits, "oom_kill_disable 1"),
	"HostConfig.PidsLimit":                       shown(limits, "pids.max 9"),
	"HostConfig.Ulimits.Name":                    shown(limits, "--ulimit nofile=77:88"),
	"HostConfig.Ulimits.Hard":                    shown(limits, "--ulimit nofile=77:88"),
	"HostConfig.Ulimits.Soft":                    shown(limits, "--ulimit nofile=77:88"),
	"HostConfig.CPUCount":                        refused("CpuCount is of Windows", func(r *create.Request) { r.HostConfig.CPUCount = 1 }),
	"HostConfig.CPUPercent":                      refused("CpuPercent is of Windows", func(r *create.Request) { r.HostConfig.CPUPercent = 1 }),
	"HostConfig.IOMaximumIOps":                   refused("QoS maximum IOPs configuration is not supported on linux", func(r *create.Request) { r.HostConfig.IOMaximumIOps = 1 }),
	"HostConfig.IOMaximumBandwidth":              refused("QoS maximum bandwidth configuration is not supported on linux", func(r *create.Request) { r.HostConfig.IOMaximumBandwidth = 1 }),
	"HostConfig.MaskedPaths":                     shown(devices, `"MaskedPaths":["/proc/version"]`),
	"HostConfig.ReadonlyPaths":                   shown(devices, `"ReadonlyPaths":["/bin"]`),
	"HostConfig.Init":                            shown(process, "--init"),

	"HostConfig.Mounts.Type":                                   shown(devices, "--mount type=tmpfs"),
	"HostConfig.Mounts.Source":                                 shown(devices, "src=$WORK/dir"),
	"HostConfig.Mounts.Target":                                 shown(devices, "dst=/d"),
	"HostConfig.Mounts.ReadOnly":                               shown(devices, "readonly"),
	"HostConfig.Mounts.Consistency":                            shown("test/e2e/idmap.txt", "consistency=idmap"), // of meaning on other hosts only, but for that
	"HostConfig.Mounts.BindOptions.Propagation":                shown("test/e2e.TestHostMountsFollow", "bind-propagation=rslave"),
	"HostConfig.Mounts.BindOptions.NonRecursive":               shown("container/spec.TestMountOptions", "NonRecursive: true"),
	"HostConfig.Mounts.BindOptions.CreateMountpoint":           shown(devices, "CreateMountpoint"),
	"HostConfig.Mounts.BindOptions.ReadOnlyNonRecursive":       shown("container/spec.TestMountOptions", "ReadOnlyNonRecursive: true"),
	"HostConfig.Mounts.BindOptions.ReadOnlyForceRecursive":     shown("container/spec.TestMountOptions", "ReadOnlyForceRecursive: true"),
	"HostConfig.Mounts.VolumeOptions.NoCopy":                   shown(volumes, "volume-nocopy"),
	"HostConfig.Mounts.VolumeOptions.Labels":                   shown(volumes, "volume-label=l=m"),
	"HostConfig.Mounts.VolumeOptions.Subpath":                  shown(volumes, "volume-subpath=part"),
	"HostConfig.Mounts.VolumeOptions.DriverConfig.Name":        shown(volumes, "volume-driver=local"),
	"HostConfig.Mounts.VolumeOptions.DriverConfig.Options":     shown(volumes, "volume-opt=type=tmpfs"),
	"HostConfig.Mounts.ImageOptions.Subpath":                   shown(volumes, "image-subpath=data/sub"),
	"HostConfig.Mounts.ClusterOptions":                         refused("cluster volumes need a swarm", mounted(mount.Mount{Type: "cluster", Target: "/v", ClusterOptions: &mount.ClusterOptions{}})),
	"HostConfig.Mounts.TmpfsOptions.SizeBytes":                 shown(devices, "tmpfs-size=3m"),
	"HostConfig.Mounts.TmpfsOptions.Mode":                      shown(devices, "tmpfs-mode=0711"),
	"HostConfig.Mounts.TmpfsOptions.Options":                   shown(devices, `"TmpfsOptions":{"Options":[["exec"]]}`),
	"NetworkingConfig.EndpointsConfig.IPAMConfig.IPv4Address":  shown("test/e2e/networks.txt", "--ip 10.99.1.9"),
	"NetworkingConfig.EndpointsConfig.IPAMConfig.IPv6Address":  shown("test/e2e/networks.txt", "ip6=fd99:1::9"),
	"NetworkingConfig.EndpointsConfig.IPAMConfig.LinkLocalIPs": shown("test/e2e/networks.txt", "link-local-ip=169.254.9.9"),
	"NetworkingConfig.EndpointsConfig.Links":                   shown("test/e2e/networks.txt", "--link web:other"),
	"NetworkingConfig.EndpointsConfig.Aliases":                 shown("test/e2e/networks.txt", "--network-alias nick"),
	"NetworkingConfig.EndpointsConfig.DriverOpts":              shown("test/e2e/networks.txt", "driver-opt=com.docker.network.endpoint.ifname=lan0"),
	"NetworkingConfig.EndpointsConfig.GwPriority":              shown("test/e2e/networks.txt", "gw-priority=5"),
	"NetworkingConfig.EndpointsConfig.MacAddress":              shown(process, "--mac-address 02:42:ac:11:00:99"),
	"NetworkingConfig.EndpointsConfig.NetworkID":               shown("container.TestWishes", "NetworkID"), // these tell what is, and nothing asks for it
	"NetworkingConfig.EndpointsConfig.EndpointID":              shown("container.TestWishes", "EndpointID"),
	"NetworkingConfig.EndpointsConfig.Gateway":                 shown("container.TestWishes", "Gateway"),
	"NetworkingConfig.EndpointsConfig.IPAddress":               shown("container.TestWishes", "IPAddress"),
	"NetworkingConfig.EndpointsConfig.IPPrefixLen":             shown("container.TestWishes", "IPPrefixLen"),
	"NetworkingConfig.EndpointsConfig.IPv6Gateway":             shown("container.TestWishes", "IPv6Gateway"),
	"NetworkingConfig.EndpointsConfig.GlobalIPv6Address":       shown("container.TestWishes", "GlobalIPv6Address"),
	"NetworkingConfig.EndpointsConfig.GlobalIPv6PrefixLen":     shown("container.TestWishes", "GlobalIPv6PrefixLen"),
	"NetworkingConfig.EndpointsConfig.DNSNames":                shown("container.TestWishes", "DNSNames"),
}

// fields lists every field of a request that has no fields itself, by its path.
func fields(t reflect.Type, path string, add func(string)) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	ours := strings.Contains(t.PkgPath(), "moby/moby/api/") || t == reflect.TypeFor[units.Ulimit]() || t == reflect.TypeFor[wire.HealthConfig]()
	if t.Kind() != reflect.Struct || !ours || t.NumField() == 0 {
		add(path)
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			fields(f.Type, path, add)
		} else {
			fields(f.Type, path+"."+f.Name, add)
		}
	}
}

// TestEveryFieldHasItsProof: no field of a create request is accepted and
// ignored. A new one of Docker's fails here until it has a row above.
func TestEveryFieldHasItsProof(t *testing.T) {
	var all []string
	add := func(path string) { all = append(all, path) }
	fields(reflect.TypeFor[wire.Config](), "Config", add)
	fields(reflect.TypeFor[wire.HostConfig](), "HostConfig", add)
	fields(reflect.TypeFor[wirenet.NetworkingConfig](), "NetworkingConfig", add)
	tests := allTests(t)
	for _, path := range all {
		p, ok := proofs[path]
		if !ok {
			t.Errorf("%s has no row: give it an effect and a test, or refuse it by its name", path)
		} else if p.refused == nil {
			checkProof(t, tests, path, p)
		}
	}
	for path := range proofs {
		if !slices.Contains(all, path) {
			t.Errorf("%s is no field of a request any more", path)
		}
	}
}

func checkProof(t *testing.T, tests map[string]string, what string, p proof) {
	t.Helper()
	if text, ok := tests[p.where]; !ok {
		t.Errorf("%s: there is no test %s", what, p.where)
	} else if !strings.Contains(text, p.words) {
		t.Errorf("%s: %s does not say %q", what, p.where, p.words)
	}
}

// allTests finds the texts of all tests of the tree: of scripts by their path,
// of functions by package and name.
func allTests(t *testing.T) map[string]string {
	t.Helper()
	tests := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel := strings.TrimPrefix(path, "../")
		script := filepath.Ext(path) == ".txt" && strings.HasPrefix(rel, "test/")
		if !script && !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if script {
			tests[rel] = string(text)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[filepath.Dir(rel)+"."+f.Name.Name] = string(text[f.Pos()-file.FileStart : f.End()-file.FileStart])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// noLimits are snapshots whose storage bounds nobody.
type noLimits struct{ Snapshots }

func (noLimits) CanLimit() error { return fault.New(fault.Invalid, "no limits") }

func checkerConfig(dir string) Config {
	return Config{DataRoot: dir, Networks: &network.Service{}, Snapshots: noLimits{},
		Defaults: create.NewDefaults(create.Settings{Runtimes: map[string]supervise.Runtime{"tarerun": {}}, DefaultRuntime: "tarerun",
			HostGateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})}
}

// TestRefusedFields carries out each refusal of the table.
func TestRefusedFields(t *testing.T) {
	s, err := assemble(checkerConfig(t.TempDir()), recordtest.Store(t, t.TempDir()), host{})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(change func(*create.Request)) error {
		r := create.Request{Config: &wire.Config{Image: "x"}, HostConfig: &wire.HostConfig{}}
		change(&r)
		if err := r.Settle(new(create.Settings)); err != nil {
			return err
		}
		return (&creation{containers: s, req: &r}).check()
	}
	if err := ask(func(*create.Request) {}); err != nil {
		t.Fatalf("a request for nothing: %v", err)
	}
	for path, p := range proofs {
		if p.refused == nil {
			continue
		}
		err := ask(p.refused)
		if err == nil || !strings.Contains(err.Error(), p.answer) {
			t.Errorf("%s: %v, want %q", path, err, p.answer)
		} else if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotImplemented) {
			t.Errorf("%s: %v is no refusal", path, err)
		}
	}
	for want, change := range map[string]func(*create.Request){
		"no limits":                func(r *create.Request) { r.HostConfig.StorageOpt = map[string]string{"size": "1g"} },
		"unknown option colour":    func(r *create.Request) { r.HostConfig.StorageOpt = map[string]string{"colour": "red"} },
		`invalid size "much"`:      func(r *create.Request) { r.HostConfig.StorageOpt = map[string]string{"size": "much"} },
		"invalid IPC mode: nosuch": func(r *create.Request) { r.HostConfig.IpcMode = "nosuch" },
		"invalid UsernsMode":       func(r *create.Request) { r.HostConfig.UsernsMode = "private" },
		"BlkioWeightDevice: null":  func(r *create.Request) { r.HostConfig.BlkioWeightDevice = []*blkiodev.WeightDevice{nil} },
		"BlkioDeviceReadBps: null": func(r *create.Request) { r.HostConfig.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{nil} },
		"Range of blkio weight": func(r *create.Request) {
			r.HostConfig.BlkioWeightDevice = []*blkiodev.WeightDevice{{Path: "/dev/x", Weight: 5}}
		},
		"bad format for links: :a":   func(r *create.Request) { r.HostConfig.Links = []string{":a"} },
		"unknown or invalid runtime": func(r *create.Request) { r.HostConfig.Runtime = "nosuch" },
	} {
		if err := ask(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestWishes: what inspect told of another container is not asked for.
func TestWishes(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.9")
	got := record.Wishes(map[string]*wirenet.EndpointSettings{"bridge": {
		NetworkID: "n", EndpointID: "e", Gateway: addr, IPAddress: addr, IPPrefixLen: 8, IPv6Gateway: addr, GlobalIPv6Address: addr,
		GlobalIPv6PrefixLen: 8, DNSNames: []string{"d"}, MacAddress: wirenet.HardwareAddr{2, 0, 0, 0, 0, 1},
	}, "null": nil})
	want := map[string]*wirenet.EndpointSettings{"bridge": {MacAddress: wirenet.HardwareAddr{2, 0, 0, 0, 0, 1}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got["bridge"])
	}
}
