package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// benchRuntimes times the bare runtimes on one and the same bundle: /bin/true
// in six new namespaces, with masked paths and a cgroup.
func benchRuntimes(t *table, dir, image, bin string, runs int) error {
	bundle := filepath.Join(dir, "bundle")
	root := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-C", root, "-xf", image).CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking the image: %w: %s", err, out)
	}
	if err := writeBundle(bundle, "/bin/true"); err != nil {
		return err
	}
	var subjects []subject
	for _, rt := range []struct{ name, path string }{{"tarerun", bin + "/tarerun"}, {"runc", "runc"}, {"crun", "crun"}} {
		path, err := exec.LookPath(rt.path)
		if err != nil {
			t.note("%s is not installed", rt.name)
			continue
		}
		out, _ := exec.Command(path, "--version").Output()
		version, _, _ := strings.Cut(string(out), "\n")
		t.version(rt.name, version)
		state, serial := filepath.Join(dir, "run", "state-"+rt.name), 0
		s := subject{rt.name, func() (float64, error) {
			serial++
			return try(exec.Command(path, "--root", state, "run", "--bundle", bundle, fmt.Sprintf("bench-%s-%d", rt.name, serial)))
		}}
		if _, err := s.run(); err != nil {
			t.note("%s does not run here: %v", rt.name, err)
			continue
		}
		subjects = append(subjects, s)
	}
	t.compare("bare runtime, /bin/true, back to back", runs, 0, subjects)
	t.compare("bare runtime, /bin/true, after 200 ms", runs, pause, subjects)
	return nil
}

func writeBundle(dir string, args ...string) error {
	mount := func(target, kind string, options ...string) map[string]any {
		return map[string]any{"destination": target, "type": kind, "source": kind, "options": options}
	}
	var namespaces []map[string]string
	for _, kind := range []string{"pid", "network", "ipc", "uts", "mount", "cgroup"} {
		namespaces = append(namespaces, map[string]string{"type": kind})
	}
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"}
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
			"resources":     map[string]any{"pids": map[string]int{"limit": 1000}, "memory": map[string]int{"limit": 512 << 20}},
		},
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}
