package spec

import (
	"path"

	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec makes the process of an exec from the request and the container it
// runs in: its environment, its limits and, unless privileged, its
// capabilities.
func Exec(req *wire.ExecCreateRequest, in Input) (*specs.Process, error) {
	h := in.HostConfig
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged || req.Privileged)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(h.Ulimits, in.Files)
	if err != nil {
		return nil, err
	}
	opts, err := in.security()
	if err != nil {
		return nil, err
	}
	base := Env(in.env(), in.UTSName, in.User.Home, req.Tty)
	p := &specs.Process{
		Terminal:        req.Tty,
		User:            in.User.process(),
		Args:            req.Cmd,
		Env:             Override(base, req.Env),
		Cwd:             "/",
		Capabilities:    sets(caps, in.User.UID == 0),
		Rlimits:         limits,
		NoNewPrivileges: opts.noNewPrivileges,
	}
	in.confine(p)
	switch {
	case req.WorkingDir != "":
		p.Cwd = path.Clean(req.WorkingDir)
	case in.Config.WorkingDir != "":
		p.Cwd = path.Clean(in.Config.WorkingDir)
	}
	if size := req.ConsoleSize; req.Tty && size != nil && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	if h.Umask != nil {
		p.User.Umask = h.Umask
	}
	return p, nil
}
