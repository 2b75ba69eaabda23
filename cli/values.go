package cli

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// fixed are the values of flags that are the same at every daemon, by the
// flag's name.
var fixed = map[string][]string{
	"cgroupns":     {"host", "private"},
	"ipc":          {"container:", "host", "none", "private", "shareable"},
	"log-level":    {"debug", "error", "fatal", "info", "warn"},
	"log-opt":      {"compress=", "env-regex=", "env=", "labels-regex=", "labels=", "max-buffer-size=", "max-file=", "max-size=", "mode=", "tag="},
	"pid":          {"container:", "host"},
	"platform":     {"linux/386", "linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/ppc64le", "linux/riscv64", "linux/s390x"},
	"pull":         {"always", "missing", "never"},
	"restart":      {"always", "no", "on-failure", "unless-stopped"},
	"security-opt": {"apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=", "writable-cgroups"},
	"storage-opt":  {"size="},
	"type":         {"container", "image", "network", "volume"},
	"ulimit": {"as=", "core=", "cpu=", "data=", "fsize=", "locks=", "memlock=", "msgqueue=", "nice=", "nofile=", "nproc=",
		"rss=", "rtprio=", "rttime=", "sigpending=", "stack="},
	"userns": {"auto", "host"},
	"uts":    {"host"},
}

// afterEquals are the values of options of --security-opt.
var afterEquals = []string{
	"apparmor=unconfined", "label=disable", "label=level:", "label=role:", "label=type:", "label=user:", "no-new-privileges=false",
	"no-new-privileges=true", "seccomp=builtin", "seccomp=unconfined", "systempaths=unconfined", "writable-cgroups=false", "writable-cgroups=true",
}

// capabilities are those of linux/capability.h, sorted.
var capabilities = strings.Fields(`AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
	FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW
	PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE
	SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// signals are those that have a use for who types one, sorted.
var signals = strings.Fields(`ABRT ALRM CHLD CONT HUP INT KILL PIPE QUIT RTMAX RTMIN STOP TERM TSTP TTIN TTOU URG USR1 USR2 WINCH`)

// flagValues names what the value of a flag of the noun's commands can be, of
// which the beginning is there.
func flagValues(ctx context.Context, s *command.Session, noun, flag, begun string) []string {
	n := namer{ctx: ctx, session: s}
	option, _, given := strings.Cut(begun, "=")
	switch flag {
	case "context":
		return contextNames(s)
	case "cap-add", "cap-drop":
		return capabilityNames(begun)
	case "signal", "stop-signal":
		return signalNames(begun)
	case "security-opt":
		if given {
			return afterEquals
		}
	case "env":
		if !given {
			for _, e := range os.Environ() {
				name, _, _ := strings.Cut(e, "=")
				n.names = append(n.names, name)
			}
		}
	case "network", "net":
		n.networks()
		if noun == "container" {
			n.names = append(n.names, "container:")
			n.joined(begun)
		}
	case "config-from":
		n.networks()
	case "ipc", "pid":
		n.names = slices.Clone(fixed[flag])
		n.joined(begun)
	case "volumes-from", "link":
		n.containers(true)
	case "volume":
		n.volumes()
	case "log-driver", "runtime", "volume-driver", "driver":
		n.drivers(noun, flag)
	default:
		if option != "" && given {
			return nil // what follows is the user's
		}
		return fixed[flag]
	}
	if len(n.names) == 0 {
		return fixed[flag]
	}
	return n.sorted()
}

// capabilityNames have their prefix, and lose it where a word was begun
// without it.
func capabilityNames(begun string) []string {
	names := []string{"ALL"}
	for _, c := range capabilities {
		names = append(names, "CAP_"+c)
		if begun != "" {
			names = append(names, c)
		}
	}
	return names
}

// signalNames are without the prefix, unless the word begins with it.
func signalNames(begun string) []string {
	if !strings.HasPrefix(begun, "SIG") {
		return signals
	}
	var names []string
	for _, name := range signals {
		names = append(names, "SIG"+name)
	}
	return names
}

// joined names the containers whose namespace can be joined.
func (n *namer) joined(begun string) {
	if !strings.HasPrefix(begun, "container:") {
		return
	}
	running := namer{ctx: n.ctx, session: n.session}
	running.containers(false)
	n.names = slices.DeleteFunc(n.names, func(name string) bool { return name == "container:" })
	for _, name := range running.names {
		n.names = append(n.names, "container:"+name)
	}
}

// drivers names what the daemon has of a kind.
func (n *namer) drivers(noun, flag string) {
	cl, err := n.session.Client()
	if err != nil {
		return
	}
	raw, err := cl.InfoRaw(n.ctx)
	if err != nil {
		return
	}
	var info client.Info
	if json.Unmarshal(raw, &info) != nil {
		return
	}
	switch {
	case flag == "log-driver":
		n.names = append(slices.Clone(info.Plugins.Log), "none")
	case flag == "runtime":
		n.names = slices.Collect(maps.Keys(info.Runtimes))
	case flag == "volume-driver" || noun == "volume":
		n.names = info.Plugins.Volume
	case noun == "network":
		n.names = info.Plugins.Network
	}
}
