package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// engine is a container engine on a directory and in a network namespace of
// its own.
type engine struct {
	name     string
	tree     string   // the root directory of its programs, if not the machine's
	needs    []string // programs
	dir      string
	client   []string // how its command line begins
	daemon   []string // nil without one
	rule     string   // what the command lines of the processes beside a container have in common
	network  *exec.Cmd
	running  *exec.Cmd
	imported []string // arguments that import the image from stdin
	config   string   // of daemon.json
	logPath  string   // how inspect tells where a container's log is
}

func engines(dir, bin string) []*engine {
	socket := func(name string) string { return "unix://" + filepath.Join(dir, name, "sock") }
	at := func(name string, more ...string) string {
		return filepath.Join(append([]string{dir, name}, more...)...)
	}
	list := []*engine{
		{name: "tare", needs: []string{bin + "/tare", bin + "/tared"}, client: []string{bin + "/tare", "-H", socket("tare")},
			daemon: []string{bin + "/tared", "-H", socket("tare"), "--data-root", at("tare", "data"), "--exec-root", filepath.Join(dir, "run", "tare"),
				"--pidfile", at("tare", "pid"), "--config-file", at("tare", "daemon.json"), "--bridge", "tare-bench", "--cgroup-parent", "/" + cgroup},
			rule: "tare-supervise", imported: []string{"import", "-", "busybox"}},
		{name: "docker", needs: []string{"docker", "dockerd", "containerd", "runc", "iptables"}, client: []string{"docker", "-H", socket("docker")},
			daemon: []string{"dockerd", "-H", socket("docker"), "--data-root", at("docker", "data"), "--exec-root", filepath.Join(dir, "run", "docker"),
				"--pidfile", at("docker", "pid"), "--config-file", at("docker", "daemon.json")},
			rule: "containerd-shim", imported: []string{"import", "-", "busybox"}},
		{name: "podman", needs: []string{"podman"}, client: []string{"podman", "--root", at("podman", "data"), "--runroot", filepath.Join(dir, "run", "podman"),
			"--cgroup-manager", "cgroupfs"},
			rule: "conmon", imported: []string{"import", "-", "busybox"}},
	}
	for _, e := range list {
		e.dir, e.config, e.logPath = filepath.Join(dir, e.name), "{}\n", "{{.LogPath}}"
		if e.daemon == nil {
			e.logPath = "{{.HostConfig.LogConfig.Path}}"
		}
	}
	return list
}

// missing names the first program that is not there.
func (e *engine) missing() string {
	for _, p := range e.needs {
		if _, err := exec.LookPath(p); err != nil {
			return p + " is missing"
		}
	}
	return ""
}

// start makes the namespace, starts the daemon and imports the image.
func (e *engine) start(image string) error {
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return err
	}
	e.network = e.world()
	up, err := e.network.StdoutPipe()
	if err != nil {
		return err
	}
	if err := e.network.Start(); err != nil {
		return err
	}
	if _, err := up.Read(make([]byte, 3)); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	// Not the machine's configuration; and podman's own default of limits is
	// above what some machines let root set.
	for name, text := range map[string]string{"daemon.json": e.config, "containers.conf": "[containers]\ndefault_ulimits = []\n"} {
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := e.begin(); err != nil {
		return err
	}
	tar, err := os.Open(image)
	if err != nil {
		return err
	}
	defer tar.Close()
	cmd := e.command(e.imported...)
	cmd.Stdin = tar
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing the image: %w: %s", err, out)
	}
	if out, err := e.command("run", "--rm", "busybox", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("the first run: %w: %s", err, out)
	}
	return nil
}

// begin starts the daemon and waits until it answers.
func (e *engine) begin() error {
	if e.daemon != nil {
		e.running = e.inside(e.daemon...)
		log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		e.running.Stdout, e.running.Stderr = log, log
		if err := e.running.Start(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for e.command("version").Run() != nil {
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not answer, see %s", filepath.Join(e.dir, "log"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// inside is a command in the engine's network namespace; nsenter executes it,
// so its process ID is the command's.
func (e *engine) inside(args ...string) *exec.Cmd {
	if e.tree != "" {
		return e.inTree(args...)
	}
	return exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(e.network.Process.Pid) + "/ns/net"}, args...)...)
}

// command is a client's command. With a daemon it needs no namespace, and so
// nothing of nsenter is measured.
func (e *engine) command(args ...string) *exec.Cmd {
	args = append(append([]string{}, e.client...), args...)
	if e.tree != "" {
		return e.inTree(args...)
	}
	if e.daemon == nil {
		cmd := e.inside(args...)
		cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(e.dir, "containers.conf"))
		return cmd
	}
	return exec.Command(args[0], args[1:]...)
}

// stop removes the containers and ends the daemon and its namespace.
func (e *engine) stop() {
	if e.daemon == nil { // its containers and their namespaces would stay
		_, _ = tryFor(crowdPatience, e.command("rm", "--all", "--force", "--time", "0"))
	} else {
		_ = e.command("rm", "-f", "steady").Run()
	}
	if e.running != nil {
		_ = e.running.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = e.running.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = e.running.Process.Kill()
			<-ended
		}
	}
	if e.network != nil && e.network.Process != nil {
		_ = e.network.Process.Kill()
		_ = e.network.Wait()
	}
	unmountBelow(e.dir)
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroup)
	for _, path := range left {
		_ = os.Remove(path)
	}
}

// cgroup is the parent of the control groups of tare's containers, which its
// daemon leaves for the next one.
const cgroup = "tare-bench"

// unmountBelow takes away mounts that an engine left, so that its directory
// can be removed.
func unmountBelow(dir string) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], dir) {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}

func (e *engine) versionText() string {
	out, err := e.command("version", "--format", "{{.Server.Version}}").Output()
	if err != nil { // an engine without a daemon
		if out, err = exec.Command(e.client[0], "--version").Output(); err != nil {
			return "unknown"
		}
	}
	return strings.TrimSpace(string(out))
}

// daemonMemory is the resident memory in MB of the daemon and of what it
// started but the containers, 0 without one.
func (e *engine) daemonMemory() float64 {
	if e.running == nil {
		return 0
	}
	time.Sleep(2 * time.Second) // let it come to rest
	total := 0.0
	others := map[int]bool{}
	for _, pid := range append([]int{e.running.Process.Pid}, childrenOf(e.running.Process.Pid)...) {
		// A process comes behind its parent.
		if others[pid] || strings.Contains(commandLine(pid), e.rule) {
			for _, below := range childrenOf(pid) {
				others[below] = true
			}
			continue
		}
		_, resident := memory(pid)
		total += resident
	}
	return total
}

// besides is the memory in MB, private and resident, of the processes that
// belong to the engine's one container and are not in it.
func (e *engine) besides(name string) (private, resident float64) {
	out, err := e.command("inspect", "--format", "{{.State.Pid}}", name).Output()
	if err != nil {
		return 0, 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, 0
	}
	return beside(pid, e.rule)
}

// beside is the memory of a container's supervising process, the parent of its
// first one.
func beside(pid int, rule string) (private, resident float64) {
	parent := parentOf(pid)
	if !strings.Contains(commandLine(parent), rule) {
		return 0, 0
	}
	return memory(parent)
}

func parentOf(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, ok := strings.Cut(string(data), ") ")
	if f := strings.Fields(after); ok && len(f) > 1 {
		ppid, _ := strconv.Atoi(f[1])
		return ppid
	}
	return 0
}

func childrenOf(pid int) []int {
	var list []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(word); err == nil {
				list = append(append(list, child), childrenOf(child)...)
			}
		}
	}
	return list
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(bytes.ReplaceAll(data, []byte{0}, []byte{' '}))
}

// memory reads smaps_rollup, proc(5): MB that only this process has, and all
// that it has in memory.
func memory(pid int) (private, resident float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		kb, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Private_Clean:", "Private_Dirty:":
			private += kb / 1024
		case "Rss:":
			resident = kb / 1024
		}
	}
	return private, resident
}
