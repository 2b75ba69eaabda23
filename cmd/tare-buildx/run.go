package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	tare "github.com/tarehq/tare/client"
)

// calls are the questions that a front end answers in place of a build.
var calls = map[string]string{"check": "frontend.lint", "lint": "frontend.lint", "outline": "frontend.outline", "targets": "frontend.targets"}

func (r *request) run(ctx context.Context, s *command.Session) error {
	daemon, err := s.Client()
	if err != nil {
		return err
	}
	for _, path := range []string{r.iidfile, r.metadata} { // one that an earlier build wrote would be taken for this one's
		if path != "" {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	o, done, err := r.options(s, daemon.Host())
	defer done()
	if err != nil {
		return err
	}
	c, err := connect(ctx, daemon)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := hostGateway(ctx, c, o.FrontendAttrs); err != nil {
		return err
	}
	if id, asks := calls[r.call]; asks {
		return r.ask(ctx, c, o, id)
	}
	if r.call != "build" && r.call != "" {
		return fmt.Errorf("invalid method %q: say build, check, outline or targets", r.call)
	}
	if o.Exports, err = r.exports(); err != nil {
		return err
	}
	resp, err := r.solve(ctx, c, o)
	if err != nil {
		return err
	}
	return r.tell(resp.ExporterResponse, o.Ref)
}

// windowSize is what may be on its way in one direction, in bytes. One that is fixed
// keeps gRPC from measuring the way, which takes a ping for each message.
const windowSize = 4 << 20

// connect has BuildKit's services on one connection, and what is lent on another, as
// buildx has: within one, each message of the session would be one of a stream.
func connect(ctx context.Context, daemon *tare.Client) (*client.Client, error) {
	return client.New(ctx, "passthrough:///tare",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return upgraded(daemon.Upgrade(ctx, "/grpc", "h2c", nil))
		}),
		client.WithSessionDialer(func(ctx context.Context, protocol string, meta map[string][]string) (net.Conn, error) {
			var header [][2]string
			for name, values := range meta {
				for _, value := range values {
					header = append(header, [2]string{name, value})
				}
			}
			return upgraded(daemon.Upgrade(ctx, "/session", protocol, header))
		}),
		client.WithGRPCDialOption(grpc.WithInitialWindowSize(windowSize)), client.WithGRPCDialOption(grpc.WithInitialConnWindowSize(windowSize)))
}

func upgraded(stream *tare.Stream, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return wire{stream}, nil
}

// hostGateway has host-gateway among the hosts be the address that the builder says.
func hostGateway(ctx context.Context, c *client.Client, attrs map[string]string) error {
	hosts := strings.Split(attrs["add-hosts"], ",")
	for i, text := range hosts {
		name, found := strings.CutSuffix(text, "=host-gateway")
		if !found {
			continue
		}
		workers, err := c.ListWorkers(ctx)
		if err != nil {
			return err
		}
		address := ""
		for _, w := range workers {
			address = cmp.Or(address, w.Labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"])
		}
		if address == "" {
			return errors.New("unable to derive the IP value for host-gateway: the builder does not say it")
		}
		hosts[i] = name + "=" + address
	}
	if attrs["add-hosts"] != "" {
		attrs["add-hosts"] = strings.Join(hosts, ",")
	}
	return nil
}

// options is the request as BuildKit's client takes it.
func (r *request) options(s *command.Session, host string) (o client.SolveOpt, done func(), err error) {
	o = client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{}, Ref: identity.NewID()}
	if done, err = r.lend(s.In, &o); err != nil {
		return o, done, err
	}
	if abs, err := filepath.Abs(r.place); err == nil { // files that are lent again are known by it
		o.SharedKey = digest.FromString(strconv.Itoa(os.Getuid()) + "\x00" + abs).Encoded()
	}
	if err := r.attributes(s, host, &o); err != nil {
		return o, done, err
	}
	if err := r.attestations(o.FrontendAttrs); err != nil {
		return o, done, err
	}
	if err := r.named(&o); err != nil {
		return o, done, err
	}
	o.Session = append(o.Session, &logins{file: s.Config()})
	secrets, err := build.ParseSecret(r.secrets)
	if err != nil {
		return o, done, err
	}
	o.Session = append(o.Session, secrets)
	if len(r.ssh) > 0 {
		agents, err := build.ParseSSH(r.ssh)
		if err != nil {
			return o, done, err
		}
		agent, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return o, done, err
		}
		o.Session = append(o.Session, agent)
	}
	if o.CacheImports, err = build.ParseImportCache(r.cacheFrom); err == nil {
		o.CacheExports, err = build.ParseExportCache(r.cacheTo)
	}
	return o, done, err
}

// solve builds, and shows what happens.
func (r *request) solve(ctx context.Context, c *client.Client, o client.SolveOpt) (resp *client.SolveResponse, err error) {
	mode := progressui.DisplayMode(r.progress)
	switch {
	case r.quiet, r.progress == "none":
		mode = progressui.QuietMode
	}
	display, err := progressui.NewDisplay(os.Stderr, mode)
	if err != nil {
		return nil, err
	}
	what := make(chan *client.SolveStatus)
	var both errgroup.Group
	both.Go(func() error {
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), what) // until it is closed: what went wrong is shown, too
		return err
	})
	resp, err = c.Solve(ctx, nil, o, what)
	if e := both.Wait(); err == nil {
		err = e
	}
	return resp, err
}

// ask prints the front end's answer.
func (r *request) ask(ctx context.Context, c *client.Client, o client.SolveOpt, id string) error {
	o.FrontendAttrs["requestid"], o.FrontendAttrs["frontend.caps"] = id, "moby.buildkit.frontend.subrequests"
	attrs, front := o.FrontendAttrs, o.Frontend
	o.Frontend, o.FrontendAttrs = "", nil
	var answer map[string][]byte
	_, err := c.Build(ctx, o, "tare-buildx", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: front, FrontendOpt: attrs})
		if err == nil {
			answer = res.Metadata
		}
		return res, err
	}, nil)
	if err != nil {
		return err
	}
	if text := answer["result.txt"]; len(text) > 0 {
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	} else if id == calls["check"] {
		fmt.Println("Check complete, no warnings found.")
	}
	if code := string(answer["result.statuscode"]); code != "" && code != "0" {
		n, err := strconv.Atoi(code)
		if err != nil {
			return err
		}
		return &command.Exit{Code: n}
	}
	return nil
}

// tell writes what is known of the result where that is asked for.
func (r *request) tell(result map[string]string, ref string) error {
	id := result["containerimage.digest"]
	if r.iidfile != "" {
		if err := os.WriteFile(r.iidfile, []byte(id), 0o644); err != nil {
			return err
		}
	}
	if r.metadata != "" {
		facts := map[string]any{"buildx.build.ref": "default/default/" + ref}
		for key, value := range result {
			facts[key] = value
			if data, err := base64.StdEncoding.DecodeString(value); err == nil && json.Valid(data) && len(data) > 1 {
				facts[key] = json.RawMessage(data)
			}
		}
		data, err := json.MarshalIndent(facts, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(r.metadata, data, 0o644); err != nil {
			return err
		}
	}
	if r.quiet && id != "" {
		fmt.Println(id)
	}
	return nil
}

// logins lends what config.json has of registries.
type logins struct {
	auth.UnimplementedAuthServer
	file *config.File
}

func (l *logins) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

func (l *logins) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.Host
	if host == "registry-1.docker.io" || host == config.DockerHub {
		host = "docker.io"
	}
	c, err := l.file.Credentials(config.ServerKey(host))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if c.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: c.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: c.Username, Secret: c.Password}, nil
}

// wire is a connection to the daemon, on which nobody sets deadlines.
type wire struct{ *tare.Stream }

func (wire) LocalAddr() net.Addr              { return address{} }
func (wire) RemoteAddr() net.Addr             { return address{} }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

func (address) Network() string { return "tare" }
func (address) String() string  { return "tared" }
