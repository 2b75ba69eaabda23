package main

// usages are the helps' texts for flags; COMMAND/FLAG where a flag means
// something else there.
var usages = map[string]string{
	"root":           "directory of the containers' state; without it below XDG_RUNTIME_DIR, or /run",
	"log":            "file that failures and warnings are written to",
	"log-format":     "form of that file's lines: text (the default) or json",
	"debug":          "log each step",
	"systemd-cgroup": "have systemd make the control groups; cgroupsPath is SLICE:PREFIX:NAME then",
	"cgroup-manager": "who makes the control groups: cgroupfs (the default) or systemd",
	"rootless":       "go on without control groups that may not be made: true, false or auto (the default)",
	"version":        "show the version",

	"bundle":         "directory with config.json; by default the current one",
	"config":         "the configuration, where it is not the bundle's config.json",
	"console-socket": "socket of AF_UNIX that is sent the master end of the terminal",
	"detach":         "do not wait for the process's end",
	"keep":           "leave the container when its process has ended",
	"no-new-keyring": "leave the process the caller's session keyring",
	"no-pivot":       "do not pivot_root, as on a ramdisk",
	"no-subreaper":   "do not become the parent of orphaned processes",
	"pid-file":       "file that the process's ID is written to",
	"pidfd-socket":   "socket of AF_UNIX that is sent a descriptor of the process",
	"preserve-fds":   "pass so many descriptors from 3 on to the process",

	"additional-gids": "further group of the process, by number",
	"apparmor":        "AppArmor profile of the process",
	"cap":             "further capability of the process",
	"cgroup":          "group below the container's to run in: [CONTROLLER:]PATH",
	"cwd":             "working directory in the container",
	"env":             "variable of the environment: NAME=VALUE",
	"ignore-paused":   "do not refuse a container that is paused",
	"no-new-privs":    "the process cannot gain privileges",
	"process":         "file of JSON with the whole process, in place of COMMAND",
	"process-label":   "SELinux label of the process",
	"tty":             "give the process a terminal",
	"user":            "user, and group, of the process by number: UID[:GID]",

	"all":            "send it to all processes of the container",
	"force":          "kill what still runs, and be content with no container",
	"format":         "form of the answer: table (the default) or json",
	"quiet":          "show the IDs alone",
	"stats":          "show the statistics once, and end",
	"interval":       "time between statistics (default 5s)",
	"spec/rootless":  "for an ordinary user, with a user namespace of one user",
	"spec/bundle":    "directory to write it in; by default the current one",
	"resources":      "file of JSON with the limits, or - for the standard input; other flags do not count then",
	"blkio-weight":   "share of block I/O, from 10 to 1000",
	"cpu-burst":      "microseconds that may be saved up beyond the quota",
	"cpu-idle":       "1: only when nobody else wants the CPU",
	"cpu-period":     "period of the quota, in microseconds; 0 for the kernel's",
	"cpu-quota":      "microseconds of CPU in each period; -1 for no limit",
	"cpu-rt-period":  "period of real-time scheduling, in microseconds",
	"cpu-rt-runtime": "microseconds of real-time scheduling in each period",
	"cpu-share":      "share of the CPU, relative to other groups",
	"cpuset-cpus":    "CPUs to run on (0-3, 0,1)",
	"cpuset-mems":    "memory nodes to use (0-3, 0,1)",

	"kernel-memory":      "without effect: kernels have no such limit any more",
	"kernel-memory-tcp":  "without effect: kernels have no such limit any more",
	"l3-cache-schema":    "schema of Intel RDT/CAT for the L3 cache",
	"mem-bw-schema":      "schema of Intel RDT/MBA for the memory's bandwidth",
	"memory":             "limit of memory, in bytes or with a unit (64m)",
	"memory-reservation": "memory that is left to it when it is short",
	"memory-swap":        "limit of memory and swap together; -1 for none",
	"pids-limit":         "limit of processes and threads; -1 for none",

	"auto-dedup":          "keep pages of memory once that several images have",
	"criu":                "the program criu; by default the one in PATH",
	"empty-ns":            "kind of namespace whose contents are left out: network",
	"ext-unix-sk":         "allow unix sockets that lead out of the container",
	"file-locks":          "allow file locks",
	"image-path":          "directory of the images; by default ./checkpoint",
	"lazy-pages":          "fetch memory when it is used, by userfaultfd",
	"leave-running":       "the container goes on",
	"link-remap":          "allow open files whose last name is gone",
	"lsm-mount-context":   "SELinux context of the restored mounts",
	"lsm-profile":         "profile of the restored processes: TYPE:NAME",
	"manage-cgroups-mode": "what of control groups is kept: soft (the default), full, strict or ignore",
	"page-server":         "ADDRESS:PORT of the page server that memory is sent to",
	"parent-path":         "images of an earlier --pre-dump, by a path relative to the images",
	"pre-dump":            "write memory alone, and let the container go on",
	"shell-job":           "allow a terminal from outside of the container",
	"status-fd":           "descriptor that gets a zero byte when lazy pages can be fetched",
	"tcp-close":           "close TCP connections",
	"tcp-established":     "keep TCP connections",
	"tcp-skip-in-flight":  "leave out TCP connections that are being made",
	"work-path":           "directory of logs and the like; by default the images'",
}

// usage is the text for a flag of a command.
func usage(command, name string) string {
	if text, ok := usages[command+"/"+name]; ok {
		return text
	}
	return usages[name]
}
