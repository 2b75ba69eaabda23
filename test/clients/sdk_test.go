package clients

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// sdk is Docker's SDK for Go with the version that it and the daemon agree on.
func sdk(t *testing.T, o ...client.Opt) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Opt{client.FromEnv}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// must is for calls that cannot fail here.
func must[T any](result T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}

// made creates a container that the end of the test removes.
func made(t *testing.T, c *client.Client, o client.ContainerCreateOptions) string {
	t.Helper()
	if o.Config == nil {
		o.Config = &container.Config{}
	}
	o.Config.Image = "busybox"
	r, err := c.ContainerCreate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.ContainerRemove(context.Background(), r.ID, client.ContainerRemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
	return r.ID
}

func started(t *testing.T, c *client.Client, o client.ContainerCreateOptions) string {
	t.Helper()
	id := made(t, c, o)
	must(c.ContainerStart(t.Context(), id, client.ContainerStartOptions{}))(t)
	return id
}

// command is a container with nothing but a shell's command line.
func command(line string) client.ContainerCreateOptions {
	return client.ContainerCreateOptions{Config: &container.Config{Cmd: []string{"sh", "-c", line}}}
}

// said runs a command in the container and returns what it prints.
func said(t *testing.T, c *client.Client, id string, o client.ExecCreateOptions) (out, errOut string, code int) {
	t.Helper()
	o.AttachStdout, o.AttachStderr = true, true
	e := must(c.ExecCreate(t.Context(), id, o))(t)
	a := must(c.ExecAttach(t.Context(), e.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: o.ConsoleSize}))(t)
	defer a.Close()
	var b, eb bytes.Buffer
	var err error
	if o.TTY {
		_, err = io.Copy(&b, a.Reader)
	} else {
		_, err = stdcopy.StdCopy(&b, &eb, a.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := must(c.ExecInspect(t.Context(), e.ID, client.ExecInspectOptions{}))(t)
	if r.Running || r.ContainerID != id {
		t.Errorf("an exec that has ended: %+v", r)
	}
	return b.String(), eb.String(), r.ExitCode
}

// What is asked for at the creation is what the container has, and what it is told of.
func TestSDKCreate(t *testing.T) {
	c := sdk(t)
	dir := t.TempDir()
	port := network.MustParsePort("80/tcp")
	id := started(t, c, client.ContainerCreateOptions{
		Name: "full",
		Config: &container.Config{
			Hostname: "host", Domainname: "example.org", User: "7:8", Env: []string{"A=b"}, WorkingDir: "/work", Labels: map[string]string{"a": "b"},
			Entrypoint: []string{"sleep"}, Cmd: []string{"1000"}, StopSignal: "SIGKILL", ExposedPorts: network.PortSet{port: {}}, StopTimeout: new(int),
		},
		HostConfig: &container.HostConfig{
			Binds: []string{dir + ":/bound:ro"}, Mounts: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/scratch", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20}}},
			PortBindings: network.PortMap{port: {{HostIP: netip.MustParseAddr("127.0.0.1")}}}, RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2},
			CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"MKNOD"}, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ExtraHosts: []string{"far:192.0.2.2"},
			GroupAdd: []string{"9"}, ReadonlyRootfs: true, ShmSize: 2 << 20, Sysctls: map[string]string{"net.ipv4.ip_forward": "0"}, OomScoreAdj: 500,
			SecurityOpt: []string{"no-new-privileges"}, Init: &[]bool{true}[0],
			Resources: container.Resources{Memory: 64 << 20, NanoCPUs: 5e8, PidsLimit: &[]int64{50}[0], Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}},
		},
	})
	i := must(c.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{Size: true}))(t).Container
	if i.Name != "/full" || !i.State.Running || i.SizeRw == nil || *i.SizeRootFs < 100000 || i.HostConfig.Memory != 64<<20 || len(i.Mounts) != 2 {
		t.Errorf("inspect: %+v", i)
	}
	if b := i.NetworkSettings.Ports[port]; len(b) != 1 || b[0].HostPort == "" || b[0].HostIP.String() != "127.0.0.1" {
		t.Errorf("ports: %v", i.NetworkSettings.Ports)
	}
	out, errOut, code := said(t, c, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", `hostname; id -u; id -g; id -G; pwd; echo $A
		grep -c " /bound .*ro," /proc/mounts; df -k /scratch | awk 'END {print $2}'; df -k /dev/shm | awk 'END {print $2}'
		grep -c 192.0.2.1 /etc/resolv.conf; grep -c far /etc/hosts; ulimit -n; ulimit -Hn; touch /x 2>/dev/null || echo read-only
		cat /proc/sys/net/ipv4/ip_forward /proc/1/oom_score_adj; grep NoNewPrivs /proc/self/status | tr -d "\t"; head -c 17 /proc/1/cmdline | tr "\0" " "`}})
	want := "host\n7\n8\n8 9\n/work\nb\n1\n1024\n2048\n1\n1\n100\n200\nread-only\n0\n500\nNoNewPrivs:1\n/sbin/docker-init"
	if out != want || errOut != "" || code != 0 {
		t.Errorf("inside:\n%s\n%s (%d), want\n%s", out, errOut, code, want)
	}

	_, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: "full", Image: "busybox"})
	if !errdefs.IsConflict(err) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err = c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Image: "nobody/has:this"}); !errdefs.IsNotFound(err) {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err = c.ContainerInspect(t.Context(), "nobody", client.ContainerInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("a container that is not there: %v", err)
	}
}

// A container's states, and what waits for each.
func TestSDKStates(t *testing.T) {
	c := sdk(t)
	id := made(t, c, command("trap 'exit 3' TERM; while :; do sleep 0.01; done"))
	ctx := t.Context()
	next := c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	gone := c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if code := waited(t, c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})); code != 0 {
		t.Errorf("a created container is waited for: %d", code)
	}
	is := func(want container.ContainerState) {
		t.Helper()
		if i := must(c.ContainerInspect(ctx, id, client.ContainerInspectOptions{}))(t).Container; i.State.Status != want {
			t.Errorf("it is %s, want %s", i.State.Status, want)
		}
	}
	is(container.StateCreated)
	must(c.ContainerStart(ctx, id, client.ContainerStartOptions{}))(t)
	must(c.ContainerPause(ctx, id, client.ContainerPauseOptions{}))(t)
	is(container.StatePaused)
	if _, err := c.ContainerPause(ctx, id, client.ContainerPauseOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("paused again: %v", err)
	}
	must(c.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{}))(t)
	must(c.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: "other"}))(t)
	if top := must(c.ContainerTop(ctx, "other", client.ContainerTopOptions{Arguments: []string{"-o", "pid,comm"}}))(t); !slices.Equal(top.Titles, []string{"PID", "COMMAND"}) || len(top.Processes) == 0 {
		t.Errorf("top: %+v", top)
	}
	must(c.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 32 << 20, MemorySwap: 64 << 20}, RestartPolicy: &container.RestartPolicy{Name: "no"}}))(t)
	stats := must(c.ContainerStats(ctx, id, client.ContainerStatsOptions{IncludePreviousSample: true}))(t)
	var s container.StatsResponse
	if err := json.NewDecoder(stats.Body).Decode(&s); err != nil || s.MemoryStats.Limit != 32<<20 || s.ID != id || s.Name != "/other" && s.Name != "other" ||
		s.PreCPUStats.SystemUsage == 0 || s.CPUStats.CPUUsage.TotalUsage <= s.PreCPUStats.CPUUsage.TotalUsage || len(s.Networks) != 1 {
		t.Errorf("stats: %+v, %v", s, err)
	}
	stats.Body.Close()
	// The shell has set its trap when it answers at all: it was measured twice.
	must(c.ContainerStop(ctx, id, client.ContainerStopOptions{}))(t)
	is(container.StateExited)
	if code := waited(t, next); code != 3 {
		t.Errorf("its exit code is %d", code)
	}
	must(c.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: new(int)}))(t)
	must(c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"}))(t)
	if code := waited(t, c.ContainerWait(ctx, id, client.ContainerWaitOptions{})); code != 137 {
		t.Errorf("killed: %d", code)
	}
	if _, err := c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"}); !errdefs.IsConflict(err) {
		t.Errorf("killed again: %v", err)
	}
	must(c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{}))(t)
	if code := waited(t, gone); code != 137 {
		t.Errorf("removed: %d", code)
	}
}

func waited(t *testing.T, w client.ContainerWaitResult) int64 {
	t.Helper()
	select {
	case r := <-w.Result:
		if r.Error != nil {
			t.Error(r.Error.Message)
		}
		return r.StatusCode
	case err := <-w.Error:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing ends the wait")
	}
	return -1
}

// The streams: attach with input, execs of both kinds, the log by time.
func TestSDKStreams(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	id := made(t, c, client.ContainerCreateOptions{
		Config:     &container.Config{Cmd: []string{"sh", "-c", "read a; echo out $a; echo err $a >&2; exec sleep 1000"}, OpenStdin: true, StdinOnce: true, Labels: map[string]string{"of": "us"}},
		HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"labels": "of"}}},
	})
	a := must(c.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true}))(t)
	defer a.Close()
	if kind, ok := a.MediaType(); !ok || kind != "application/vnd.docker.multiplexed-stream" {
		t.Errorf("attach answers %q", kind)
	}
	before := time.Now()
	must(c.ContainerStart(ctx, id, client.ContainerStartOptions{}))(t)
	if _, err := io.WriteString(a.Conn, "word\n"); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var log string
	read := func(o client.ContainerLogsOptions) (string, string) {
		t.Helper()
		o.ShowStdout, o.ShowStderr = true, true
		l := must(c.ContainerLogs(ctx, id, o))(t)
		defer l.Close()
		var out, errOut bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errOut, l); err != nil {
			t.Error(err)
		}
		return out.String(), errOut.String()
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log, "err word") && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_, log = read(client.ContainerLogsOptions{})
	}
	if out, errOut := read(client.ContainerLogsOptions{Details: true}); out != "of=us out word\n" || errOut != "of=us err word\n" {
		t.Errorf("the log is %q and %q", out, errOut)
	}
	stamp := func(at time.Time) string {
		return strconv.FormatFloat(float64(at.UnixNano())/1e9, 'f', 9, 64)
	}
	if out, errOut := read(client.ContainerLogsOptions{Since: stamp(time.Now().Add(time.Minute))}); out+errOut != "" {
		t.Errorf("since: %q", out+errOut)
	}
	if out, errOut := read(client.ContainerLogsOptions{Until: stamp(before)}); out+errOut != "" {
		t.Errorf("until: %q", out+errOut)
	}
	if out, _ := read(client.ContainerLogsOptions{Timestamps: true, Since: stamp(before), Until: stamp(time.Now()), Tail: "all"}); !strings.HasSuffix(out, "Z out word\n") {
		t.Errorf("between: %q", out)
	}

	e := must(c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat; echo end >&2; exit 5"}, AttachStdin: true, AttachStdout: true, AttachStderr: true}))(t)
	x := must(c.ExecAttach(ctx, e.ID, client.ExecAttachOptions{}))(t)
	defer x.Close()
	if _, err := io.WriteString(x.Conn, "through"); err != nil {
		t.Fatal(err)
	}
	if err := x.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errOut, x.Reader); err != nil || out.String() != "through" || errOut.String() != "end\n" {
		t.Errorf("exec: %q and %q, %v", out.String(), errOut.String(), err)
	}
	if r := must(c.ExecInspect(ctx, e.ID, client.ExecInspectOptions{}))(t); r.ExitCode != 5 {
		t.Errorf("exec ended with %d", r.ExitCode)
	}
	if out, _, code := said(t, c, id, client.ExecCreateOptions{Cmd: []string{"stty", "size"}, TTY: true, ConsoleSize: client.ConsoleSize{Height: 33, Width: 44}}); out != "33 44\r\n" || code != 0 {
		t.Errorf("on a terminal: %q, %d", out, code)
	}
	d := must(c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"touch", "/detached"}}))(t)
	must(c.ExecStart(ctx, d.ID, client.ExecStartOptions{Detach: true}))(t)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/detached"}); err == nil {
			break
		} else if !errdefs.IsNotFound(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	must(c.ContainerKill(ctx, id, client.ContainerKillOptions{}))(t)
	var first, second bytes.Buffer
	if _, err := stdcopy.StdCopy(&first, &second, a.Reader); err != nil || first.String() != "out word\n" || second.String() != "err word\n" {
		t.Errorf("attached: %q and %q, %v", first.String(), second.String(), err)
	}
}

// Files there and back.
func TestSDKFiles(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	id := made(t, c, command("true"))
	var sent bytes.Buffer
	w := tar.NewWriter(&sent)
	if err := w.WriteHeader(&tar.Header{Name: "dir/file", Mode: 0o640, Uid: 5, Gid: 6, Size: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "bytes"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	must(c.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/tmp", Content: &sent, CopyUIDGID: true}))(t)
	back := must(c.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/tmp/dir/file"}))(t)
	defer back.Content.Close()
	r := tar.NewReader(back.Content)
	h := must(r.Next())(t)
	if text, err := io.ReadAll(r); err != nil || string(text) != "bytes" || h.Name != "file" || h.Mode != 0o640 || back.Stat.Size != 5 || back.Stat.Name != "file" {
		t.Errorf("back come %q, %+v, %+v, %v", text, h, back.Stat, err)
	}
	if _, err := c.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/nowhere"}); !errdefs.IsNotFound(err) {
		t.Errorf("a path that is not there: %v", err)
	}
	if diff := must(c.ContainerDiff(ctx, id, client.ContainerDiffOptions{}))(t); !slices.Contains(diff.Changes, container.FilesystemChange{Kind: container.ChangeAdd, Path: "/tmp/dir/file"}) {
		t.Errorf("diff: %v", diff.Changes)
	}
}

// Lists, what they are filtered by, events, prune, and what all of it takes of the disk.
func TestSDKSystem(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	listen, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Events(listen, client.EventsListOptions{Filters: make(client.Filters).Add("type", "container").Add("label", "group=one")})
	o := command("echo xxxx >/file")
	o.Config.Labels = map[string]string{"group": "one"}
	id := started(t, c, o)
	waited(t, c.ContainerWait(ctx, id, client.ContainerWaitOptions{}))
	for _, want := range []string{"create", "start", "die"} {
		select {
		case m := <-events.Messages:
			if string(m.Action) != want || m.Actor.ID != id || m.Actor.Attributes["image"] != "busybox" {
				t.Errorf("event %+v, want %s", m, want)
			}
		case err := <-events.Err:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
	cancel()
	past := c.Events(ctx, client.EventsListOptions{Since: "10m", Until: strconv.FormatInt(time.Now().Unix()+1, 10), Filters: make(client.Filters).Add("container", id).Add("event", "die")})
	if m := <-past.Messages; m.Actor.Attributes["exitCode"] != "0" {
		t.Errorf("a past event: %+v", m)
	}
	if err := <-past.Err; err != io.EOF {
		t.Errorf("the end of past events: %v", err)
	}
	filters := make(client.Filters).Add("label", "group=one").Add("status", "exited").Add("exited", "0").Add("ancestor", "busybox")
	if l := must(c.ContainerList(ctx, client.ContainerListOptions{All: true, Size: true, Limit: 5, Filters: filters}))(t); len(l.Items) != 1 || l.Items[0].ID != id || l.Items[0].SizeRw != 5 || l.Items[0].State != "exited" {
		t.Errorf("list: %+v", l)
	}
	if l := must(c.ContainerList(ctx, client.ContainerListOptions{}))(t); len(l.Items) != 0 {
		t.Errorf("running: %+v", l)
	}
	if u := must(c.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, Verbose: true}))(t); u.Containers.TotalCount != 1 || u.Containers.Reclaimable != 5 || len(u.Containers.Items) != 1 || u.Images.TotalCount == 0 || u.Images.TotalSize == 0 {
		t.Errorf("usage: %+v", u)
	}
	if p := must(c.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: make(client.Filters).Add("label", "group=one")}))(t); !slices.Equal(p.Report.ContainersDeleted, []string{id}) || p.Report.SpaceReclaimed != 5 {
		t.Errorf("prune: %+v", p)
	}
	if i := must(c.Info(ctx, client.InfoOptions{}))(t).Info; i.OSType != "linux" || i.Containers != 0 || i.Images == 0 || !i.MemoryLimit {
		t.Errorf("info: %+v", i)
	}
}

// The version that both know is used, whichever the client wants.
func TestSDKVersions(t *testing.T) {
	c := sdk(t)
	ping := must(c.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true}))(t)
	if ping.OSType != "linux" || ping.APIVersion == "" || c.ClientVersion() > ping.APIVersion {
		t.Errorf("ping: %+v, the client speaks %s", ping, c.ClientVersion())
	}
	for _, v := range []string{"1.44", "1.47", "1.51", "1.52", c.ClientVersion()} {
		old := sdk(t, client.WithAPIVersion(v))
		id := started(t, old, client.ContainerCreateOptions{Config: &container.Config{Cmd: []string{"sleep", "1000"}}})
		i := must(old.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{}))(t).Container
		if !i.State.Running || !i.NetworkSettings.Networks["bridge"].IPAddress.IsValid() {
			t.Errorf("%s: %+v", v, i)
		}
		if u := must(old.DiskUsage(t.Context(), client.DiskUsageOptions{Containers: true}))(t); u.Containers.TotalCount == 0 || u.Containers.ActiveCount != 1 {
			t.Errorf("%s: usage %+v", v, u)
		}
		must(old.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true}))(t)
	}
	if _, err := sdk(t, client.WithAPIVersion("1.99")).Info(t.Context(), client.InfoOptions{}); err == nil || !strings.Contains(err.Error(), "too new") {
		t.Errorf("a version of the future: %v", err)
	}
}
