package buildkit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/crypto/ssh/agent"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// end closes itself for those who want that.
type end struct{ io.Writer }

func (end) Close() error { return nil }

// TestContainer has a client make containers on results, run processes there and
// look at their files.
func TestContainer(t *testing.T) {
	_, c := builder(t)
	ch, told := output()
	o := client.SolveOpt{Session: []session.Attachable{secretsprovider.FromMap(map[string][]byte{"s": []byte("hidden")})}}
	_, err := c.Build(t.Context(), o, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image("busybox").Run(llb.Shlex("sh -c 'mkdir -p /d/e && echo there > /d/e/f'")).Root().Marshal(ctx)
		if err != nil {
			return nil, err
		}
		r, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		box, err := g.NewContainer(ctx, gateway.NewContainerRequest{Hostname: "looking", ExtraHosts: []*pb.HostIP{{Host: "other", IP: "192.0.2.7"}}, Mounts: []gateway.Mount{
			{Dest: "/", Ref: r.Ref, MountType: pb.MountType_BIND},
			{Dest: "/seen", Ref: r.Ref, Selector: "/d", Readonly: true, MountType: pb.MountType_BIND},
			{Dest: "/kept", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "kept", Sharing: pb.CacheSharingOpt_SHARED}},
			{Dest: "/run/secrets/s", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "s"}},
			{Dest: "/passing", MountType: pb.MountType_TMPFS},
		}})
		if err != nil {
			return nil, err
		}
		inContainer(t, ctx, box)
		if err := box.Release(ctx); err != nil {
			t.Errorf("release: %v", err)
		}
		if _, err := box.ReadFile(ctx, gateway.ReadContainerRequest{ReadRequest: gateway.ReadRequest{Filename: "/d/e/f"}}); err == nil {
			t.Error("a container was read that is gone")
		}
		if _, err := g.NewContainer(ctx, gateway.NewContainerRequest{NetMode: pb.NetMode_HOST, Mounts: []gateway.Mount{{Dest: "/", Ref: r.Ref}}}); err == nil || !strings.Contains(err.Error(), "network.host is not allowed") {
			t.Errorf("the host's network: %v", err)
		}
		if _, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/seen", Ref: r.Ref}}}); err == nil || !strings.Contains(err.Error(), "root mount is required") {
			t.Errorf("without a root: %v", err)
		}
		return r, nil
	}, ch)
	if err != nil {
		t.Fatal(err, told())
	}
}

func inContainer(t *testing.T, ctx context.Context, box gateway.Container) {
	t.Helper()
	start := func(r gateway.StartRequest) (gateway.ContainerProcess, *bytes.Buffer) {
		var out bytes.Buffer
		r.Stdout = end{&out}
		p, err := box.Start(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return p, &out
	}
	// The first process is the container's, the others are beside it.
	in, lines := io.Pipe()
	first, said := start(gateway.StartRequest{Args: []string{"sh", "-c", "echo first >/passing/x; echo changed >/d/e/f; echo x >/kept/y; cat; exit 3"}, Stdin: in, Cwd: "/d"})
	p, out := start(gateway.StartRequest{Args: []string{"sh", "-c", "until [ -e /kept/y ]; do :; done; hostname; pwd; grep other /etc/hosts; cat /seen/e/f /run/secrets/s /passing/x /d/e/f; echo $V $S; id -u"}, Cwd: "/d/e",
		Env: []string{"V=value", "PATH=/bin"}, SecretEnv: []*pb.SecretEnv{{ID: "s", Name: "S"}}, User: "65534"})
	if err := p.Wait(); err != nil || out.String() != "looking\n/d/e\n192.0.2.7\tother\nthere\nfirst\nchanged\nvalue hidden\n65534\n" { // the secret's file is root's
		t.Errorf("%v: %s", err, out)
	}
	p, out = start(gateway.StartRequest{Args: []string{"sh", "-c", "cat /seen/e/f /run/secrets/s /passing/x /d/e/f; echo $V $S"}, Cwd: "/", Env: []string{"V=value", "PATH=/bin"}, SecretEnv: []*pb.SecretEnv{{ID: "s", Name: "S"}}})
	if err := p.Wait(); err != nil || out.String() != "there\nhiddenfirst\nchanged\nvalue hidden\n" {
		t.Errorf("%v: %q", err, out)
	}
	p, _ = start(gateway.StartRequest{Args: []string{"nosuch"}})
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a program that is not there: %v", err)
	}
	p, out = start(gateway.StartRequest{Args: []string{"sh", "-c", "trap 'stty size; exit 5' USR1; touch /ready; while :; do sleep 0.01; done"}, Tty: true})
	testutil.Eventually(t, 10*time.Second, "the trap is there", func() bool {
		_, err := box.StatFile(ctx, gateway.StatContainerRequest{StatRequest: gateway.StatRequest{Path: "/ready"}})
		return err == nil
	})
	if err := p.Resize(ctx, gateway.WinSize{Rows: 33, Cols: 77}); err != nil {
		t.Error(err)
	}
	var code *gatewaypb.ExitError
	_ = p.Signal(ctx, syscall.SIGUSR1)
	if err := p.Wait(); !errors.As(err, &code) || code.ExitCode != 5 || !strings.Contains(out.String(), "33 77") {
		t.Errorf("a terminal: %v %q", err, out)
	}
	// What is there is seen from outside, inside its root.
	read := func(mount int, name string) string {
		data, err := box.ReadFile(ctx, gateway.ReadContainerRequest{MountIndex: mount, ReadRequest: gateway.ReadRequest{Filename: name}})
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	if a, b, c := read(0, "/d/e/f"), read(1, "e/f"), read(2, "/y"); a != "changed\n" || b != "there\n" || c != "x\n" {
		t.Errorf("read were %q, %q, %q", a, b, c)
	}
	for mount, name := range map[int]string{0: "/proc/version", 1: "../../etc/passwd", 4: "x", 9: "x"} {
		if text := read(mount, name); strings.Contains(text, "root:") || strings.Contains(text, "Linux") || strings.Contains(text, "first") {
			t.Errorf("read was %d:%s: %s", mount, name, text)
		}
	}
	if list, err := box.ReadDir(ctx, gateway.ReadDirContainerRequest{ReadDirRequest: gateway.ReadDirRequest{Path: "/d"}}); err != nil || len(list) != 1 || list[0].Path != "e" {
		t.Errorf("listed %v, %v", list, err)
	}
	if st, err := box.StatFile(ctx, gateway.StatContainerRequest{StatRequest: gateway.StatRequest{Path: "/d/e/f"}}); err != nil || st.Size != 8 {
		t.Errorf("stat %v, %v", st, err)
	}
	_, _ = lines.Write([]byte("by hand"))
	lines.Close()
	if err := first.Wait(); !errors.As(err, &code) || code.ExitCode != 3 || said.String() != "by hand" {
		t.Errorf("the first: %v %q", err, said)
	}
	if text := read(0, "/d/e/f"); text != "changed\n" {
		t.Errorf("afterwards %q", text)
	}
}

// TestPlaceOfPrivileges has a process with all privileges change a container's place
// on the network: no later step has it.
func TestPlaceOfPrivileges(t *testing.T) {
	testutil.RequireRoot(t)
	config := t.TempDir() + "/daemon.json"
	if err := os.WriteFile(config, []byte(`{"builder": {"entitlements": {"security-insecure": true}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemon.Start(t, "--config-file", config)
	d.ImportBusybox(t)
	c := connect(t, d)
	o := client.SolveOpt{AllowedEntitlements: []string{"security.insecure"}}
	_, err := c.Build(t.Context(), o, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image("busybox").Marshal(ctx)
		if err != nil {
			return nil, err
		}
		r, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		box, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", Ref: r.Ref, MountType: pb.MountType_BIND}}})
		if err != nil {
			return nil, err
		}
		if _, err := box.Start(ctx, gateway.StartRequest{Args: []string{"sleep", "1000"}, Cwd: "/"}); err != nil {
			return nil, err
		}
		for _, x := range []gateway.StartRequest{{Args: []string{"ip", "addr", "add", "203.0.113.9/32", "dev", "lo"}, Cwd: "/", SecurityMode: pb.SecurityMode_INSECURE}, {Args: []string{"true"}, Cwd: "/"}} {
			p, err := box.Start(ctx, x)
			if err == nil {
				err = p.Wait()
			}
			if err != nil {
				return nil, err
			}
		}
		if err := box.Release(ctx); err != nil {
			return nil, err
		}
		if def, err = llb.Image("busybox").Run(llb.Shlex("sh -c 'ip addr; ! ip addr | grep 203.0.113.9'"), llb.IgnoreCache).Root().Marshal(ctx); err != nil {
			return nil, err
		}
		return g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// TestFailedStep has a client look at what a step that failed stood on.
func TestFailedStep(t *testing.T) {
	_, c := builder(t)
	_, err := c.Build(t.Context(), client.SolveOpt{}, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image("busybox").File(llb.Mkfile("/before", 0o644, []byte("there"))).Run(llb.Shlex("sh -c 'echo x >/during; exit 9'")).Root().Marshal(ctx)
		if err != nil {
			return nil, err
		}
		_, err = g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		var failed *errdefs.SolveError
		if !errors.As(err, &failed) || failed.Op.GetExec() == nil || len(failed.MountIDs) != 1 {
			t.Fatalf("the error is %v", err)
		}
		box, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", ResultID: failed.MountIDs[0], MountType: pb.MountType_BIND}}})
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		p, err := box.Start(ctx, gateway.StartRequest{Args: failed.Op.GetExec().Meta.Args, Cwd: "/", Stdout: end{&out}})
		if err != nil {
			return nil, err
		}
		var code *gatewaypb.ExitError
		if err := p.Wait(); !errors.As(err, &code) || code.ExitCode != 9 {
			t.Errorf("run once more: %v", err)
		}
		for name, want := range map[string]string{"/before": "there", "/during": "x\n"} {
			if data, err := box.ReadFile(ctx, gateway.ReadContainerRequest{ReadRequest: gateway.ReadRequest{Filename: name}}); err != nil || string(data) != want {
				t.Errorf("%s: %q %v", name, data, err)
			}
		}
		return gateway.NewResult(), box.Release(ctx)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// TestAgent has a step use the client's ssh agent.
func TestAgent(t *testing.T) {
	d, c := builder(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/agent")
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: key, Comment: "of the client"}); err != nil {
		t.Fatal(err)
	}
	go func() { // until the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	defer l.Close()
	provider, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{ID: "default", Paths: []string{dir + "/agent"}}})
	if err != nil {
		t.Fatal(err)
	}
	image(t, d, "example/asker", "./test/buildkit/testdata/asker")
	solve := func(file string, with ...session.Attachable) (string, error) {
		ch, told := output()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: files(t, map[string]string{"Dockerfile": file}), Session: with}, ch)
		return told(), err
	}
	if text, err := solve("FROM example/asker\nRUN --mount=type=ssh [\"/program\"]\n", provider); err != nil || !strings.Contains(text, "has a key: of the client") {
		t.Errorf("%v %s", err, text)
	}
	if text, err := solve("FROM example/asker\nRUN --mount=type=ssh,required=true [\"/program\"]\n"); err == nil || !strings.Contains(err.Error(), "no SSH key \"default\" forwarded from the client") {
		t.Errorf("without an agent: %v %s", err, text)
	}
	t.Run("of ssh's own", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM example/asker\nRUN --mount=type=ssh [\"/program\"]\nRUN --mount=type=ssh,id=second [\"/program\"]\n"})
		sock := dir + "/agent"
		for name, comment := range map[string]string{"held": "in the agent", "file": "in a file"} {
			if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", dir+"/"+name).CombinedOutput(); err != nil {
				t.Skipf("needs openssh-client: %v %s", err, out)
			}
		}
		agent := exec.Command("ssh-agent", "-D", "-a", sock)
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
		testutil.Eventually(t, testutil.Patience(10*time.Second), "the agent listens", func() bool { _, err := os.Stat(sock); return err == nil })
		add := exec.Command("ssh-add", "-q", dir+"/held")
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		cmd := d.Command(t, "tare", "build", "--no-cache", "--progress", "plain", "--ssh", "default", "--ssh", "second="+dir+"/file", dir)
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+sock)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "has a key: ") != 2 || !strings.Contains(string(out), "has a key: in the agent") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
