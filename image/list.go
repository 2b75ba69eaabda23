package image

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
)

// List describes the images that the filters let through, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]wire.Summary, error) {
	found, err := s.listed(ctx, o)
	if err != nil {
		return nil, err
	}
	uses := s.uses()
	list := make([]wire.Summary, len(found))
	beside(len(found), func(i int) { list[i] = s.summary(found[i], uses[found[i].target().Digest], o.Manifests) })
	if o.SharedSize {
		s.setSharedSizes(list, found)
	}
	return list, nil
}

// Brief is List with less of each image.
func (s *Service) Brief(ctx context.Context, o ListOptions) ([]Brief, error) {
	found, err := s.listed(ctx, o)
	if err != nil {
		return nil, err
	}
	uses := s.uses()
	list := make([]Brief, len(found))
	beside(len(found), func(i int) { list[i] = s.brief(found[i], uses[found[i].target().Digest]) })
	return list, nil
}

// row is one image of a list.
type row struct {
	entries []content.Entry // at least one
	members []member
	best    *member // see representative
}

func (r *row) target() ocispec.Descriptor { return r.entries[0].Target }

// created is when the image was made, in seconds since 1970, 0 if nobody knows.
func (r *row) created() int64 {
	if r.best == nil || r.best.detail.config.Created == nil {
		return 0
	}
	return r.best.detail.config.Created.Unix()
}

// listed gives the images that the filters let through, newest first.
func (s *Service) listed(ctx context.Context, o ListOptions) ([]*row, error) {
	keep, err := s.filters(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	index := s.content.Index()
	entries := index.Entries()
	byTarget := make(map[digest.Digest]*row, len(entries))
	list := make([]*row, 0, len(entries))
	for i, e := range entries {
		if !keep.name(e.Name) || e.Name == "" && (!o.All || keep.dangling != nil) && index.HasChildren(e.Target.Digest) {
			continue
		}
		r := byTarget[e.Target.Digest]
		if r == nil {
			r = &row{entries: entries[i : i+1 : i+1]}
			byTarget[e.Target.Digest] = r
			list = append(list, r)
			continue
		}
		r.entries = append(r.entries, e) // of a copy
	}
	beside(len(list), func(i int) {
		r := list[i]
		r.members = s.members(r.target())
		r.best = representative(r.members)
	})
	list = slices.DeleteFunc(list, func(r *row) bool { return !keep.created(r.best) || !keep.anyLabels(r.members) })
	slices.SortStableFunc(list, func(a, b *row) int { return cmp.Compare(b.created(), a.created()) })
	return list, nil
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
func (s *catalog) setSharedSizes(list []wire.Summary, found []*row) {
	images := map[digest.Digest]int{}
	for _, r := range found {
		for _, chain := range chainsOf(r.members) {
			images[chain]++
		}
	}
	for i, r := range found {
		list[i].SharedSize = 0
		for _, chain := range chainsOf(r.members) {
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
		if platform.Matches(platform.Host(), m.platform) {
			return m
		}
		if first == nil {
			first = m
		}
	}
	return first
}

func (s *catalog) summary(r *row, uses []Use, manifests bool) wire.Summary {
	target := r.target()
	sum := wire.Summary{ID: target.Digest.String(), Containers: int64(len(uses)), Created: r.created(), SharedSize: -1, Descriptor: &target}
	sum.RepoTags, sum.RepoDigests = names(r.entries)
	sum.Size = s.size(target, r.members)
	sum.ParentID = s.parent(target.Digest).String()
	if r.best != nil {
		sum.Labels = r.best.detail.config.Config.Labels
	}
	if manifests {
		sum.Manifests = s.manifestSummaries(r.members, uses)
	}
	return sum
}

func (s *catalog) brief(r *row, uses []Use) Brief {
	target := r.target()
	b := Brief{ID: target.Digest.String(), Containers: int64(len(uses)), Created: r.created(), SharedSize: -1}
	b.RepoTags, b.RepoDigests = names(r.entries)
	b.RepoDigests = untagged(b.RepoDigests, b.RepoTags)
	b.Size = s.size(target, r.members)
	for _, m := range r.members {
		if m.kind == wire.ManifestKindImage {
			b.ContentSize += m.size
		}
	}
	return b
}

// untagged leaves out the digests in repositories in which a tag names the image
// too.
func untagged(digests, tags []string) []string {
	return slices.DeleteFunc(digests, func(d string) bool {
		repository, _, _ := strings.Cut(d, "@")
		return slices.ContainsFunc(tags, func(t string) bool { return t[:strings.LastIndexByte(t, ':')] == repository })
	})
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

func (s *catalog) manifestSummaries(members []member, uses []Use) []wire.ManifestSummary {
	list := make([]wire.ManifestSummary, 0, len(members))
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
			if platform.Matches(platform.Host(), m.platform) || len(members) == 1 {
				for _, u := range uses {
					sum.ImageData.Containers = append(sum.ImageData.Containers, u.Container)
				}
			}
		}
		list = append(list, sum)
	}
	return list
}
