package main

import (
	"log/slog"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/container/confine"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/server"
)

// attackSurface ends Docker's warnings about an API that is open.
const attackSurface = `
         Access to the remote API is equivalent to root access on the host. Refer
         to the 'Docker daemon attack surface' section in the documentation for
         more information: https://docs.docker.com/go/attack-surface/`

// hasCRIU tells whether containers can be checkpointed, which Docker's client
// shows of a daemon that calls itself experimental.
func hasCRIU() bool {
	_, err := exec.LookPath("criu")
	return err == nil
}

// facts is what clients are told of the daemon. id is that of the data root.
func (o *options) facts(id, initProgram string) server.Daemon {
	d := server.Daemon{
		Version: version, GitCommit: commit(), BuildTime: built(),
		ID: id, DataRoot: o.DataRoot, Debug: o.LogLevel == "debug", Labels: o.Labels,
		Runtimes: map[string]system.Runtime{}, DefaultRuntime: o.DefaultRuntime, Mirrors: o.Mirrors, Insecure: o.Insecure,
		LogDriver: o.LogDriver, LogDrivers: driver.Names(),
		LiveRestore: o.LiveRestore, Experimental: o.Experimental || hasCRIU(), Seccomp: o.Seccomp, NoNewPrivileges: o.NoNewPrivileges, Remapped: o.ids.Remap != nil,
		CgroupDriver: o.cgroupDriver(), AppArmor: confine.AppArmor(), SELinux: o.SELinux && confine.SELinux(), HostCgroupns: o.CgroupnsMode == "host", InitBinary: initProgram,
		Proxies: server.Proxies{
			HTTP:  withoutPassword(firstEnv("HTTP_PROXY", "http_proxy")),
			HTTPS: withoutPassword(firstEnv("HTTPS_PROXY", "https_proxy")),
			No:    firstEnv("NO_PROXY", "no_proxy"),
		},
	}
	for name, rt := range o.runtimes() {
		d.Runtimes[name] = system.Runtime{Path: rt.Path, Args: rt.Args}
	}
	devices := o.devices()
	d.CDISpecDirs, d.Devices = devices.Dirs, devices.Devices
	if on, said := o.Features["buildkit"]; said {
		d.Classic = !on
	}
	for _, p := range o.Pools {
		d.AddressPools = append(d.AddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	if o.Seccomp != "builtin" {
		d.Warnings = append(d.Warnings, "WARNING: daemon is not using the default seccomp profile")
	}
	for _, host := range o.Hosts {
		address, tcp := strings.CutPrefix(host, "tcp://")
		switch {
		case !tcp:
		case !o.usesTLS():
			d.Warnings = append(d.Warnings, "WARNING: API is accessible on http://"+address+" without encryption."+attackSurface)
		case !o.verifies():
			d.Warnings = append(d.Warnings, "WARNING: API is accessible on https://"+address+" without TLS client verification."+attackSurface)
		}
	}
	return d
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// warn says in dockerd's words what is dangerous about how the daemon was
// started.
func (o *options) warn(log *slog.Logger) {
	for _, host := range o.Hosts {
		if strings.HasPrefix(host, "tcp://") && !o.verifies() {
			log.Warn("Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network.", "host", host)
			log.Warn("Binding to an IP address, even on localhost, can also give access to scripts run in a browser. Be safe out there!", "host", host)
		}
	}
	if o.Seccomp != "builtin" {
		log.Warn("containers do not have the built-in seccomp profile by default", "seccomp-profile", o.Seccomp)
	}
}
