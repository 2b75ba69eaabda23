package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// collect collects until there is nothing left to be collected.
func collect(t testing.TB, s storage.Storage, grace time.Duration) (all storage.Collected) {
	t.Helper()
	for range 5 {
		c, err := s.Collect(t.Context(), grace)
		ok(t, err)
		all.Blobs, all.Uploads, all.Bytes = all.Blobs+c.Blobs, all.Uploads+c.Uploads, all.Bytes+c.Bytes
		if c == (storage.Collected{}) {
			return all
		}
	}
	t.Error("there is always something more to collect")
	return all
}

func collecting(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	kept, gone := PushImage(t, s, "a", 1, "kept"), PushImage(t, s, "a", 101, "gone")
	ok(t, s.PutManifest(ctx, "a", Index(kept.Descriptor, gone.Descriptor)))
	shared := Push(t, s, "b", Bytes(101, 300)) // gone's config, which nothing keeps here either
	stray := Push(t, s, "a", Bytes(500, 1000))
	u, err := s.CreateUpload(ctx, "a", digest.SHA256)
	ok(t, err)
	_, err = u.Append(ctx, bytes.NewReader(Bytes(501, 300_000)))
	ok(t, err)
	collectNothing := collect(t, s, time.Hour)
	same(t, collectNothing, storage.Collected{})
	ok(t, s.DeleteManifest(ctx, "a", gone.Descriptor.Digest, nil))
	all := collect(t, s, 0)
	same(t, all.Uploads, 0) // it is open
	// Three of the image and the stray one; the manifest, where that did not go at once.
	blobs, size := 4, 300+70_000+5000+1000
	if all.Blobs == 5 {
		blobs, size = 5, size+len(gone.Data)
	}
	same(t, all.Blobs, blobs)
	same(t, all.Bytes, int64(size))
	for _, d := range []digest.Digest{gone.Blobs[1].Digest, stray.Digest} {
		_, err = s.Blob(ctx, "a", d)
		is(t, err, fault.NotFound)
	}
	_, err = s.Blob(ctx, "b", shared.Digest)
	is(t, err, fault.NotFound)
	Whole(t, s, "a", kept.Descriptor.Digest)
	ok(t, u.Close())
	all = collect(t, s, 0)
	same(t, all.Uploads, 1)
	_, err = s.OpenUpload(ctx, "a", u.ID())
	is(t, err, fault.NotFound)
	again := PushImage(t, s, "a", 101, "gone")
	Whole(t, s, "a", again.Descriptor.Digest)
}

// grace has blobs stay that somebody was told of.
func grace(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	const long = time.Hour
	image := PushImage(t, s, "a", 1, "v")
	stray := Push(t, s, "a", Bytes(9, 10))
	_, err := s.Mount(ctx, "b", "a", image.Blobs[0].Digest)
	ok(t, err)
	ok(t, s.DeleteManifest(ctx, "a", image.Descriptor.Digest, nil))
	same(t, collect(t, s, long).Blobs, 0)
	for _, b := range append(image.Blobs, stray) {
		Read(t, s, "a", b.Digest)
	}
	Read(t, s, "b", image.Blobs[0].Digest)
	ok(t, s.PutManifest(ctx, "a", image))
	collect(t, s, 0)
	Whole(t, s, "a", image.Descriptor.Digest)
}

// restart opens what was left without an end.
func restart(t *testing.T, m Maker) {
	s := m.Open(t)
	ctx := t.Context()
	data := Bytes(7, 3_000_000)
	image := PushImage(t, s, "a/b", 1, "v")
	u, err := s.CreateUpload(ctx, "a/b", digest.SHA512)
	ok(t, err)
	_, err = u.Append(ctx, bytes.NewReader(data[:2_000_001]))
	ok(t, err)
	stray := Push(t, s, "a/b", Bytes(9, 10))
	s = m.Reopen(t, s)
	t.Cleanup(func() { ok(t, s.Close()) })
	tag, err := s.Tag(ctx, "a/b", "v")
	ok(t, err)
	same(t, tag.Target, image.Descriptor)
	Whole(t, s, "a/b", tag.Target.Digest)
	collect(t, s, time.Hour)
	Read(t, s, "a/b", stray.Digest)
	u, err = s.OpenUpload(ctx, "a/b", u.ID())
	ok(t, err)
	same(t, u.Size(), int64(2_000_001))
	_, err = u.Append(ctx, bytes.NewReader(data[2_000_001:]))
	ok(t, err)
	ok(t, u.Commit(ctx, digest.SHA512.FromBytes(data)))
	ok(t, u.Close())
	Read(t, s, "a/b", digest.SHA512.FromBytes(data))
}

// racing pushes the same few images while they are deleted and collected. A
// manifest that was put is whole.
func racing(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for n := range 4 {
		wg.Go(func() {
			defer func() {
				if n == 0 {
					close(stop)
				}
			}()
			for i := range 30 {
				repo, seed := fmt.Sprintf("r%d", n%2), uint64(1+(i+n)%3)
				if image, ok := tryPush(t, s, repo, seed); ok && i%2 == 0 {
					_ = s.DeleteManifest(ctx, repo, image, nil)
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Of another grace than 0 nothing would be collected.
			if _, err := s.Collect(ctx, 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	for _, repo := range []string{"r0", "r1"} {
		list, err := s.Manifests(ctx, repo, "", -1)
		if !errors.Is(err, fault.NotFound) {
			ok(t, err)
		}
		for _, d := range list {
			Whole(t, s, repo, d)
		}
	}
}

// tryPush pushes an image. That a blob was collected before its manifest came is
// to be expected: there is no grace.
func tryPush(t *testing.T, s storage.Storage, repo string, seed uint64) (digest.Digest, bool) {
	image := Image(Push(t, s, repo, Bytes(seed, 100)), Push(t, s, repo, Bytes(seed+1000, 200_000)))
	err := s.PutManifest(t.Context(), repo, image, storage.NewTag{Name: fmt.Sprint("v", seed)})
	var missing *storage.MissingError
	if err != nil && !errors.As(err, &missing) {
		t.Error(err)
	}
	return image.Descriptor.Digest, err == nil
}

// sharing uploads the same bytes at the same time, and others that begin in the
// same way. Each is whole, whatever becomes of the rest.
func sharing(t *testing.T, m Maker) {
	s := open(t, m)
	var wg sync.WaitGroup
	common := Bytes(1, 1_500_000)
	for n := range 8 {
		wg.Go(func() {
			data := append(bytes.Clone(common[:len(common)-(n/2)*100_000]), Bytes(uint64(50+n/2), 400_000+n/4)...)
			u, err := s.CreateUpload(t.Context(), fmt.Sprint("r", n), digest.SHA256)
			if err != nil {
				t.Error(err)
				return
			}
			defer u.Close()
			for at := 0; at < len(data); at += 333_333 {
				if _, err := u.Append(t.Context(), bytes.NewReader(data[at:min(at+333_333, len(data))])); err != nil {
					t.Error(err)
				}
				if n == 5 && at > 1_000_000 {
					if err := u.Cancel(t.Context()); err != nil {
						t.Error(err)
					}
					return
				}
			}
			if err := u.Commit(t.Context(), digest.FromBytes(data)); err != nil {
				t.Error(err)
				return
			}
			if got := Read(t, s, fmt.Sprint("r", n), digest.FromBytes(data)); !bytes.Equal(got, data) {
				t.Errorf("upload %d is another blob", n)
			}
		})
	}
	wg.Wait()
}
