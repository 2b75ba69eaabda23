package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// benchRuntimes times the bare runtimes on one and the same bundle: /bin/true
// in six new namespaces, with masked paths, Docker's default filter of system calls and
// limits of memory, processors, processes and devices, and in a container that runs; and it
// weighs what waits in a container that was only created.
func benchRuntimes(t *table, dir, image, bin string, runs int) error {
	bundle := filepath.Join(dir, "bundle")
	root := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-C", root, "-xf", image).CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking the image: %w: %s", err, out)
	}
	if err := writeBundle(bundle, true, "/bin/true"); err != nil {
		return err
	}
	list := installedRuntimes(t, dir, bin)
	var runners, joiners []subject
	var ready []*bareRuntime
	for _, r := range list {
		runner := subject{r.name, func() (float64, error) { return try(r.command("run", "--bundle", bundle, r.next())) }}
		if _, err := runner.run(); err != nil {
			t.note("%s does not run here: %v", r.name, err)
			continue
		}
		runners, ready = append(runners, runner), append(ready, r)
	}
	t.compare("bare runtime, /bin/true, back to back", runs, 0, runners)
	t.compare("bare runtime, /bin/true, after 200 ms", runs, pause, runners)
	if err := writeBundle(bundle, false, "/bin/true"); err != nil {
		return err
	}
	t.compare("the same without seccomp, back to back", runs, 0, runners)
	if err := writeBundle(bundle, true, "/bin/sleep", "1000"); err != nil {
		return err
	}
	for _, r := range ready {
		if err := r.weighInit(t, bundle, max(runs/4, 3)); err != nil {
			t.note("%s: %v", r.name, err)
		}
		id := r.next()
		if err := quietly(r.command("run", "--detach", "--bundle", bundle, id)); err != nil {
			t.note("%s does not run in the background: %v", r.name, err)
			continue
		}
		defer func() { _ = quietly(r.command("delete", "--force", id)) }()
		joiners = append(joiners, subject{r.name, func() (float64, error) { return try(r.command("exec", id, "/bin/true")) }})
	}
	t.compare("bare runtime, exec of /bin/true, back to back", runs, 0, joiners)
	t.compare("bare runtime, exec of /bin/true, after 200 ms", runs, pause, joiners)
	return nil
}

// bareRuntime is a runtime with a directory for its state.
type bareRuntime struct {
	name, path, state string
	serial            int
}

func installedRuntimes(t *table, dir, bin string) (list []*bareRuntime) {
	for _, r := range []struct{ name, path string }{{"tarerun", bin + "/tarerun"}, {"runc", "runc"}, {"crun", "crun"}} {
		path, err := exec.LookPath(r.path)
		if err != nil {
			t.note("%s is not installed", r.name)
			continue
		}
		out, _ := exec.Command(path, "--version").Output()
		version, _, _ := strings.Cut(string(out), "\n")
		t.version(r.name, version)
		list = append(list, &bareRuntime{name: r.name, path: path, state: filepath.Join(dir, "run", "state-"+r.name)})
	}
	return list
}

func (r *bareRuntime) command(args ...string) *exec.Cmd {
	return exec.Command(r.path, append([]string{"--root", r.state}, args...)...)
}

// next names a container that was not there yet.
func (r *bareRuntime) next() string {
	r.serial++
	return fmt.Sprintf("bench-%s-%d", r.name, r.serial)
}

// quietly runs a command whose container outlives it and would hold a pipe.
func quietly(cmd *exec.Cmd) error {
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// weighInit puts down what the process that waits in a created container has in
// memory: it is there until the start, however long that takes.
func (r *bareRuntime) weighInit(t *table, bundle string, runs int) error {
	var private, inAll []float64
	for range runs {
		id := r.next()
		if err := quietly(r.command("create", "--bundle", bundle, id)); err != nil {
			return err
		}
		out, err := r.command("state", id).Output()
		var state struct{ Pid int }
		if err == nil {
			err = json.Unmarshal(out, &state)
		}
		if err == nil {
			private = append(private, (told(state.Pid, "smaps_rollup", "Private_Clean")+told(state.Pid, "smaps_rollup", "Private_Dirty"))/1024)
			inAll = append(inAll, told(state.Pid, "smaps_rollup", "Rss")/1024)
		}
		if err := errors.Join(err, quietly(r.command("delete", "--force", id))); err != nil {
			return err
		}
	}
	t.add("init of a created container, private", "MB", r.name, median(private))
	t.add("init of a created container, resident", "MB", r.name, median(inAll))
	return nil
}

// dockerCapabilities are those that Docker gives a container of which nothing
// else is said.
var dockerCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// writeBundle writes the configuration that all runtimes read. The filter is
// Docker's default profile as it is resolved for these capabilities.
func writeBundle(dir string, filtered bool, args ...string) error {
	mount := func(target, kind string, options ...string) map[string]any {
		return map[string]any{"destination": target, "type": kind, "source": kind, "options": options}
	}
	var namespaces []map[string]string
	for _, kind := range []string{"pid", "network", "ipc", "uts", "mount", "cgroup"} {
		namespaces = append(namespaces, map[string]string{"type": kind})
	}
	caps := dockerCapabilities
	config := map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs"},
		"hostname":   "bench",
		"process": map[string]any{
			"user": map[string]int{"uid": 0, "gid": 0}, "args": args, "cwd": "/",
			"env":             []string{"PATH=/bin"},
			"noNewPrivileges": true,
			"capabilities":    map[string][]string{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"mounts": []map[string]any{
			mount("/proc", "proc", "nosuid", "noexec", "nodev"),
			mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
		},
		"linux": map[string]any{
			"namespaces":    namespaces,
			"maskedPaths":   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"resources": map[string]any{
				"pids": map[string]int{"limit": 1000}, "memory": map[string]int{"limit": 512 << 20, "reservation": 256 << 20},
				"cpu":     map[string]int{"shares": 512, "quota": 150000, "period": 100000},
				"devices": []map[string]any{{"allow": false, "access": "rwm"}},
			},
		},
	}
	if filtered {
		filter, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			return err
		}
		config["linux"].(map[string]any)["seccomp"] = filter
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}
