package container

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// request turns the flags, the image and its command into what the daemon is
// asked for. It reads the files that the flags name and the environment.
func (c *createFlags) request(image string, command []string) (*client.CreateRequest, error) {
	r := &client.CreateRequest{HostConfig: &client.HostConfig{}}
	r.Image, r.Cmd = image, command
	for _, fill := range []func(*client.CreateRequest) error{
		c.fillStreams, c.fillProcess, c.fillMetadata, c.fillHealth,
		c.fillNamespaces, c.fillSecurity, c.fillPorts, c.fillNetwork,
		c.fillStorage, c.fillDevices, c.fillLimits, c.fillLifecycle,
	} {
		if err := fill(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func checkStream(s string) (string, error) {
	switch s = strings.ToLower(s); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", fault.New(fault.Invalid, "valid streams are STDIN, STDOUT and STDERR")
}

func (c *createFlags) fillStreams(r *client.CreateRequest) error {
	for _, name := range c.attach.Values {
		switch name {
		case "stdin":
			r.AttachStdin = true
		case "stdout":
			r.AttachStdout = true
		case "stderr":
			r.AttachStderr = true
		}
	}
	if len(c.attach.Values) == 0 {
		r.AttachStdin, r.AttachStdout, r.AttachStderr = c.stdin, true, true
	}
	r.Tty, r.OpenStdin = c.tty, c.stdin
	r.StdinOnce = r.OpenStdin && r.AttachStdin
	return nil
}

func (c *createFlags) fillProcess(r *client.CreateRequest) error {
	r.Hostname, r.Domainname, r.User, r.WorkingDir = c.hostname, c.domainname, c.user, c.workdir
	if c.set.Changed("entrypoint") {
		r.Entrypoint = []string{c.entrypoint}
	}
	r.StopSignal = c.stopSignal
	if c.set.Changed("stop-timeout") {
		r.StopTimeout = &c.stopTimeout
	}
	if c.set.Changed("init") {
		r.HostConfig.Init = &c.init
	}
	var err error
	r.Env, err = environment(c.envFiles.Values, c.env.Values)
	return err
}

func (c *createFlags) fillMetadata(r *client.CreateRequest) error {
	var labels []string
	for _, path := range c.labelFiles.Values {
		lines, err := readLines(path, "label", func(string) (string, bool) { return "", false })
		if err != nil {
			return err
		}
		labels = append(labels, lines...)
	}
	r.Labels = (&option.List{Values: append(labels, c.labels.Values...)}).Map()
	r.HostConfig.Annotations = c.annotations.Map()
	r.HostConfig.Sysctls = c.sysctls.Map()
	if c.logDriver == "none" && len(c.logOpts.Values) > 0 {
		return fault.New(fault.Invalid, "invalid logging opts for driver none")
	}
	if c.logDriver != "" || len(c.logOpts.Values) > 0 {
		r.HostConfig.LogConfig = &client.LogConfig{Type: c.logDriver, Config: c.logOpts.Map()}
	}
	return nil
}

func (c *createFlags) fillHealth(r *client.CreateRequest) error {
	h := client.Healthcheck{Interval: int64(c.interval), Timeout: int64(c.timeout), StartPeriod: int64(c.startPeriod),
		StartInterval: int64(c.startIn), Retries: c.retries}
	given := c.healthCmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	if c.noHealth {
		if given {
			return fault.New(fault.Invalid, "--no-healthcheck conflicts with --health-* options")
		}
		r.Healthcheck = &client.Healthcheck{Test: []string{"NONE"}}
		return nil
	}
	if !given {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"interval", c.interval}, {"timeout", c.timeout}, {"retries", time.Duration(c.retries)},
		{"start-period", c.startPeriod}, {"start-interval", c.startIn}} {
		if d.value < 0 {
			return fault.New(fault.Invalid, "--health-%s cannot be negative", d.name)
		}
	}
	if c.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", c.healthCmd}
	}
	r.Healthcheck = &h
	return nil
}

func (c *createFlags) fillNamespaces(r *client.CreateRequest) error {
	h := r.HostConfig
	h.IpcMode, h.PidMode, h.UTSMode, h.UsernsMode, h.CgroupnsMode = c.ipc, c.pid, c.uts, c.userns, c.cgroupns
	other, isContainer := strings.CutPrefix(c.pid, "container:")
	switch {
	case c.pid != "" && c.pid != "host" && (!isContainer || other == ""):
		return fault.New(fault.Invalid, "--pid: invalid PID mode")
	case c.uts != "" && c.uts != "host":
		return fault.New(fault.Invalid, "--uts: invalid UTS mode")
	case c.userns != "" && c.userns != "host" && c.userns != "auto" && !strings.HasPrefix(c.userns, "auto:"):
		return fault.New(fault.Invalid, "--userns: invalid USER mode")
	case c.cgroupns != "" && c.cgroupns != "host" && c.cgroupns != "private":
		return fault.New(fault.Invalid, "--cgroupns: invalid CGROUP mode")
	}
	h.CgroupParent, h.Isolation, h.Runtime = c.cgroupParent, c.isolation, c.runtime
	return nil
}

func (c *createFlags) fillSecurity(r *client.CreateRequest) error {
	h := r.HostConfig
	h.Privileged, h.ReadonlyRootfs, h.Umask = c.privileged, c.readOnly, c.umask.Bits
	h.CapAdd, h.GroupAdd = capabilities(c.capAdd.Values, nil), c.groups.Values
	h.CapDrop = capabilities(c.capDrop.Values, h.CapAdd)
	for _, opt := range c.security.Values {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			// The form with a colon is older and still understood.
			name, value, ok = strings.Cut(opt, ":")
		}
		if !ok && opt != "no-new-privileges" && opt != "writable-cgroups" {
			return fault.New(fault.Invalid, "Invalid --security-opt: %q", opt)
		}
		if name == "seccomp" && value != "unconfined" && value != "builtin" {
			text, err := os.ReadFile(value)
			if err != nil {
				return fault.New(fault.Invalid, "opening seccomp profile (%s) failed: %w", value, err)
			}
			var b bytes.Buffer
			if err := json.Compact(&b, text); err != nil {
				return fault.New(fault.Invalid, "compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			opt = "seccomp=" + b.String()
		}
		h.SecurityOpt = append(h.SecurityOpt, opt)
	}
	return nil
}

func (c *createFlags) fillStorage(r *client.CreateRequest) error {
	h := r.HostConfig
	seen := map[string]bool{}
	for _, v := range c.volumes.Values {
		if seen[v] {
			continue
		}
		seen[v] = true
		if v == "" {
			return fault.New(fault.Invalid, "invalid empty volume spec")
		}
		source, rest, ok := strings.Cut(v, ":")
		if !ok {
			if r.Volumes == nil {
				r.Volumes = map[string]struct{}{}
			}
			r.Volumes[v] = struct{}{}
			continue
		}
		if strings.HasPrefix(source, ".") {
			abs, err := filepath.Abs(source)
			if err != nil {
				return err
			}
			source = abs
		}
		h.Binds = append(h.Binds, source+":"+rest)
	}
	for _, t := range c.tmpfs.Values {
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		path, options, _ := strings.Cut(t, ":")
		h.Tmpfs[path] = options
	}
	for _, o := range c.storage.Values {
		if !strings.Contains(o, "=") {
			return fault.New(fault.Invalid, "invalid storage option")
		}
	}
	h.Mounts, h.VolumesFrom, h.VolumeDriver, h.StorageOpt = c.mounts, c.volumesFrom.Values, c.volumeDriver, c.storage.Map()
	h.ShmSize = c.shm.N
	return nil
}

func (c *createFlags) fillLifecycle(r *client.CreateRequest) error {
	h := r.HostConfig
	h.AutoRemove, h.ContainerIDFile = c.remove, c.cidFile
	policy, err := parseRestart(c.restart)
	if err != nil {
		return err
	}
	if c.restart != "" && c.restart != "no" {
		if c.remove {
			return fault.New(fault.Invalid, "conflicting options: cannot specify both --restart and --rm")
		}
		h.RestartPolicy = &policy
	}
	switch c.pull {
	case "always", "missing", "never":
		return nil
	}
	return fault.New(fault.Invalid, "invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
}

// parseRestart reads NAME[:COUNT].
func parseRestart(text string) (client.RestartPolicy, error) {
	name, count, limited := strings.Cut(text, ":")
	policy := client.RestartPolicy{Name: name}
	if !limited {
		return policy, nil
	}
	if name == "" {
		return policy, fault.New(fault.Invalid, "invalid restart policy format: no policy provided before colon")
	}
	var err error
	if policy.MaximumRetryCount, err = strconv.Atoi(count); err != nil {
		return policy, fault.New(fault.Invalid, "invalid restart policy format: maximum retry count must be an integer")
	}
	return policy, nil
}

func checkIP(s string) (string, error) {
	ip := net.ParseIP(strings.TrimSpace(s))
	if ip == nil {
		return "", fault.New(fault.Invalid, "IP address is not correctly formatted: %s", s)
	}
	return ip.String(), nil
}

// checkHost takes host:address and host=address.
func checkHost(s string) (string, error) {
	name, address, ok := strings.Cut(s, "=")
	if !ok {
		name, address, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fault.New(fault.Invalid, "bad format for add-host: %q", s)
	}
	if len(address) > 2 && address[0] == '[' && address[len(address)-1] == ']' {
		address = address[1 : len(address)-1]
	}
	if address != "host-gateway" && net.ParseIP(address) == nil {
		return "", fault.New(fault.Invalid, "invalid IP address in add-host: %q", address)
	}
	return name + ":" + address, nil
}

// capabilities brings names to one form and order. ALL stands for every other
// one; what is in besides is left out.
func capabilities(names, besides []string) []string {
	var out []string
	for _, name := range names {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name == "ALL" {
			return []string{name}
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(besides, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
