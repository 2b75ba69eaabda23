package classic

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"google.golang.org/protobuf/proto"

	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
)

// buildTraced is POST /build with version=2: the client lends its files by a
// session, and is told of the build as BuildKit's clients are.
func (h *Handler) buildTraced(ctx context.Context, o *request, out *reply.Stream) error {
	switch {
	case strings.HasPrefix(o.id, "upload-request"), o.remote == "upload-request":
		return fault.New(fault.NotImplemented, "a context on standard input is not supported this way: use docker buildx, or DOCKER_BUILDKIT=0")
	case o.remote == "client-session", o.remote == "":
	default:
		o.front["context"] = o.remote
	}
	q := &controlapi.SolveRequest{Ref: orElse(o.id, idgen.New()[:25]), Session: o.session, Frontend: "dockerfile.v0", FrontendAttrs: o.front, Exporters: o.outputs, Cache: o.cacheOptions()}
	if o.host {
		q.Entitlements = []string{keep.NetworkHost}
	}
	images := 0
	for _, x := range q.Exporters {
		if x.Type == "image" || x.Type == "moby" || x.Type == "docker" && x.Attrs["dest"] == "" {
			x.Type = "moby"
			images++
		}
	}
	if len(q.Exporters) == 0 {
		q.Exporters = []*controlapi.Exporter{{Type: "moby"}}
		images++
	}
	for _, x := range q.Exporters {
		if x.Type == "moby" && len(o.tags) > 0 {
			attrs := map[string]string{}
			maps.Copy(attrs, x.Attrs)
			attrs["name"] = strings.Join(o.tags, ",")
			x.Attrs = attrs
		}
	}
	resp, err := h.Follow(ctx, q, func(e *controlapi.StatusResponse) error {
		data, err := proto.Marshal(e)
		if err == nil {
			out.Send(traced("moby.buildkit.trace", data))
		}
		return err
	})
	if err != nil {
		return err
	}
	if id := resp.ExporterResponse[exptypes.ExporterImageDigestKey]; id != "" && images > 0 {
		out.Send(traced("moby.image.id", map[string]string{"ID": id}))
		if o.quiet {
			out.Say(id + "\n")
		}
	}
	return nil
}

func traced(id string, aux any) any {
	text, _ := json.Marshal(aux) // bytes and strings can always be
	return struct {
		ID  string          `json:"id"`
		Aux json.RawMessage `json:"aux"`
	}{id, text}
}
