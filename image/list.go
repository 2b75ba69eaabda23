package image

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/reference"
)

// List describes the images that the filters let through, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]wire.Summary, error) {
	keep, err := s.filters(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	groups := map[digest.Digest][]content.Entry{}
	var order []digest.Digest
	for _, e := range s.content.Index().Entries() {
		d := e.Target.Digest
		if !keep.name(e.Name) {
			continue
		}
		if groups[d] == nil {
			order = append(order, d)
		}
		groups[d] = append(groups[d], e)
	}
	found := make([]*shown, len(order))
	beside(len(order), func(i int) { found[i] = s.shown(groups[order[i]], keep, o) })
	list := make([]wire.Summary, 0, len(order))
	chains := map[string][]digest.Digest{}
	for _, l := range found {
		if l != nil {
			list = append(list, l.summary)
			chains[l.summary.ID] = l.chains
		}
	}
	if o.SharedSize {
		s.setSharedSizes(list, chains)
	}
	slices.SortStableFunc(list, func(a, b wire.Summary) int { return cmp.Compare(b.Created, a.Created) })
	return list, nil
}

// shown is one image of a list, and its layers.
type shown struct {
	summary wire.Summary
	chains  []digest.Digest
}

// shown describes the image of the entries, nil if the filters hold it back.
func (s *Service) shown(entries []content.Entry, keep *filter, o ListOptions) *shown {
	members := s.members(entries[0].Target)
	best := representative(members)
	if !keep.created(best) || !keep.anyLabels(members) {
		return nil
	}
	return &shown{s.summary(entries, members, best, o), chainsOf(members)}
}

// beside calls f for each number below n, on all processors when they are many.
func beside(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), 1+n/64)
	var running sync.WaitGroup
	for first := range workers {
		running.Go(func() {
			for i := first; i < n; i += workers {
				f(i)
			}
		})
	}
	running.Wait()
}

// chainsOf lists the layers of all platforms, each once.
func chainsOf(members []member) (chains []digest.Digest) {
	if len(members) == 1 && members[0].detail != nil {
		return members[0].detail.chains
	}
	seen := map[digest.Digest]bool{}
	for _, m := range members {
		if m.detail == nil {
			continue
		}
		for _, chain := range m.detail.chains {
			if !seen[chain] {
				seen[chain] = true
				chains = append(chains, chain)
			}
		}
	}
	return chains
}

// setSharedSizes fills in what each image's unpacked layers take that another
// one of the list has too.
func (s *catalog) setSharedSizes(list []wire.Summary, chains map[string][]digest.Digest) {
	images := map[digest.Digest]int{}
	for _, layers := range chains {
		for _, chain := range layers {
			images[chain]++
		}
	}
	for i := range list {
		list[i].SharedSize = 0
		for _, chain := range chains[list[i].ID] {
			if images[chain] > 1 {
				list[i].SharedSize += s.layers.Size(chain)
			}
		}
	}
}

// representative picks the manifest that stands for the whole image: this
// machine's, or the first that has a config, or nil.
func representative(members []member) *member {
	var first *member
	for i := range members {
		m := &members[i]
		if m.detail == nil {
			continue
		}
		if matches(host(), m.platform) {
			return m
		}
		if first == nil {
			first = m
		}
	}
	return first
}

func (s *Service) summary(entries []content.Entry, members []member, best *member, o ListOptions) wire.Summary {
	target := entries[0].Target
	sum := wire.Summary{ID: target.Digest.String(), Containers: int64(len(s.uses(target.Digest))), SharedSize: -1, Descriptor: &target}
	sum.RepoTags, sum.RepoDigests = names(entries)
	sum.Size = s.size(target, members)
	if best != nil {
		sum.Labels = best.detail.config.Config.Labels
		if created := best.detail.config.Created; created != nil {
			sum.Created = created.Unix()
		}
	}
	if o.Manifests {
		sum.Manifests = s.manifestSummaries(target, members)
	}
	return sum
}

// names gives an image's names as Docker shows them, in their order, never nil.
func names(entries []content.Entry) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, e := range entries {
		r, err := reference.ParseBare(e.Name)
		if e.Name == "" || err != nil {
			continue
		}
		if r.Tag != "" {
			tags = append(tags, reference.Ref{Domain: r.Domain, Path: r.Path, Tag: r.Tag}.Familiar())
		}
		if d := r.FamiliarRepository() + "@" + e.Target.Digest.String(); !slices.Contains(digests, d) {
			digests = append(digests, d)
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return tags, digests
}

// size adds up an image's content and its unpacked layers, each once.
func (s *catalog) size(target ocispec.Descriptor, members []member) int64 {
	var size int64
	if content.IsIndex(target.MediaType) {
		size, _ = s.content.Size(target.Digest)
	}
	for _, m := range members {
		size += m.size
	}
	for _, chain := range chainsOf(members) {
		size += s.layers.Size(chain)
	}
	return size
}

func (s *catalog) unpackedSize(m member) (size int64) {
	if m.detail != nil {
		for _, chain := range m.detail.chains {
			size += s.layers.Size(chain)
		}
	}
	return size
}

func (s *Service) manifestSummaries(target ocispec.Descriptor, members []member) []wire.ManifestSummary {
	list := make([]wire.ManifestSummary, 0, len(members))
	uses := s.uses(target.Digest)
	for _, m := range members {
		sum := wire.ManifestSummary{ID: m.desc.Digest.String(), Descriptor: m.desc, Available: m.available, Kind: m.kind}
		sum.Size.Content = m.size
		sum.Size.Total = m.size
		switch {
		case m.kind == wire.ManifestKindAttestation:
			sum.AttestationData = &wire.AttestationProperties{For: m.attests}
		case m.kind == wire.ManifestKindImage:
			sum.ImageData = &wire.ImageProperties{Platform: m.platform, Containers: []string{}}
			sum.ImageData.Size.Unpacked = s.unpackedSize(m)
			sum.Size.Total += sum.ImageData.Size.Unpacked
			// Containers run this machine's platform unless told otherwise.
			if matches(host(), m.platform) || len(members) == 1 {
				for _, u := range uses {
					sum.ImageData.Containers = append(sum.ImageData.Containers, u.Container)
				}
			}
		}
		list = append(list, sum)
	}
	return list
}
