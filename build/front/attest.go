package front

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/attestations/sbom"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/solver/result"

	"github.com/tarehq/tare/build/attest"
	"github.com/tarehq/tare/build/front/bridge"
	"github.com/tarehq/tare/build/front/history"
	"github.com/tarehq/tare/build/output"
)

// attestations are what a client wants to have said of what it builds.
type attestations struct {
	how     attest.Options
	sbom    attest.SBOM
	noCache bool
	pull    bool
}

func readAttestations(attrs map[string]string) (a attestations, err error) {
	a.how, a.sbom, err = attest.Read(attrs)
	_, a.noCache = attrs["no-cache"]
	a.pull = attrs["image-resolve-mode"] == "pull"
	return a, err
}

// scan has a scanner look at the results, unless the front end has seen to that.
func (a attestations) scan(ctx context.Context, b *bridge.Bridge, r *gateway.Result) error {
	if a.sbom.Generator == "" || sbom.HasSBOM(r) {
		return nil
	}
	platforms, err := exptypes.ParsePlatforms(r.Metadata)
	if err != nil {
		return err
	}
	own, mode := output.OwnPlatform(), pb.AttrImageResolveModeDefault
	if a.pull {
		mode = pb.AttrImageResolveModeForcePull
	}
	scanner, err := sbom.CreateSBOMScanner(ctx, b, a.sbom.Generator, own, sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: mode, Platform: &own}}, a.sbom.Params)
	if err != nil {
		return err
	}
	for _, p := range platforms.Platforms {
		ref, ok := r.FindRef(p.ID)
		if !ok || ref == nil {
			continue
		}
		state, err := ref.ToState()
		if err != nil {
			return err
		}
		var opts []llb.ConstraintsOpt
		if a.noCache {
			opts = append(opts, llb.IgnoreCache)
		}
		att, err := scanner(ctx, p.ID, state, nil, opts...)
		if err != nil {
			return err
		}
		solved, err := result.ConvertAttestation(&att, func(s *llb.State) (gateway.Reference, error) {
			def, err := s.Marshal(ctx)
			if err != nil {
				return nil, err
			}
			r, err := b.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
			if err != nil {
				return nil, err
			}
			return r.Ref, nil
		})
		if err != nil {
			return fmt.Errorf("the scanner %s: %w", a.sbom.Generator, err)
		}
		r.AddAttestation(p.ID, *solved)
	}
	return nil
}

// sayHow adds to each result how it was made.
func (a attestations) sayHow(b *bridge.Bridge, run *running, made []output.Made) {
	if !a.how.Wanted {
		return
	}
	for i := range made {
		m := &made[i]
		m.Attestations = append(m.Attestations, output.Attestation{Path: a.how.Filename, Type: a.how.Type(), InlineOnly: a.how.InlineOnly,
			Predicate: func() ([]byte, error) { return attest.Predicate(howMade(b, run, *m), a.how) }})
	}
}

// remembered is what the history keeps of how the results were made, whether the client
// asked for it or not.
func remembered(b *bridge.Bridge, run *running, made []output.Made) map[string][]history.Predicate {
	list, o := map[string][]history.Predicate{}, attest.Default()
	for _, m := range made {
		text, err := attest.Predicate(howMade(b, run, m), o)
		if err != nil {
			continue // the build has not failed by that
		}
		platform := m.ID
		if len(made) == 1 {
			platform = ""
		}
		list[platform] = append(list[platform], history.Predicate{Type: o.Type(), Text: text})
	}
	return list
}

// howMade is what is known of how a result was made.
func howMade(b *bridge.Bridge, run *running, m output.Made) attest.Build {
	frontend, args, materials := b.Notes.Read()
	return attest.Build{Job: b.Job, Ref: run.ref, Frontend: frontend, Args: args, Materials: materials, Definition: m.Definition,
		Platform: m.Platform, Builder: output.OwnPlatform(), Started: run.record.CreatedAt.AsTime()}
}
