package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestDefaults looks inside a container for all that the daemon gives to those
// that ask for nothing else.
func TestDefaults(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t, "--default-ulimit", "nofile=123:456", "--default-ulimit", "core=0", "--default-shm-size", "8m", "--init", "--no-new-privileges",
		"--default-cgroupns-mode", "host", "--dns", "192.0.2.1", "--dns-opt", "ndots:7", "--dns-search", "search.example", "--ip", "127.0.0.1",
		"--host-gateway-ip", "192.0.2.8", "--host-gateway-ip", "2001:db8::8", "--oom-score-adjust", "100")
	profile := d.Dir + "/seccomp.json"
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Dir+"/daemon.json", []byte(`{"seccomp-profile": "`+profile+`", "proxies": {"http-proxy": "http://user:secret@proxy:1"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	d.ImportBusybox(t)
	out := d.Tare(t, "run", "--rm", "--add-host", "gw:host-gateway", "busybox", "sh", "-c", `
		ulimit -n; ulimit -Hn; df -m /dev/shm | awk 'NR==2 {print $2}'; cat /proc/1/comm; grep NoNewPrivs /proc/self/status
		cat /etc/resolv.conf; grep gw /etc/hosts; readlink /proc/self/ns/cgroup; mkdir /x 2>&1; cat /proc/self/oom_score_adj`)
	host, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	want := "123\n456\n8\ndocker-init\nNoNewPrivs:\t1\nnameserver 192.0.2.1\nsearch search.example\noptions ndots:7\n192.0.2.8\tgw\n2001:db8::8\tgw\n" +
		host + "\nmkdir: can't create directory '/x': Operation not supported\n0"
	if out != want {
		t.Errorf("in a container:\n%s\nwant\n%s", out, want)
	}
	if score, err := os.ReadFile("/proc/" + strconv.Itoa(d.Pid()) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(score)) != "100" {
		t.Errorf("oom_score_adj of the daemon: %s %v", score, err)
	}
	// What the container asks for itself counts.
	out = d.Tare(t, "run", "--rm", "--ulimit", "nofile=50:60", "--shm-size", "16m", "--init=false", "--security-opt", "no-new-privileges=false", "--security-opt", "seccomp=builtin",
		"--cgroupns", "private", "--dns", "192.0.2.2", "busybox", "sh", "-c", `ulimit -n; df -m /dev/shm | awk 'NR==2 {print $2}'; cat /proc/1/comm; grep NoNewPrivs /proc/self/status; grep nameserver /etc/resolv.conf; mkdir /x; readlink /proc/self/ns/cgroup`)
	if lines := strings.Split(out, "\n"); strings.Join(lines[:5], " ") != "50 16 sh NoNewPrivs:\t0 nameserver 192.0.2.2" || len(lines) != 6 || lines[5] == host {
		t.Errorf("in one that asks:\n%s", out)
	}
	d.Tare(t, "run", "-d", "--name", "port", "-p", "80", "busybox", "sleep", "1000")
	if out := d.Tare(t, "inspect", "--format", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostIp}} {{(index .HostConfig.Ulimits 1).Name}} {{.HostConfig.ShmSize}}`, "port"); out != "127.0.0.1 nofile 8388608" {
		t.Error(out)
	}
	if out := d.Tare(t, "exec", "port", "sh", "-c", "grep NoNewPrivs /proc/self/status; mkdir /x 2>&1; ulimit -n"); out != "NoNewPrivs:\t1\nmkdir: can't create directory '/x': Operation not supported\n123" {
		t.Errorf("in an exec: %s", out)
	}
	out = d.Tare(t, "info", "--format", "{{.HTTPProxy}} {{.SecurityOptions}} {{.Warnings}}")
	if !strings.HasPrefix(out, "http://xxxxx:xxxxx@proxy:1 [name=seccomp,profile="+profile+" name=no-new-privileges] ") || !strings.Contains(out, "daemon is not using the default seccomp profile") {
		t.Error(out)
	}
}

// TestReload changes the configuration of a daemon that runs.
func TestReload(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t, "--label", "flag=1")
	d.ImportBusybox(t)
	events := d.Command(t, "tare", "events", "--filter", "type=daemon", "--format", "{{json .}}")
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = events.Process.Kill(); _ = events.Wait() }()
	lines := bufio.NewScanner(out)
	testutil.Eventually(t, 10*time.Second, "somebody listens to the events", func() bool { return d.Tare(t, "info", "--format", "{{.NEventsListener}}") == "1" })

	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(d.Dir+"/daemon.json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(d.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	// A bad file changes nothing, and is told.
	write(`{"debug": true, "colour": "red"}`)
	testutil.Eventually(t, 10*time.Second, "the refusal is told", func() bool {
		return strings.Contains(d.Log(), "the configuration cannot be reloaded and stays as it is") && strings.Contains(d.Log(), "don't match any configuration option: colour")
	})
	write(`{"labels": ["file=2"]}`)
	testutil.Eventually(t, 10*time.Second, "so is a key that a flag has set", func() bool {
		return strings.Contains(d.Log(), "labels: (from flag: [flag=1], from file: [file=2])")
	})
	if out := d.Tare(t, "info", "--format", "{{.Debug}} {{.Labels}} {{.LiveRestoreEnabled}}"); out != "false [flag=1] true" {
		t.Errorf("after bad files: %s", out)
	}

	write(`{"debug": true, "live-restore": false, "shutdown-timeout": 7, "default-shm-size": "4m", "registry-mirrors": ["http://mirror.example"], "insecure-registries": ["reg.example"],
		"max-concurrent-downloads": 9, "runtimes": {"other": {"path": "/bin/false"}}, "features": {"buildkit": false}, "mtu": 1400}`)
	if !lines.Scan() {
		t.Fatal("the events ended")
	}
	var event struct {
		Type, Action string
		Actor        struct {
			ID         string
			Attributes map[string]string
		}
	}
	if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"debug": "true", "live-restore": "false", "shutdown-timeout": "7", "default-shm-size": "4194304", "registry-mirrors": `["http://mirror.example/"]`, "insecure-registries": `["reg.example"]`,
		"max-concurrent-downloads": "9", "max-concurrent-uploads": "5", "max-download-attempts": "5", "labels": `["flag=1"]`, "features": "map[buildkit:false]",
		"default-runtime": "tarerun", "default-ipc-mode": "private", "default-cgroupns-mode": "private",
	} {
		if got := event.Actor.Attributes[key]; got != want {
			t.Errorf("the event's %s is %q, want %q", key, got, want)
		}
	}
	if got := event.Actor.Attributes["runtimes"]; !strings.Contains(got, "other:/bin/false") || !strings.Contains(got, "tarerun:") { // and those of the machine
		t.Errorf("the event's runtimes are %q", got)
	}
	if event.Type != "daemon" || event.Action != "reload" || event.Actor.ID != d.Tare(t, "info", "--format", "{{.ID}}") || event.Actor.Attributes["name"] == "" {
		t.Errorf("%+v", event)
	}
	if out := d.Tare(t, "info", "--format", "{{.Debug}} {{.LiveRestoreEnabled}} {{.RegistryConfig.Mirrors}} {{(index .Runtimes \"other\").path}}"); out != "true false [http://mirror.example/] /bin/false" {
		t.Errorf("after the reload: %s", out)
	}
	if !strings.Contains(d.Log(), "options=[mtu]") {
		t.Errorf("what cannot change is not told:\n%s", d.Log())
	}
	if out := d.Tare(t, "run", "--rm", "busybox", "sh", "-c", "df -m /dev/shm | awk 'NR==2 {print $2}'"); out != "4" {
		t.Errorf("/dev/shm has %s MiB", out)
	}
	if _, err := d.Try("run", "--rm", "--runtime", "other", "busybox", "true"); err == nil || strings.Contains(err.Error(), "unknown or invalid runtime name") {
		t.Errorf("the new runtime: %v", err)
	}
	d.Tare(t, "create", "--name", "stays", "--runtime", "other", "busybox", "true")
	write(`{}`) // live-restore again, for the end of the test
	if !lines.Scan() {
		t.Fatal("the events ended")
	}
	if _, err := d.Try("start", "stays"); err == nil || !strings.Contains(err.Error(), "unknown or invalid runtime name: other") {
		t.Errorf("a runtime that is no more: %v", err)
	}
}

// TestShutdown stops the containers with the daemon; the next one starts those
// that their policy wants.
func TestShutdown(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t, "--live-restore=false", "--shutdown-timeout", "1")
	d.ImportBusybox(t)
	const obeys = `trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done`
	run := func(name string, args ...string) { // until it has its trap
		d.Tare(t, append([]string{"run", "-d", "--name", name}, args...)...)
		testutil.Eventually(t, 10*time.Second, name+" is ready", func() bool { return strings.Contains(d.Tare(t, "logs", name), "ready") })
	}
	run("plain", "busybox", "sh", "-c", obeys)
	run("always", "--restart", "always", "busybox", "sh", "-c", obeys)
	run("unless", "--restart", "unless-stopped", "busybox", "sh", "-c", obeys)
	run("failure", "--restart", "on-failure", "busybox", "sh", "-c", obeys)
	run("deaf", "--stop-timeout", "1", "busybox", "sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.1; done`)
	run("halted", "--restart", "unless-stopped", "busybox", "sh", "-c", obeys)
	run("gone", "--rm", "busybox", "sh", "-c", obeys)
	run("frozen", "busybox", "sh", "-c", obeys)
	d.Tare(t, "pause", "frozen")
	d.Tare(t, "stop", "halted")
	pids := map[string]string{}
	for _, name := range []string{"plain", "always", "deaf", "gone"} {
		pids[name] = d.Tare(t, "inspect", "--format", "{{.State.Pid}}", name)
	}
	d.Signal(t, syscall.SIGTERM)
	for name, pid := range pids {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("%s outlives the daemon", name)
		}
	}
	d.Up(t)
	status := func(name string) string {
		out, err := d.Try("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name)
		if err != nil {
			return "none"
		}
		return out
	}
	for name, want := range map[string]string{
		"plain": "exited 5 0", "frozen": "exited 5 0", "deaf": "exited 137 0", "halted": "exited 5 0", "gone": "none",
		"always": "running 0 0", "unless": "running 0 0", "failure": "running 0 0",
	} {
		testutil.Eventually(t, 10*time.Second, name+" is "+want, func() bool { return status(name) == want })
	}
}

// TestReboot starts a daemon on what a boot left that is over: the directories
// of the containers' runs are there, and their processes are not.
func TestReboot(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	names := []string{"plain", "always", "unless", "halted", "gone"}
	for name, args := range map[string][]string{
		"plain": nil, "always": {"--restart", "always"}, "unless": {"--restart", "unless-stopped"}, "halted": {"--restart", "unless-stopped"}, "gone": {"--rm"},
	} {
		d.Tare(t, append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "1000")...)
	}
	d.Tare(t, "kill", "halted")
	testutil.Eventually(t, 10*time.Second, "it has ended", func() bool { return d.Tare(t, "inspect", "--format", "{{.State.Running}}", "halted") == "false" })
	var pids []string
	for _, name := range names {
		if name != "halted" {
			pids = append(pids, d.Tare(t, "inspect", "--format", "{{.State.Pid}}", name))
		}
	}
	d.Signal(t, syscall.SIGKILL)
	for _, pid := range pids { // the supervising process first, so that nobody writes down the end
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		keeper, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))[2])
		if err != nil {
			t.Fatal(err)
		}
		first, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(keeper, syscall.SIGKILL)
		_ = syscall.Kill(first, syscall.SIGKILL)
	}
	testutil.Eventually(t, 10*time.Second, "their cgroups are gone, as a boot begins without any", func() bool {
		id := strings.Repeat("[0-9a-f]", 64)
		v1, _ := filepath.Glob("/sys/fs/cgroup/*" + d.Cgroup + "/" + id)
		v2, _ := filepath.Glob("/sys/fs/cgroup" + d.Cgroup + "/" + id)
		for _, dir := range append(v1, v2...) {
			_ = os.Remove(dir)
		}
		return len(v1)+len(v2) == 0
	})
	d.Use(anotherBoot(t, d))
	d.Up(t)
	status := func(name string) string {
		out, err := d.Try("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name)
		if err != nil {
			return "none"
		}
		return out
	}
	for name, want := range map[string]string{"plain": "exited 255", "always": "running 0", "unless": "running 0", "halted": "exited 137", "gone": "none"} {
		testutil.Eventually(t, 10*time.Second, name+" is "+want, func() bool { return status(name) == want })
	}
}

// anotherBoot gives a directory of programs whose daemon sees another boot ID,
// random(4), in a mount namespace of its own.
func anotherBoot(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	dir := d.Dir + "/boot"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	id := dir + "/boot_id"
	script := "#!/bin/sh\nexec unshare -m --propagation slave sh -c 'mount --bind " + id + " /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"' " + d.Program("tared") + ` "$@"` + "\n"
	if err := os.WriteFile(id, []byte("11111111-2222-4333-8444-555555555555\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tared", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(d.Program("tare"), dir+"/tare"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMetrics reads what Prometheus would of a daemon that has done something.
func TestMetrics(t *testing.T) {
	testutil.RequireRoot(t)
	address := freeAddress(t)
	d := daemon.Start(t, "--metrics-addr", address)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "lives", "busybox", "sleep", "1000")
	d.Tare(t, "run", "--rm", "busybox", "true")
	d.Tare(t, "run", "-d", "--name", "ill", "--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1", "busybox", "sleep", "1000")
	testutil.Eventually(t, 10*time.Second, "its check fails", func() bool { return d.Tare(t, "inspect", "--format", "{{.State.Health.Status}}", "ill") == "unhealthy" })
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%v %v", resp, err)
	}
	for _, want := range []string{
		"engine_daemon_container_states_containers{state=\"running\"} 2\n", "engine_daemon_container_actions_seconds_count{action=\"start\"} 3\n",
		"engine_daemon_container_actions_seconds_bucket{action=\"create\",le=\"+Inf\"} 3\n", "engine_daemon_image_actions_seconds_count{action=\"pull\"} 0\n",
		"engine_daemon_engine_info{architecture=", "engine_daemon_events_subscribers_total 0\n", "# TYPE engine_daemon_events_total counter\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, counter := range []string{"engine_daemon_events_total", "engine_daemon_health_checks_total", "engine_daemon_health_checks_failed_total"} {
		if !strings.Contains(string(text), "\n"+counter+" ") || strings.Contains(string(text), "\n"+counter+" 0\n") {
			t.Errorf("%s counts nothing:\n%s", counter, text)
		}
	}
}

// freeAddress is one of this machine at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
