package attest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/platforms"
	slsa02 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v0.2"
	slsa1 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
)

// Build is what was made of whose provenance is told.
type Build struct {
	Job        *build.Job
	Ref        string // of the build
	Frontend   string
	Args       map[string]string
	Materials  []build.Material // beside those of the definition
	Definition *pb.Definition
	Platform   ocispec.Platform
	Builder    ocispec.Platform
	Started    time.Time
}

// Type is the predicate's.
func (o Options) Type() string {
	if o.Version == provenance.ProvenanceSLSA02 {
		return slsa02.PredicateSLSAProvenance
	}
	return slsa1.PredicateSLSAProvenance
}

// Predicate says how something was made, as JSON.
func Predicate(b Build, o Options) ([]byte, error) {
	p, err := predicate(b, o)
	if err != nil {
		return nil, err
	}
	finished := time.Now().UTC()
	p.RunDetails.Metadata.FinishedOn = &finished
	if o.Version == provenance.ProvenanceSLSA02 {
		return json.MarshalIndent(p.ConvertToSLSA02(), "", "  ")
	}
	return json.MarshalIndent(p, "", "  ")
}

func predicate(b Build, o Options) (*provenance.ProvenancePredicateSLSA1, error) {
	c := &capture{}
	for _, m := range b.Materials {
		c.material(m)
	}
	c.add(b.Job, b.Definition)
	for _, info := range b.Definition.GetSource().GetInfos() {
		c.add(b.Job, info.GetDefinition())
	}
	dependencies, err := c.dependencies()
	if err != nil {
		return nil, err
	}
	began := b.Started.UTC()
	locals := c.locals()
	meta := &provenance.ProvenanceMetadataSLSA1{
		BuildMetadata: slsa1.BuildMetadata{InvocationID: b.Ref, StartedOn: &began},
		Completeness:  provenance.BuildKitComplete{Request: b.Frontend != "", ResolvedDependencies: len(locals) == 0},
		Hermetic:      len(locals) == 0 && !c.network,
		Reproducible:  o.Reproducible,
	}
	request := provenance.Parameters{Frontend: b.Frontend, Args: arguments(b.Args), Secrets: c.secrets, SSH: c.ssh, Locals: locals}
	config := c.source(request.Args)
	meta.BuildKitMetadata.VCS = vcs(request.Args)
	internal := provenance.ProvenanceInternalParametersSLSA1{BuilderPlatform: platforms.Format(platforms.Normalize(b.Builder)), TargetPlatform: platforms.Format(platforms.Normalize(b.Platform))}
	if b.Frontend == "dockerfile.v0" {
		internal.DockerfileVersion = dockerfileversion.Version()
	}
	if o.Max {
		if internal.BuildConfig, err = b.config(meta); err != nil {
			return nil, err
		}
	} else if reduce(&request) {
		meta.Completeness.Request = false
	}
	if len(request.Args) == 0 {
		request.Args = nil
	}
	return &provenance.ProvenancePredicateSLSA1{
		BuildDefinition: provenance.ProvenanceBuildDefinitionSLSA1{
			ProvenanceBuildDefinition: slsa1.ProvenanceBuildDefinition{BuildType: provenance.BuildKitBuildType1, ResolvedDependencies: dependencies},
			ExternalParameters:        provenance.ProvenanceExternalParametersSLSA1{ConfigSource: config, Request: request},
			InternalParameters:        internal,
		},
		RunDetails: provenance.ProvenanceRunDetailsSLSA1{
			ProvenanceRunDetails: slsa1.ProvenanceRunDetails{Builder: slsa1.Builder{ID: o.BuilderID}},
			Metadata:             meta,
		},
	}, nil
}

// arguments are those of the request that say what is built.
func arguments(args map[string]string) map[string]string {
	kept := map[string]string{}
	for key, value := range args {
		name, isArg := strings.CutPrefix(key, "build-arg:")
		switch {
		case key == "cgroup-parent", key == "image-resolve-mode", key == "platform", key == "cache-imports", strings.HasPrefix(key, "attest:"):
		case isArg && isProxy(name):
		default:
			kept[key] = Clean(value)
		}
	}
	return kept
}

// source takes what names the file that says how to build from the arguments.
func (c *capture) source(args map[string]string) (s provenance.ProvenanceConfigSourceSLSA1) {
	key := "context"
	if other := args["contextkey"]; other != "" {
		key = other
	} else if args["input:context"] != "" {
		key = "input:context"
	}
	if address := args[key]; address != "" {
		s.URI = address
		if d, ok := c.find(address); ok {
			s.Digest = d
		}
		delete(args, key)
	}
	if s.Path = args["filename"]; s.Path != "" {
		delete(args, "filename")
	}
	return s
}

// vcs takes what is said of the version control from the arguments.
func vcs(args map[string]string) map[string]string {
	var found map[string]string
	for key, value := range maps.Clone(args) {
		name, ok := strings.CutPrefix(key, "vcs:")
		if !ok {
			continue
		}
		delete(args, key)
		if value != "" {
			if found == nil {
				found = map[string]string{}
			}
			found[name] = value
		}
	}
	return found
}

// reduce leaves out what is only told in full, and tells whether there was some.
func reduce(p *provenance.Parameters) (incomplete bool) {
	for key := range maps.Clone(p.Args) {
		if strings.HasPrefix(key, "build-arg:") || strings.HasPrefix(key, "label:") {
			delete(p.Args, key)
			incomplete = true
		}
	}
	p.Secrets, p.SSH = nil, nil
	return incomplete
}

// config is the definition, with its place in the file and the layers it came to.
func (b Build) config(meta *provenance.ProvenanceMetadataSLSA1) (*provenance.BuildConfig, error) {
	list, err := readSteps(b.Definition)
	if err != nil {
		return nil, err
	}
	config := &provenance.BuildConfig{Definition: list.steps, DigestMapping: list.mapping()}
	layers := map[string][][]ocispec.Descriptor{}
	for d, i := range list.index {
		for n := range results(list.ops[d]) {
			var blobs []ocispec.Descriptor
			for _, l := range b.Job.LayersOf(d, n) {
				blobs = append(blobs, l.Blob)
			}
			if blobs != nil {
				layers[fmt.Sprintf("step%d:%d", i, n)] = [][]ocispec.Descriptor{blobs}
			}
		}
	}
	if len(layers) > 0 {
		meta.BuildKitMetadata.Layers = layers
	}
	source := b.Definition.GetSource()
	if len(source.GetInfos()) == 0 {
		return config, nil
	}
	told := &provenance.Source{Locations: map[string]*pb.Locations{}}
	for _, info := range source.Infos {
		own, err := readSteps(info.GetDefinition())
		if err != nil {
			return nil, err
		}
		told.Infos = append(told.Infos, provenance.SourceInfo{Filename: info.Filename, Data: info.Data, Language: info.Language, Definition: own.steps, DigestMapping: own.mapping()})
	}
	for d, place := range source.Locations {
		if i, ok := list.index[digest.Digest(d)]; ok {
			told.Locations[fmt.Sprintf("step%d", i)] = place
		}
	}
	meta.BuildKitMetadata.Source = told
	return config, nil
}
