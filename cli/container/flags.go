package container

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/option"
)

// createFlags are the flags that run and create share.
type createFlags struct {
	set *pflag.FlagSet

	attach                                  *option.List
	stdin, tty, remove, publishAll, init    bool
	privileged, readOnly, noHealth, noOOM   bool
	quiet                                   bool
	name, hostname, domainname, user        string
	workdir, entrypoint, platform, pull     string
	cidFile, stopSignal, restart, runtime   string
	ipc, pid, uts, userns, cgroupns         string
	cgroupParent, isolation, logDriver      string
	mac, ip, ip6, volumeDriver              string
	cpusetCPUs, cpusetMems                  string
	stopTimeout, oomScore, retries          int
	cpuShares, cpuPeriod, cpuQuota          int64
	cpuRTPeriod, cpuRTRuntime, pids         int64
	swappiness                              int64
	blkioWeight                             uint16
	memory, memorySwap, memoryReserve, shm  *option.Bytes
	cpus                                    cpus
	healthCmd                               string
	interval, timeout, startPeriod, startIn time.Duration

	env, envFiles, labels, labelFiles       *option.List
	publish, expose, volumes, volumesFrom   *option.List
	tmpfs, capAdd, capDrop, groups          *option.List
	hosts, dns, dnsSearch, dnsOptions       *option.List
	security, sysctls, annotations, storage *option.List
	devices, deviceRules, logOpts, links    *option.List
	aliases, linkLocal, weightDevices       *option.List
	readBps, writeBps, readIOps, writeIOps  *option.List
	gpus                                    *option.List
	mounts                                  mounts
	ulimits                                 option.Ulimits
	umask                                   option.Umask
	networks                                networks
	rates                                   *option.Rates
}

// newCreateFlags adds the flags that run and create share.
func newCreateFlags(f *pflag.FlagSet) *createFlags {
	c := &createFlags{set: f}
	f.SetInterspersed(false)
	c.addProcess(f)
	c.addIsolation(f)
	c.addNetwork(f)
	c.addStorage(f)
	c.addLimits(f)
	c.addHealth(f)
	addElsewhere(f)
	return c
}

func (c *createFlags) addProcess(f *pflag.FlagSet) {
	c.attach = option.NewList(f, "attach", "a", "Attach to STDIN, STDOUT or STDERR", checkStream)
	f.BoolVarP(&c.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVarP(&c.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.BoolVar(&c.remove, "rm", false, "Automatically remove the container when it exits")
	f.BoolVar(&c.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	f.StringVar(&c.name, "name", "", "Assign a name to the container")
	f.StringVarP(&c.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&c.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.StringVar(&c.platform, "platform", "", "Set platform if server is multi-platform capable")
	f.StringVar(&c.pull, "pull", "missing", "Pull image before creating (always, missing, never)")
	f.Bool("disable-content-trust", true, "Skip image verification")
	f.MarkHidden("disable-content-trust") // Docker accepts it and does nothing
	f.StringVar(&c.cidFile, "cidfile", "", "Write the container ID to the file")
	f.StringVar(&c.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.StringVar(&c.runtime, "runtime", "", "Runtime to use for this container")
	f.StringVar(&c.logDriver, "log-driver", "", "Logging driver for the container")
	c.logOpts = option.NewList(f, "log-opt", "", "Log driver options", nil)
	c.env = option.NewList(f, "env", "e", "Set environment variables", checkEnv)
	c.envFiles = option.NewList(f, "env-file", "", "Read in a file of environment variables", nil)
	c.labels = option.NewList(f, "label", "l", "Set meta data on a container", option.CheckLabel)
	c.labelFiles = option.NewList(f, "label-file", "", "Read in a line delimited file of labels", nil)
	c.annotations = option.NewList(f, "annotation", "", "Add an annotation to the container (passed through to the OCI runtime)", nil)
}

func (c *createFlags) addIsolation(f *pflag.FlagSet) {
	f.BoolVar(&c.privileged, "privileged", false, "Give extended privileges to this container")
	f.BoolVar(&c.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	c.capAdd = option.NewList(f, "cap-add", "", "Add Linux capabilities", nil)
	c.capDrop = option.NewList(f, "cap-drop", "", "Drop Linux capabilities", nil)
	f.Var(&c.umask, "umask", "Set umask for the container")
	c.groups = option.NewList(f, "group-add", "", "Add additional groups to join", nil)
	c.security = option.NewList(f, "security-opt", "", "Security options", nil)
	c.sysctls = option.NewList(f, "sysctl", "", "Sysctl options", checkSysctl)
	c.devices = option.NewList(f, "device", "", "Add a host device to the container", nil)
	c.deviceRules = option.NewList(f, "device-cgroup-rule", "", "Add a rule to the cgroup allowed devices list", checkDeviceRule)
	c.gpus = option.NewList(f, "gpus", "", "GPU devices to add to the container (all: every one)", checked(parseGPU))
	f.StringVar(&c.ipc, "ipc", "", "IPC mode to use")
	f.StringVar(&c.pid, "pid", "", "PID namespace to use")
	f.StringVar(&c.uts, "uts", "", "UTS namespace to use")
	f.StringVar(&c.userns, "userns", "", "User namespace to use (\"host\"|\"auto\"|\"auto:size=N\")")
	f.StringVar(&c.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	f.StringVar(&c.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.StringVar(&c.isolation, "isolation", "", "Container isolation technology")
	f.IntVar(&c.oomScore, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.BoolVar(&c.noOOM, "oom-kill-disable", false, "Disable OOM Killer")
}

func (c *createFlags) addNetwork(f *pflag.FlagSet) {
	f.Var(&c.networks, "network", "Connect a container to a network")
	f.Var(&c.networks, "net", "Connect a container to a network")
	f.MarkHidden("net")
	f.StringVarP(&c.hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&c.domainname, "domainname", "", "Container NIS domain name")
	f.BoolVarP(&c.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.StringVar(&c.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.StringVar(&c.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&c.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	c.publish = option.NewList(f, "publish", "p", "Publish a container's port(s) to the host", nil)
	c.expose = option.NewList(f, "expose", "", "Expose a port or a range of ports", nil)
	c.hosts = option.NewList(f, "add-host", "", "Add a custom host-to-IP mapping (host:ip)", checkHost)
	c.dns = option.NewList(f, "dns", "", "Set custom DNS servers", checkIP)
	c.dnsSearch = option.NewList(f, "dns-search", "", "Set custom DNS search domains", checkDomain)
	c.dnsOptions = option.NewList(f, "dns-option", "", "Set DNS options", nil)
	f.Var(c.dnsOptions, "dns-opt", "Set DNS options")
	f.MarkHidden("dns-opt")
	c.links = option.NewList(f, "link", "", "Add link to another container", checkLink)
	c.aliases = option.NewList(f, "network-alias", "", "Add network-scoped alias for the container", nil)
	f.Var(c.aliases, "net-alias", "Add network-scoped alias for the container")
	f.MarkHidden("net-alias")
	c.linkLocal = option.NewList(f, "link-local-ip", "", "Container IPv4/IPv6 link-local addresses", checkIP)
}

func (c *createFlags) addStorage(f *pflag.FlagSet) {
	c.volumes = option.NewList(f, "volume", "v", "Bind mount a volume", nil)
	c.volumesFrom = option.NewList(f, "volumes-from", "", "Mount volumes from the specified container(s)", nil)
	f.StringVar(&c.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.Var(&c.mounts, "mount", "Attach a filesystem mount to the container")
	c.tmpfs = option.NewList(f, "tmpfs", "", "Mount a tmpfs directory", nil)
	c.storage = option.NewList(f, "storage-opt", "", "Storage driver options for the container", nil)
	c.shm = option.NewBytes(f, "shm-size", "", "Size of /dev/shm")
}

func (c *createFlags) addLimits(f *pflag.FlagSet) {
	c.addChangeable(f)
	f.Int64Var(&c.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.Var(&c.ulimits, "ulimit", "Ulimit options")
}

// addChangeable adds the limits that can be changed later, too.
func (c *createFlags) addChangeable(f *pflag.FlagSet) {
	c.swappiness = -1
	c.rates = option.NewRates(f, true)
	c.memory = option.NewBytes(f, "memory", "m", "Memory limit")
	c.memorySwap = option.NewSwap(f, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	c.memoryReserve = option.NewBytes(f, "memory-reservation", "", "Memory soft limit")
	f.Var(&c.cpus, "cpus", "Number of CPUs")
	f.Int64VarP(&c.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&c.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&c.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&c.cpuRTPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&c.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.StringVar(&c.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&c.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Int64Var(&c.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.Uint16Var(&c.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	c.weightDevices = option.NewList(f, "blkio-weight-device", "", "Block IO weight (relative device weight)", checked(parseWeight))
	c.readBps = option.NewList(f, "device-read-bps", "", "Limit read rate (bytes per second) from a device", checked(parseBytesRate))
	c.writeBps = option.NewList(f, "device-write-bps", "", "Limit write rate (bytes per second) to a device", checked(parseBytesRate))
	c.readIOps = option.NewList(f, "device-read-iops", "", "Limit read rate (IO per second) from a device", checked(parseRate))
	c.writeIOps = option.NewList(f, "device-write-iops", "", "Limit write rate (IO per second) to a device", checked(parseRate))
}

func (c *createFlags) addHealth(f *pflag.FlagSet) {
	f.StringVar(&c.healthCmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&c.interval, "health-interval", 0, "Time between running the check (ms|s|m|h)")
	f.IntVar(&c.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.DurationVar(&c.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)")
	f.DurationVar(&c.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)")
	f.DurationVar(&c.startIn, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h)")
	f.BoolVar(&c.noHealth, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}
