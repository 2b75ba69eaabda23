// Command tiny is a front end of a language with three instructions: FROM an
// image, RUN a command, FILE with a text. With the option "does" it does what a
// front end should not.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
)

func main() {
	if err := grpcclient.RunFromEnvironment(context.Background(), build); err != nil {
		fmt.Fprintln(os.Stderr, "tiny:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, c client.Client) (*client.Result, error) {
	o := c.BuildOpts()
	opts := o.Opts
	if err := o.LLBCaps.Supports(pb.CapExecMetaBase); err != nil {
		return nil, fmt.Errorf("no capabilities: %w", err)
	}
	if err := o.Caps.Supports(gatewaypb.CapReturnResult); err != nil {
		return nil, fmt.Errorf("no capabilities: %w", err)
	}
	if does := misdeeds[opts["build-arg:DOES"]]; does != nil {
		return does(ctx, c)
	}
	text, err := source(ctx, c, opts)
	if err != nil {
		return nil, err
	}
	state := llb.Scratch()
	for _, line := range strings.Split(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "FROM":
			state = llb.Image(rest)
		case "RUN":
			state = state.Run(llb.Args([]string{"/bin/sh", "-c", rest}), llb.WithCustomName("tiny: "+rest)).Root()
		case "FILE":
			name, content, _ := strings.Cut(rest, " ")
			state = state.File(llb.Mkfile(name, 0o644, []byte(content)))
		}
	}
	result, err := solve(ctx, c, state)
	if err != nil {
		return nil, err
	}
	result.AddMeta("containerimage.config", []byte(`{"architecture":"amd64","os":"linux","config":{"Labels":{"language":"tiny `+opts["build-arg:WHO"]+`"}}}`))
	return result, nil
}

// source is the file: of the inputs if there are some, or of the client's.
func source(ctx context.Context, c client.Client, opts map[string]string) ([]byte, error) {
	inputs, err := c.Inputs(ctx)
	if err != nil {
		return nil, err
	}
	state, found := inputs["dockerfile"]
	if !found {
		state = llb.Local("dockerfile", llb.SessionID(c.BuildOpts().SessionID), llb.SharedKeyHint("tiny"))
	}
	result, err := solve(ctx, c, state)
	if err != nil {
		return nil, err
	}
	ref, err := result.SingleRef()
	if err != nil {
		return nil, err
	}
	name := opts["filename"]
	if name == "" {
		name = "Dockerfile"
	}
	return ref.ReadFile(ctx, client.ReadRequest{Filename: name})
}

func solve(ctx context.Context, c client.Client, state llb.State) (*client.Result, error) {
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, client.SolveRequest{Definition: def.ToPB(), Evaluate: true})
}

var misdeeds = map[string]func(context.Context, client.Client) (*client.Result, error){
	"hang": func(context.Context, client.Client) (*client.Result, error) {
		fmt.Fprintln(os.Stderr, "tiny hangs")
		time.Sleep(time.Hour)
		return nil, nil
	},
	"linger": func(ctx context.Context, c client.Client) (*client.Result, error) {
		go func() { time.Sleep(time.Hour) }()
		return nil, errors.New("an error of its own")
	},
	"die": func(context.Context, client.Client) (*client.Result, error) {
		fmt.Fprintln(os.Stderr, "tiny has had enough")
		os.Exit(7)
		return nil, nil
	},
	"leave": func(context.Context, client.Client) (*client.Result, error) {
		os.Exit(0)
		return nil, nil
	},
	"babble": func(context.Context, client.Client) (*client.Result, error) {
		noise := make([]byte, 1<<20)
		for range 64 {
			os.Stdout.Write(noise)
		}
		time.Sleep(time.Hour)
		return nil, nil
	},
	"call itself": func(ctx context.Context, c client.Client) (*client.Result, error) {
		return c.Solve(ctx, client.SolveRequest{Frontend: "gateway.v0", FrontendOpt: c.BuildOpts().Opts})
	},
	"insecure": func(ctx context.Context, c client.Client) (*client.Result, error) {
		return solve(ctx, c, llb.Image("busybox").Run(llb.Shlex("true"), llb.Security(pb.SecurityMode_INSECURE)).Root())
	},
	"host": func(ctx context.Context, c client.Client) (*client.Result, error) {
		return solve(ctx, c, llb.Image("busybox").Run(llb.Shlex("true"), llb.Network(pb.NetMode_HOST)).Root())
	},
	"insecure container": func(ctx context.Context, c client.Client) (*client.Result, error) {
		result, err := solve(ctx, c, llb.Image("busybox"))
		if err != nil {
			return nil, err
		}
		box, err := c.NewContainer(ctx, client.NewContainerRequest{Mounts: []client.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: result.Ref}}})
		if err != nil {
			return nil, err
		}
		p, err := box.Start(ctx, client.StartRequest{Args: []string{"true"}, SecurityMode: pb.SecurityMode_INSECURE})
		if err != nil {
			return nil, err
		}
		return result, p.Wait()
	},
	"many containers": func(ctx context.Context, c client.Client) (*client.Result, error) {
		result, err := solve(ctx, c, llb.Image("busybox"))
		for range 100 {
			if err == nil {
				_, err = c.NewContainer(ctx, client.NewContainerRequest{NetMode: pb.NetMode_NONE, Mounts: []client.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: result.Ref}}})
			}
		}
		return result, err
	},
	"show": func(ctx context.Context, c client.Client) (*client.Result, error) {
		state := llb.Scratch()
		for name, path := range map[string]string{"/interfaces": "/proc/net/dev", "/status": "/proc/self/status", "/definition": "/run/config/buildkit/metadata/frontend.bin"} {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			state = state.File(llb.Mkfile(name, 0o644, text))
		}
		return solve(ctx, c, state)
	},
}
