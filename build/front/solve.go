package front

import (
	"context"
	"slices"
	"strconv"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// Solve builds. The client is the front end when it names none and gives no
// definition: it asks through the bridge for what it needs and returns the
// result there.
func (c *control) Solve(ctx context.Context, r *controlapi.SolveRequest) (resp *controlapi.SolveResponse, err error) {
	if err := checkSolve(r); err != nil {
		return nil, err
	}
	epoch, err := epochOf(r.FrontendAttrs)
	if err != nil {
		return nil, err
	}
	outputs, err := readOutputs(r)
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
	defer func() { c.builds.end(r, run, resp.GetExporterResponse(), err) }()
	job := c.solver.Job(&lent{caller, r.Session}, run.tells, build.JobOptions{Epoch: epoch,
		Network: slices.Contains(r.Entitlements, "network.host"), Insecure: slices.Contains(r.Entitlements, "security.insecure")})
	defer job.Close()
	b := &bridge{job: job, session: r.Session, opts: r.FrontendAttrs, inputs: r.FrontendInputs, worker: c.worker, tells: run.tells}
	warnAboutCache(run.tells, r.Cache)
	result, err := front(ctx, r, b, run)
	if err != nil {
		return nil, err
	}
	made, err := c.results(ctx, result)
	if err != nil {
		return nil, err
	}
	out := &output{handler: c.handler, caller: caller, tells: run.tells, epoch: epoch, said: map[string]string{}}
	for key, value := range result.Metadata {
		if isSaid(key) {
			out.said[key] = string(value)
		}
	}
	for _, o := range outputs {
		if err := out.write(ctx, o, made); err != nil {
			return nil, err
		}
	}
	return &controlapi.SolveResponse{ExporterResponse: out.said}, nil
}

// front has the front end make its result, wherever it is.
func front(ctx context.Context, r *controlapi.SolveRequest, b *bridge, run *running) (*gateway.Result, error) {
	if r.Frontend != "" || r.Definition != nil {
		close(run.ready)
		return b.Solve(ctx, gateway.SolveRequest{Frontend: r.Frontend, Definition: r.Definition, FrontendOpt: r.FrontendAttrs, FrontendInputs: r.FrontendInputs})
	}
	run.asks = newAsked(b)
	close(run.ready)
	defer run.asks.close()
	select {
	case <-run.asks.done:
		return run.asks.result, run.asks.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// checkSolve refuses by name what is not done.
func checkSolve(r *controlapi.SolveRequest) error {
	if len(r.SourcePolicy.GetRules()) > 0 || r.SourcePolicySession != "" {
		return fault.New(fault.NotImplemented, "policies for sources are not supported")
	}
	if r.ProxyNetwork {
		return fault.New(fault.NotImplemented, "a network through a proxy is not supported")
	}
	for _, e := range r.Entitlements {
		if e != "network.host" && e != "security.insecure" {
			return fault.New(fault.NotImplemented, "the entitlement %s is not supported", e)
		}
	}
	if r.Cache.GetExportRefDeprecated() != "" {
		return fault.New(fault.NotImplemented, "the export of the cache to a registry is not supported yet")
	}
	for _, e := range r.Cache.GetExports() {
		if e.GetType() != "inline" {
			return fault.New(fault.NotImplemented, "the export of the cache by type=%s is not supported yet", e.GetType())
		}
	}
	for key, value := range r.FrontendAttrs {
		if err := checkAttestation(key, value); err != nil {
			return err
		}
	}
	return nil
}

// warnAboutCache says what of a build's wishes is not met, and does not hinder it.
func warnAboutCache(tells *recording, o *controlapi.CacheOptions) {
	var texts []string
	if len(o.GetExports()) > 0 {
		texts = append(texts, "the image carries no cache: its export by type=inline is not supported yet")
	}
	if len(o.GetImports())+len(o.GetImportRefsDeprecated()) > 0 {
		texts = append(texts, "the import of a cache is not supported yet: only the cache of this machine is used")
	}
	for _, text := range texts {
		vertex, end := task(tells, "cache")
		tells.warn(&controlapi.VertexWarning{Vertex: vertex.String(), Level: 1, Short: []byte(text)})
		end(nil)
	}
}

// epochOf is the time that all of an image gets, zero for none.
func epochOf(attrs map[string]string) (time.Time, error) {
	v := attrs["build-arg:SOURCE_DATE_EPOCH"]
	if v == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH: %s", v)
	}
	return time.Unix(n, 0).UTC(), nil
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
	if told, err := c.builds.history.told(r.Ref); err != nil {
		return err
	} else if told != nil {
		return retell(told, s.Send)
	}
	run, err := c.builds.find(s.Context(), r.Ref)
	if err != nil {
		return err
	}
	return run.tells.follow(s.Context(), s.Send)
}

// retell tells of a build that ended, in messages that are not too large.
func retell(all *controlapi.StatusResponse, send func(*controlapi.StatusResponse) error) error {
	for _, v := range all.Vertexes {
		if err := send(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{v}}); err != nil {
			return err
		}
	}
	for _, l := range all.Logs {
		if err := send(&controlapi.StatusResponse{Logs: []*controlapi.VertexLog{l}}); err != nil {
			return err
		}
	}
	return send(&controlapi.StatusResponse{Statuses: all.Statuses, Warnings: all.Warnings})
}
