package image

import (
	"context"
	"log/slog"
	"slices"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/reference"
)

// removal is what removing by some words comes to.
type removal struct {
	untag  []content.Entry // these names go
	delete bool            // and the image with them
	// parents are images without a name that were here for its sake alone, the one
	// that it was made of first; they go with it.
	parents []digest.Digest
}

// Remove takes a name from an image, and the image itself when that was the
// last one or when it was called by its ID. What containers use, or what has
// several names and is called by its ID, needs force (fault.Conflict with
// Docker's words); an image that a running container uses is never deleted, nor one
// that another here was made of: without a name it is part of that one's history,
// and goes with the last such. The answer lists what was untagged and deleted.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]wire.DeleteResponse, error) {
	if len(o.Platforms) > 0 {
		return s.removePlatforms(ctx, ref, o)
	}
	// Not by find, which would make the built-in image in order to remove it.
	first, err := catalog.Lookup(s.content.Index(), ref)
	if err != nil {
		return nil, err
	}
	// Asked before the index is locked: who is asked has locks of its own.
	uses := s.Catalog.Uses()
	var plan removal
	err = s.content.Update(func(ix *content.Index) (*content.Index, error) {
		f, err := catalog.Lookup(ix, ref)
		if err == nil && f.Target.Digest != first.Target.Digest {
			err = fault.New(fault.Conflict, "image %s was changed while it was being removed: try again", ref)
		}
		if err != nil {
			return nil, err
		}
		if plan, err = planRemoval(f, uses[f.Target.Digest], ix.HasChildren(f.Target.Digest), o.Force); err != nil {
			return nil, err
		}
		for _, e := range plan.untag {
			ix = ix.Without(e.Name, e.Target.Digest, !plan.delete)
		}
		if plan.delete && !o.NoPrune {
			ix, plan.parents = withoutParents(ix, f.All[0].Parent, uses)
		}
		return ix, nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.content.Collect(); err != nil {
		// The image is gone all the same; its space is not back yet.
		slog.WarnContext(ctx, "nothing was cleaned up in the image store", "error", err)
	}
	return s.tellRemoval(first, plan), nil
}

// withoutParents takes an image away that has no name, no container and nothing that
// was made of it any more, and then likewise what it was made of.
func withoutParents(ix *content.Index, parent digest.Digest, uses map[digest.Digest][]catalog.Use) (_ *content.Index, gone []digest.Digest) {
	for parent != "" {
		entries := ix.Of(parent)
		if len(entries) != 1 || entries[0].Name != "" || len(uses[parent]) > 0 || ix.HasChildren(parent) {
			break
		}
		ix, gone = ix.Without("", parent, false), append(gone, parent)
		parent = entries[0].Parent
	}
	return ix, gone
}

// tellRemoval publishes what went, with its name alone, as Docker does.
func (s *Service) tellRemoval(f catalog.Found, plan removal) []wire.DeleteResponse {
	var answer []wire.DeleteResponse
	id := f.Target.Digest.String()
	tell := func(action, id, name string) {
		if s.events != nil {
			s.events.Publish(action, id, map[string]string{"name": name})
		}
	}
	for _, e := range plan.untag {
		if e.Name != "" {
			name := reference.Familiar(e.Name)
			answer = append(answer, wire.DeleteResponse{Untagged: name})
			tell("untag", id, name)
		}
	}
	if plan.delete {
		answer = append(answer, wire.DeleteResponse{Deleted: id})
		tell("delete", id, id)
	}
	for _, d := range plan.parents {
		answer = append(answer, wire.DeleteResponse{Deleted: d.String()})
		tell("delete", d.String(), d.String())
	}
	return answer
}

// planRemoval decides what goes, with Docker's rules.
func planRemoval(f catalog.Found, uses []catalog.Use, parent, force bool) (removal, error) {
	if f.Name != "" {
		same := sameNames(f)
		if len(same) < len(f.All) {
			return removal{untag: same}, nil
		}
		if len(uses) > 0 && !f.ByDigest {
			if !force {
				return removal{}, conflict(reference.Familiar(f.Name), "must be forced",
					"container "+short(uses[0].Container)+" is using its referenced image "+shortID(f.Target.Digest))
			}
			// The container keeps the image, which has no name any more.
			return removal{untag: f.All}, nil
		}
		if parent { // the others keep it
			return removal{untag: f.All}, nil
		}
	}
	id := shortID(f.Target.Digest)
	if parent {
		return removal{}, conflict(id, "cannot be forced", "image has dependent child images")
	}
	if i := slices.IndexFunc(uses, func(u catalog.Use) bool { return u.Running }); i >= 0 {
		return removal{}, conflict(id, "cannot be forced", "image is being used by running container "+short(uses[i].Container))
	}
	if !force && len(uses) > 0 {
		return removal{}, conflict(id, "must be forced", "image is being used by stopped container "+short(uses[0].Container))
	}
	if !force && f.Name == "" && len(f.All) > 1 {
		return removal{}, conflict(id, "must be forced", "image is referenced in multiple repositories")
	}
	return removal{untag: f.All, delete: true}, nil
}

// sameNames gives the names that go together with the one that was called: of
// a name with a digest, all of its repository; of a tag, the repository's names
// without one too, unless that has another tag.
func sameNames(f catalog.Found) []content.Entry {
	called, err := reference.ParseBare(f.Name)
	var tagged, untagged []content.Entry
	others := false
	for _, e := range f.All {
		r, e2 := reference.ParseBare(e.Name)
		switch {
		case e.Name == f.Name || f.ByDigest && err == nil && e2 == nil && r.Repository() == called.Repository():
			tagged = append(tagged, e)
		case err != nil || e2 != nil || e.Name == "" || r.Repository() != called.Repository():
		case r.Tag == "":
			untagged = append(untagged, e)
		default:
			others = true
		}
	}
	if others {
		return tagged
	}
	return append(tagged, untagged...)
}

func conflict(what, force, why string) error {
	return fault.New(fault.Conflict, "conflict: unable to delete %s (%s) - %s", what, force, why)
}

func short(id string) string { return id[:min(len(id), 12)] }

func shortID(d digest.Digest) string { return short(d.Encoded()) }
