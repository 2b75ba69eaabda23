package front

import (
	"context"
	"slices"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/bridge"
	"github.com/tarehq/tare/build/front/caching"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/history"
	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
)

// Solve builds. The client is the front end when it names none and gives no
// definition: it asks through the bridge for what it needs and returns the
// result there.
func (c *control) Solve(ctx context.Context, r *controlapi.SolveRequest) (resp *controlapi.SolveResponse, err error) {
	if err := c.checkSolve(r); err != nil {
		return nil, err
	}
	defer c.pace.begin()()
	epoch, err := output.EpochOf(r.FrontendAttrs)
	if err != nil {
		return nil, err
	}
	wants, err := readAttestations(r.FrontendAttrs)
	if err != nil {
		return nil, err
	}
	caches, err := caching.Exports(r.Cache)
	if err != nil {
		return nil, err
	}
	outputs, err := output.Read(r)
	if err != nil {
		return nil, err
	}
	devices, err := readDevices(r.Entitlements)
	if err != nil {
		return nil, err
	}
	caller, err := c.caller(ctx, r.Session)
	if err != nil {
		return nil, err
	}
	run, err := c.builds.begin(r)
	if err != nil {
		return nil, err
	}
	var outcome history.Outcome
	defer func() {
		outcome.Said, outcome.Failed = resp.GetExporterResponse(), err
		if err != nil && ctx.Err() != nil { // whatever failed by that
			outcome.Failed = context.Canceled
		}
		c.builds.end(r, run, outcome)
	}()
	lent := &client.Session{Caller: caller, ID: r.Session, Find: c.caller}
	job := c.solver.Job(lent, run.tells, build.JobOptions{Epoch: epoch,
		Network: slices.Contains(r.Entitlements, keep.NetworkHost), Insecure: slices.Contains(r.Entitlements, keep.SecurityInsecure), Devices: devices})
	defer job.Close()
	b := &bridge.Bridge{Job: job, Session: r.Session, Opts: r.FrontendAttrs, Defs: r.FrontendInputs, Worker: c.worker, Tells: run.tells, Notes: &bridge.Notes{}}
	importer := &caching.Importer{Job: job, Tells: run.tells}
	b.Caches = importer.Import
	importer.Import(ctx, caching.Entries(r.Cache))
	result, err := front(ctx, r, b, run)
	if err != nil {
		return nil, err
	}
	if err := wants.scan(ctx, b, result); err != nil {
		return nil, err
	}
	made, err := output.Collect(ctx, result)
	if err != nil {
		return nil, err
	}
	wants.sayHow(b, run, made)
	out := &output.Writer{Store: c.store, Caller: caller, Tells: run.tells, Epoch: epoch, Said: map[string]string{}, Inline: caching.Inline(job, caches)}
	for key, value := range result.Metadata {
		if output.IsSaid(key) {
			out.Said[key] = string(value)
		}
	}
	for _, o := range outputs {
		if err := out.Write(ctx, o, made); err != nil {
			return nil, err
		}
	}
	w := &caching.Writer{Job: job, Store: c.store, Session: lent, Tells: run.tells, Said: out.Said}
	if err := w.Write(ctx, caches, made); err != nil {
		return nil, err
	}
	outcome.Results = out.Images
	outcome.Attested = func() map[string][]history.Predicate { return remembered(b, run, made) }
	return &controlapi.SolveResponse{ExporterResponse: out.Said}, nil
}

// front has the front end make its result, wherever it is.
func front(ctx context.Context, r *controlapi.SolveRequest, b *bridge.Bridge, run *running) (*gateway.Result, error) {
	if r.Frontend != "" || r.Definition != nil {
		close(run.ready)
		return b.Solve(ctx, gateway.SolveRequest{Frontend: r.Frontend, Definition: r.Definition, FrontendOpt: r.FrontendAttrs, FrontendInputs: r.FrontendInputs})
	}
	run.asks = bridge.NewAsked(b)
	close(run.ready)
	defer run.asks.Close()
	return run.asks.Result(ctx)
}

// checkSolve refuses by name what is not done, and what the daemon does not let
// a client grant.
func (c *control) checkSolve(r *controlapi.SolveRequest) error {
	if len(r.SourcePolicy.GetRules()) > 0 || r.SourcePolicySession != "" {
		return fault.New(fault.NotImplemented, "policies for sources are not supported")
	}
	if r.ProxyNetwork {
		return fault.New(fault.NotImplemented, "a network through a proxy is not supported")
	}
	for _, e := range r.Entitlements {
		name := e
		if strings.HasPrefix(e, keep.Device+"=") {
			name = keep.Device
		}
		if name != keep.NetworkHost && name != keep.SecurityInsecure && name != keep.Device {
			return fault.New(fault.Invalid, "unknown entitlement %s", e)
		} else if !slices.Contains(c.grants, name) {
			return fault.New(fault.Forbidden, "granting entitlement %s is not allowed by build daemon configuration", name)
		}
	}
	return nil
}

// readDevices reads which devices the client grants: "device" all, "device=NAME" one,
// with ",alias=OTHER" as what the build calls OTHER.
func readDevices(entitlements []string) (g build.DeviceGrants, err error) {
	for _, e := range entitlements {
		name, which, named := strings.Cut(e, "=")
		if name != keep.Device {
			continue
		}
		if !named || which == "" {
			g.All = true
			continue
		}
		which, rest, more := strings.Cut(which, ",")
		alias, isAlias := strings.CutPrefix(rest, "alias=")
		if more && (!isAlias || strings.Contains(alias, ",")) {
			return g, fault.New(fault.Invalid, "the entitlement %s is not understood: say device=NAME or device=NAME,alias=OTHER", e)
		}
		if g.Named == nil {
			g.Named = map[string]string{}
		}
		if alias == "" {
			alias, which = which, ""
		}
		g.Named[alias] = which
	}
	return g, nil
}

// caller is the client's session, which it may be about to open.
func (h *handler) caller(ctx context.Context, id string) (session.Caller, error) {
	if id == "" {
		return nil, fault.New(fault.Invalid, "a build needs a session")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fault.New(fault.Invalid, "the client has opened no such session"))
	defer cancel()
	return h.sessions.Get(ctx, id, false)
}

// Status tells of a build, from its beginning to its end.
func (c *control) Status(r *controlapi.StatusRequest, s controlapi.Control_StatusServer) error {
	if found, err := c.builds.history.Retell(r.Ref, s.Send); found || err != nil {
		return err
	}
	run, err := c.builds.find(s.Context(), r.Ref)
	if err != nil {
		return err
	}
	return run.tells.FollowGathered(s.Context(), s.Send)
}

// follow builds, and tells of it on the way.
func (h *handler) follow(ctx context.Context, q *controlapi.SolveRequest, tell func(*controlapi.StatusResponse) error) (resp *controlapi.SolveResponse, err error) {
	if err := h.builds.free(q.Ref); err != nil { // or else it would follow another's build
		return nil, err
	}
	begun, over := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer over()
		resp, err = (&control{handler: h}).Solve(ctx, q)
	}()
	if run, e := h.builds.find(begun, q.Ref); e == nil {
		_ = run.tells.Follow(ctx, tell) // whoever does not listen ends ctx
	}
	<-done
	return resp, err
}
