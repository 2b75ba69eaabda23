package storagetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// expiring deletes what is still as it was read, and nothing else.
func expiring(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	one, two := PushImage(t, s, "a", 1, "v"), PushImage(t, s, "a", 10)
	old := tagOf(t, s, "v")
	ok(t, s.PutManifest(ctx, "a", two, storage.NewTag{Name: "v"}))
	is(t, s.ExpireTag(ctx, "a", old), fault.Conflict)
	ok(t, s.PutManifest(ctx, "a", one, storage.NewTag{Name: "v"}))
	old = tagOf(t, s, "v")
	until(t, "a tag that is set again is as old as before", func() bool {
		ok(t, s.PutManifest(ctx, "a", one, storage.NewTag{Name: "v"}))
		return tagOf(t, s, "v").Updated.After(old.Updated)
	})
	is(t, s.ExpireTag(ctx, "a", old), fault.Conflict)

	d, index := one.Descriptor.Digest, Index(one.Descriptor)
	is(t, s.ExpireManifest(ctx, "a", d, updated(t, s, d), 0), fault.Conflict) // it has a tag
	ok(t, s.ExpireTag(ctx, "a", tagOf(t, s, "v")))
	is(t, s.ExpireTag(ctx, "a", old), fault.NotFound)
	for _, again := range []storage.Manifest{one, index} {
		before := updated(t, s, d)
		until(t, "a manifest that is put again is as old as before", func() bool {
			ok(t, s.PutManifest(ctx, "a", again))
			return updated(t, s, d).After(before)
		})
		is(t, s.ExpireManifest(ctx, "a", d, before, 0), fault.Conflict)
		Whole(t, s, "a", d)
	}
	ok(t, s.ExpireManifest(ctx, "a", d, updated(t, s, d), 0))
	is(t, s.ExpireManifest(ctx, "a", d, time.Time{}, 0), fault.NotFound)
	is(t, s.ExpireManifest(ctx, "none", d, time.Time{}, 0), fault.NotFound)
	is(t, s.ExpireTag(ctx, "none", old), fault.NotFound)
	same(t, collect(t, s, 0).Blobs >= 3, true) // its blobs have nobody else
	Whole(t, s, "a", two.Descriptor.Digest)
}

// expireAndPut has a manifest expire in the moment in which it is tagged.
func expireAndPut(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a", 1)
	d := image.Descriptor.Digest
	for range 20 {
		var both sync.WaitGroup
		read := updated(t, s, d)
		both.Go(func() {
			if err := s.PutManifest(ctx, "a", image, storage.NewTag{Name: "v"}); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			err := s.ExpireManifest(ctx, "a", d, read, 0)
			if err != nil && !errors.Is(err, fault.Conflict) {
				t.Error(err)
			}
		})
		both.Wait()
		same(t, tagOf(t, s, "v").Target.Digest, d)
		Whole(t, s, "a", d)
		ok(t, s.DeleteTag(ctx, "a", "v"))
	}
}

// keptManifest: a manifest that was told of does not expire within the grace.
func keptManifest(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a", 1)
	d := image.Descriptor.Digest
	read := updated(t, s, d)
	ok(t, s.KeepManifest(ctx, "a", d))
	is(t, s.ExpireManifest(ctx, "a", d, read, time.Hour), fault.Conflict)
	Whole(t, s, "a", d)
	ok(t, s.ExpireManifest(ctx, "a", d, read, 0)) // that it was kept does not make it younger
	is(t, s.KeepManifest(ctx, "a", d), fault.NotFound)
	is(t, s.KeepManifest(ctx, "none", d), fault.NotFound)
}

// fixedTags keep what they point to, and all other tags of it.
func fixedTags(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a", 1, "v1", "w")
	other := PushImage(t, s, "a", 10, "v2", "x")
	d := image.Descriptor.Digest
	v1 := func(tag string) bool { return tag == "v1" }
	is(t, s.DeleteManifest(ctx, "a", d, v1), fault.Conflict)
	tags, err := s.Tags(ctx, "a", "", -1)
	ok(t, err)
	same(t, tags, []string{"v1", "v2", "w", "x"})
	ok(t, s.DeleteManifest(ctx, "a", other.Descriptor.Digest, v1))
	tags, err = s.Tags(ctx, "a", "", -1)
	ok(t, err)
	same(t, tags, []string{"v1", "w"})
	ok(t, s.PutManifest(ctx, "a", image, storage.NewTag{Name: "v1", Immutable: true})) // nothing of the refusal is left
	Whole(t, s, "a", d)
}

// fixing has a tag that must not change be set while its manifest is deleted.
func fixing(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a", 1, "w")
	d := image.Descriptor.Digest
	for range 8 {
		var both sync.WaitGroup
		both.Go(func() {
			err := s.PutManifest(ctx, "a", image, storage.NewTag{Name: "v1", Immutable: true})
			if missing := (*storage.MissingError)(nil); err != nil && !errors.As(err, &missing) {
				t.Error(err)
			}
		})
		both.Go(func() {
			err := s.DeleteManifest(ctx, "a", d, func(tag string) bool { return tag == "v1" })
			if err != nil && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.NotFound) {
				t.Error(err)
			}
		})
		both.Wait()
		same(t, tagOf(t, s, "v1").Target.Digest, d) // nobody has taken it away again
		Whole(t, s, "a", d)
		ok(t, s.DeleteTag(ctx, "a", "v1"))
	}
}

func tagOf(t *testing.T, s storage.Storage, name string) storage.Tag {
	t.Helper()
	tag, err := s.Tag(t.Context(), "a", name)
	ok(t, err)
	return tag
}

func updated(t *testing.T, s storage.Storage, d digest.Digest) time.Time {
	t.Helper()
	m, err := s.Manifest(t.Context(), "a", d)
	ok(t, err)
	return m.Updated
}

// until waits for something that takes a storage's clock to move.
func until(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}
