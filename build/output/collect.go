package output

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
)

// solvable is a gateway.Reference that comes to a result.
type solvable interface {
	Solved(context.Context) (*build.Result, error)
	Definition() *pb.Definition
}

// Collect has what a front end returned solved, each platform after the other.
func Collect(ctx context.Context, r *gateway.Result) ([]Made, error) {
	var list exptypes.Platforms
	if text := r.Metadata[exptypes.ExporterPlatformsKey]; text != nil {
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, err
		}
	}
	one := func(ref gateway.Reference, config []byte, id string, p ocispec.Platform) (made Made, err error) {
		made = Made{ID: id, Platform: p, Config: config}
		if ref != nil {
			made.Definition = ref.(solvable).Definition()
			if made.Result, err = ref.(solvable).Solved(ctx); err != nil {
				return made, err
			}
		}
		made.Attestations, err = attestations(ctx, r.Attestations[id])
		return made, err
	}
	if len(r.Refs) == 0 {
		p := OwnPlatform()
		id := p.OS + "/" + p.Architecture
		if len(list.Platforms) == 1 {
			id, p = list.Platforms[0].ID, list.Platforms[0].Platform
		}
		m, err := one(r.Ref, r.Metadata[exptypes.ExporterImageConfigKey], id, p)
		return []Made{m}, err
	}
	var all []Made
	for _, p := range list.Platforms {
		m, err := one(r.Refs[p.ID], r.Metadata[exptypes.ExporterImageConfigKey+"/"+p.ID], p.ID, p.Platform)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// Publish makes an image of the results and returns its ID.
func Publish(ctx context.Context, store build.Store, results []Made, names []string, epoch time.Time, inline Inline) (string, error) {
	x := &exporter{store: store, epoch: epoch, inline: inline}
	target, err := x.target(ctx, results)
	if err != nil {
		return "", err
	}
	return store.Publish(ctx, target, names, x.texts)
}

// OwnPlatform is that of this machine.
func OwnPlatform() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}
