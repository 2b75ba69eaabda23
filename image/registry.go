package image

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	wire "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// Registries answers what clients ask about registries without wanting an
// image from them.
type Registries struct{ client *remote.Client }

// NewRegistries makes one over a client, which stays its caller's.
func NewRegistries(client *remote.Client) *Registries { return &Registries{client} }

// Login checks credentials with the registry of a host, Docker Hub for "". The
// identity token, if there is one, is to be kept in the place of the password.
func (r *Registries) Login(ctx context.Context, host string, cred Credentials) (identityToken string, err error) {
	return r.client.Login(ctx, host, cred)
}

// SearchOptions is what is searched for. The limit is 1 to 100. The filters are
// is-official, is-automated (a boolean each) and stars (the least number).
type SearchOptions struct {
	Term        string
	Limit       int
	Filters     map[string]map[string]bool
	Credentials Credentials
}

// Search asks Docker Hub, or the registry that the term begins with.
func (r *Registries) Search(ctx context.Context, o SearchOptions) ([]wire.SearchResult, error) {
	keep, err := searchFilter(o.Filters)
	if err != nil {
		return nil, err
	}
	found, err := r.client.Search(ctx, o.Term, o.Limit, o.Credentials)
	if err != nil {
		return nil, err
	}
	var out []wire.SearchResult
	for _, f := range found {
		if keep(f) {
			out = append(out, wire.SearchResult{Name: f.Name, Description: f.Description, StarCount: f.StarCount, IsOfficial: f.IsOfficial, IsAutomated: f.IsAutomated})
		}
	}
	return out, nil
}

func searchFilter(filters map[string]map[string]bool) (keep func(remote.SearchResult) bool, err error) {
	var official, automated *bool
	stars := 0
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		values := slices.Sorted(maps.Keys(filters[key]))
		switch key {
		case "is-official", "is-automated":
			b, err := strconv.ParseBool(values[0])
			if err != nil || len(values) > 1 {
				return nil, fault.New(fault.Invalid, "invalid filter '%s=%s'", key, values)
			}
			if key == "is-official" {
				official = &b
			} else {
				automated = &b
			}
		case "stars":
			for _, v := range values {
				n, err := strconv.Atoi(v)
				if err != nil {
					return nil, fault.New(fault.Invalid, "invalid filter 'stars=%s'", v)
				}
				stars = max(stars, n)
			}
		default:
			return nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return func(f remote.SearchResult) bool {
		return (official == nil || f.IsOfficial == *official) && (automated == nil || f.IsAutomated == *automated) && f.StarCount >= stars
	}, nil
}

// Distribution asks the registry of a name what the name stands for, and for
// which platforms.
func (r *Registries) Distribution(ctx context.Context, name string, cred Credentials) (wire.DistributionInspect, error) {
	var out wire.DistributionInspect
	ref, err := reference.Parse(name)
	if err != nil {
		return out, err
	}
	repository := r.client.Repository(ref, cred)
	which := ref.Tag
	if ref.Digest != "" {
		which = ref.Digest
	}
	d, data, err := repository.Manifest(ctx, which)
	if err != nil {
		return out, err
	}
	out.Descriptor = d
	out.Platforms, err = platformsOf(ctx, repository, d.MediaType, data)
	return out, err
}

// platformsOf reads the platforms from an index, or from the configuration of a
// single image.
func platformsOf(ctx context.Context, repository *remote.Repository, mediaType string, data []byte) ([]ocispec.Platform, error) {
	platforms := []ocispec.Platform{}
	if content.IsIndex(mediaType) {
		var index ocispec.Index
		if err := json.Unmarshal(data, &index); err != nil {
			return nil, fault.New(fault.Invalid, "the registry sent an index that is none: %w", err)
		}
		for _, m := range index.Manifests {
			if m.Platform != nil {
				platforms = append(platforms, *m.Platform)
			}
		}
		return platforms, nil
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fault.New(fault.Invalid, "the registry sent a manifest that is none: %w", err)
	}
	switch manifest.Config.MediaType {
	case ocispec.MediaTypeImageConfig, content.DockerConfig:
	default:
		return platforms, nil // an artifact has no platform
	}
	platform, err := configPlatform(ctx, repository, manifest.Config)
	if err == nil && (platform.OS != "" || platform.Architecture != "") {
		platforms = append(platforms, platform)
	}
	return platforms, err
}

func configPlatform(ctx context.Context, repository *remote.Repository, d ocispec.Descriptor) (platform ocispec.Platform, err error) {
	data, err := repository.ReadBlob(ctx, d, catalog.MaxConfig)
	if err != nil {
		return platform, err
	}
	if err := json.Unmarshal(data, &platform); err != nil {
		return platform, fault.New(fault.Invalid, "the image's configuration is no JSON object: %w", err)
	}
	return platform, nil
}
