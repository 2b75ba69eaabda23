package retention

import (
	"context"
	"errors"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// page is how many names are asked for at a time.
const page = 256

// Run carries out the policies of all repositories; do is called for each
// deletion that was made. Without apply nothing is deleted. What a client
// has pushed or tagged since the plan was made stays, to be looked at the next
// time, as does a manifest that one has asked for within the grace.
func (r Rules) Run(ctx context.Context, s storage.Storage, apply bool, grace time.Duration, do func(Deletion)) error {
	for last := ""; ; {
		names, err := s.Repositories(ctx, last, page)
		if err != nil || len(names) == 0 {
			return err
		}
		last = names[len(names)-1]
		for _, name := range names {
			if err := r.repository(ctx, s, name, apply, grace, do); err != nil && !errors.Is(err, fault.NotFound) {
				return err
			}
		}
	}
}

func (r Rules) repository(ctx context.Context, s storage.Storage, name string, apply bool, grace time.Duration, do func(Deletion)) error {
	e := r.entry(name)
	if e.Policy == nil {
		return nil
	}
	c, err := read(ctx, s, name)
	if err != nil {
		return err
	}
	for _, d := range Plan(name, *e.Policy, c, e.Immutable.Match, time.Now()) {
		if apply {
			err := d.carryOut(ctx, s, grace)
			if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) {
				continue
			}
			if err != nil {
				return err
			}
		}
		do(d)
	}
	return nil
}

// read lists what a repository has. What goes in the meantime is left out.
func read(ctx context.Context, s storage.Storage, repo string) (c Contents, err error) {
	tags, err := s.Tags(ctx, repo, "", -1)
	if err != nil {
		return c, err
	}
	digests, err := s.Manifests(ctx, repo, "", -1)
	if err != nil {
		return c, err
	}
	for _, name := range tags {
		t, err := s.Tag(ctx, repo, name)
		switch {
		case err == nil:
			c.Tags = append(c.Tags, t)
		case !errors.Is(err, fault.NotFound):
			return c, err
		}
	}
	for _, d := range digests {
		m, err := s.Manifest(ctx, repo, d)
		switch {
		case err == nil:
			one := Manifest{Digest: d, Updated: m.Updated, Subject: m.Subject}
			for _, child := range m.Manifests {
				one.Children = append(one.Children, child.Digest)
			}
			c.Manifests = append(c.Manifests, one)
		case !errors.Is(err, fault.NotFound):
			return c, err
		}
	}
	return c, nil
}

// carryOut deletes what is still as it was planned.
func (d Deletion) carryOut(ctx context.Context, s storage.Storage, grace time.Duration) error {
	if d.Tag == "" {
		return s.ExpireManifest(ctx, d.Repository, d.Digest, d.Updated, grace)
	}
	return s.ExpireTag(ctx, d.Repository, storage.Tag{Name: d.Tag, Target: ocispec.Descriptor{Digest: d.Digest}, Updated: d.Updated})
}
