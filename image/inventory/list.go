// Package inventory is what is told of the images that are here: lists, one of them
// whole, its history, what attests it, and what all take on disk.
package inventory

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
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/snapshot"
)

// ListOptions as in GET /images/json. Filters are Docker's: reference, label,
// label!, before, since, dangling, until.
type ListOptions struct {
	All        bool // also those that are here for what was made of them alone
	Manifests  bool
	SharedSize bool
	Filters    map[string]map[string]bool
}

// Brief is what a list of names shows of an image; it is tared's own.
type Brief struct {
	Containers  int64
	ContentSize int64    // bytes of all platforms as they travel, of what is here
	Created     int64    // seconds since 1970
	ID          string   `json:"Id"`
	RepoDigests []string // in repositories in which it has no tag
	RepoTags    []string
	SharedSize  int64 // -1: not counted
	Size        int64 // bytes on the disk
}

// Inventory tells, of what the catalog knows.
type Inventory struct {
	Catalog *catalog.Catalog
	Content *content.Store
	Layers  *snapshot.Store
}

// List describes the images that the filters let through, newest first.
func (s *Inventory) List(ctx context.Context, o ListOptions) ([]wire.Summary, error) {
	found, err := s.listed(ctx, o)
	if err != nil {
		return nil, err
	}
	uses := s.Catalog.Uses()
	list := make([]wire.Summary, len(found))
	beside(len(found), func(i int) { list[i] = s.summary(found[i], uses[found[i].target().Digest], o.Manifests) })
	if o.SharedSize {
		s.setSharedSizes(list, found)
	}
	return list, nil
}

// Brief is List with less of each image.
func (s *Inventory) Brief(ctx context.Context, o ListOptions) ([]Brief, error) {
	found, err := s.listed(ctx, o)
	if err != nil {
		return nil, err
	}
	uses := s.Catalog.Uses()
	list := make([]Brief, len(found))
	beside(len(found), func(i int) { list[i] = s.brief(found[i], uses[found[i].target().Digest]) })
	return list, nil
}

// row is one image of a list.
type row struct {
	entries []content.Entry // at least one
	members []catalog.Member
	best    *catalog.Member // see catalog.Representative
}

func (r *row) target() ocispec.Descriptor { return r.entries[0].Target }

// created is when the image was made, in seconds since 1970, 0 if nobody knows.
func (r *row) created() int64 {
	if r.best == nil || r.best.Detail.Config.Created == nil {
		return 0
	}
	return r.best.Detail.Config.Created.Unix()
}

// listed gives the images that the filters let through, newest first.
func (s *Inventory) listed(ctx context.Context, o ListOptions) ([]*row, error) {
	keep, err := NewFilter(ctx, s.Catalog, o.Filters)
	if err != nil {
		return nil, err
	}
	index := s.Content.Index()
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
		r.members = s.Catalog.Members(r.target())
		r.best = catalog.Representative(r.members)
	})
	list = slices.DeleteFunc(list, func(r *row) bool { return !keep.Image(r.best, r.members) })
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

// setSharedSizes fills in what each image's unpacked layers take that another
// one of the list has too.
func (s *Inventory) setSharedSizes(list []wire.Summary, found []*row) {
	images := map[digest.Digest]int{}
	for _, r := range found {
		for _, chain := range catalog.ChainsOf(r.members) {
			images[chain]++
		}
	}
	for i, r := range found {
		list[i].SharedSize = 0
		for _, chain := range catalog.ChainsOf(r.members) {
			if images[chain] > 1 {
				list[i].SharedSize += s.Layers.Size(chain)
			}
		}
	}
}

func (s *Inventory) summary(r *row, uses []catalog.Use, manifests bool) wire.Summary {
	target := r.target()
	sum := wire.Summary{ID: target.Digest.String(), Containers: int64(len(uses)), Created: r.created(), SharedSize: -1, Descriptor: &target}
	sum.RepoTags, sum.RepoDigests = names(r.entries)
	sum.Size = s.size(target, r.members)
	sum.ParentID = s.Catalog.Parent(target.Digest).String()
	if r.best != nil {
		sum.Labels = r.best.Detail.Config.Config.Labels
	}
	if manifests {
		sum.Manifests = s.manifestSummaries(r.members, uses)
	}
	return sum
}

func (s *Inventory) brief(r *row, uses []catalog.Use) Brief {
	target := r.target()
	b := Brief{ID: target.Digest.String(), Containers: int64(len(uses)), Created: r.created(), SharedSize: -1}
	b.RepoTags, b.RepoDigests = names(r.entries)
	b.RepoDigests = untagged(b.RepoDigests, b.RepoTags)
	b.Size = s.size(target, r.members)
	for _, m := range r.members {
		if m.Kind == wire.ManifestKindImage {
			b.ContentSize += m.Size
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
func (s *Inventory) size(target ocispec.Descriptor, members []catalog.Member) int64 {
	var size int64
	if content.IsIndex(target.MediaType) {
		size, _ = s.Content.Size(target.Digest)
	}
	for _, m := range members {
		size += m.Size
	}
	for _, chain := range catalog.ChainsOf(members) {
		size += s.Layers.Size(chain)
	}
	return size
}

func (s *Inventory) unpackedSize(m catalog.Member) (size int64) {
	if m.Detail != nil {
		for _, chain := range m.Detail.Chains {
			size += s.Layers.Size(chain)
		}
	}
	return size
}

func (s *Inventory) manifestSummaries(members []catalog.Member, uses []catalog.Use) []wire.ManifestSummary {
	list := make([]wire.ManifestSummary, 0, len(members))
	for _, m := range members {
		sum := wire.ManifestSummary{ID: m.Desc.Digest.String(), Descriptor: m.Desc, Available: m.Available, Kind: m.Kind}
		sum.Size.Content = m.Size
		sum.Size.Total = m.Size
		switch {
		case m.Kind == wire.ManifestKindAttestation:
			sum.AttestationData = &wire.AttestationProperties{For: m.Attests}
		case m.Kind == wire.ManifestKindImage:
			sum.ImageData = &wire.ImageProperties{Platform: m.Platform, Containers: []string{}}
			sum.ImageData.Size.Unpacked = s.unpackedSize(m)
			sum.Size.Total += sum.ImageData.Size.Unpacked
			// Containers run this machine's platform unless told otherwise.
			if platform.Matches(platform.Host(), m.Platform) || len(members) == 1 {
				for _, u := range uses {
					sum.ImageData.Containers = append(sum.ImageData.Containers, u.Container)
				}
			}
		}
		list = append(list, sum)
	}
	return list
}
