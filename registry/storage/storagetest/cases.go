package storagetest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

func blobs(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	for _, size := range []int{0, 1, 127 << 10, 300_000, 6<<20 + 17} {
		data := Bytes(uint64(size), size)
		d := Push(t, s, "a/b", data).Digest
		if !bytes.Equal(Read(t, s, "a/b", d), data) {
			t.Errorf("the blob of %d bytes is another one", size)
		}
		_, err := s.Blob(ctx, "a/c", d)
		is(t, err, fault.NotFound)
	}
	data := Bytes(1, 1000)
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		ok(t, Upload(t, s, "a/b", a.FromBytes(data), data))
		Read(t, s, "a/b", a.FromBytes(data))
	}
	u, err := s.CreateUpload(ctx, "a/b", digest.SHA256) // and of another algorithm than said
	ok(t, err)
	defer u.Close()
	_, err = u.Append(ctx, bytes.NewReader(Bytes(2, 1<<20)))
	ok(t, err)
	ok(t, u.Commit(ctx, digest.SHA512.FromBytes(Bytes(2, 1<<20))))
	Read(t, s, "a/b", digest.SHA512.FromBytes(Bytes(2, 1<<20)))

	d := Push(t, s, "a/b", Bytes(3, 10)).Digest
	ok(t, s.DeleteBlob(ctx, "a/b", d))
	_, err = s.Blob(ctx, "a/b", d)
	is(t, err, fault.NotFound)
	is(t, s.DeleteBlob(ctx, "a/b", d), fault.NotFound)
	is(t, s.DeleteBlob(ctx, "none", d), fault.NotFound)
	Push(t, s, "a/b", Bytes(3, 10))
	Read(t, s, "a/b", d)
}

func uploads(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	data := Bytes(1, 3<<20)
	d := digest.FromBytes(data)
	u, err := s.CreateUpload(ctx, "a", digest.SHA256)
	ok(t, err)
	id := u.ID()
	_, err = s.OpenUpload(ctx, "a", id)
	is(t, err, fault.Conflict)
	ok(t, u.Close())
	for at := 0; at < len(data); {
		u, err = s.OpenUpload(ctx, "a", id)
		ok(t, err)
		if u.Size() != int64(at) || u.ID() != id {
			t.Fatalf("the upload %s has %d bytes instead of %d", u.ID(), u.Size(), at)
		}
		end := min(at+at/2+70_001, len(data))
		n, err := u.Append(ctx, bytes.NewReader(data[at:end]))
		ok(t, err)
		at += int(n)
		ok(t, u.Close())
	}
	_, err = s.OpenUpload(ctx, "b", id)
	is(t, err, fault.NotFound)
	u, err = s.OpenUpload(ctx, "a", id)
	ok(t, err)
	ok(t, u.Commit(ctx, d))
	ok(t, u.Close())
	if !bytes.Equal(Read(t, s, "a", d), data) {
		t.Error("the blob is another one")
	}
	for _, id := range []string{id, "none", "../registry.db", strings.Repeat("0", 32)} {
		_, err = s.OpenUpload(ctx, "a", id)
		is(t, err, fault.NotFound)
	}

	t.Run("broken off", func(t *testing.T) { brokenOff(t, s) })
	t.Run("wrong", func(t *testing.T) {
		is(t, Upload(t, s, "a", d, data[1:]), fault.Invalid)
		u, err := s.CreateUpload(ctx, "a", digest.SHA256)
		ok(t, err)
		_, err = u.Append(ctx, bytes.NewReader(data[1:]))
		ok(t, err)
		is(t, u.Commit(ctx, d), fault.Invalid)
		ok(t, u.Close())
		_, err = s.OpenUpload(ctx, "a", u.ID())
		is(t, err, fault.NotFound)
	})
	t.Run("cancelled", func(t *testing.T) {
		u, err := s.CreateUpload(ctx, "a", digest.SHA256)
		ok(t, err)
		_, err = u.Append(ctx, bytes.NewReader(data))
		ok(t, err)
		ok(t, u.Cancel(ctx))
		ok(t, u.Close())
		_, err = s.OpenUpload(ctx, "a", u.ID())
		is(t, err, fault.NotFound)
	})
}

// brokenOff has readers fail: what they gave before stays.
func brokenOff(t *testing.T, s storage.Storage) {
	ctx := t.Context()
	data := Bytes(4, 2<<20)
	u, err := s.CreateUpload(ctx, "a", digest.SHA256)
	ok(t, err)
	for _, cut := range []struct {
		end int
		err error
	}{{1_000_000, io.ErrUnexpectedEOF}, {1_500_001, errors.New("the line broke")}} {
		from := u.Size()
		n, err := u.Append(ctx, io.MultiReader(bytes.NewReader(data[from:cut.end]), iotest.ErrReader(cut.err)))
		if !errors.Is(err, cut.err) || n != int64(cut.end)-from || u.Size() != int64(cut.end) {
			t.Fatalf("%d bytes were taken, the size is %d: %v", n, u.Size(), err)
		}
		ok(t, u.Close())
		u, err = s.OpenUpload(ctx, "a", u.ID())
		ok(t, err)
	}
	slowly := len(data) - 50_000
	_, err = u.Append(ctx, io.MultiReader(bytes.NewReader(data[u.Size():slowly]), iotest.OneByteReader(bytes.NewReader(data[slowly:]))))
	ok(t, err)
	ok(t, u.Commit(ctx, digest.FromBytes(data)))
	ok(t, u.Close())
	Read(t, s, "a", digest.FromBytes(data))
}

func mounts(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	d := Push(t, s, "a", Bytes(1, 1000)).Digest
	for range 2 {
		size, err := s.Mount(ctx, "b", "a", d)
		ok(t, err)
		same(t, size, int64(1000))
	}
	ok(t, s.DeleteBlob(ctx, "a", d))
	_, err := s.Collect(ctx, time.Hour)
	ok(t, err)
	Read(t, s, "b", d)
	_, err = s.Mount(ctx, "c", "a", d)
	is(t, err, fault.NotFound)
	_, err = s.Mount(ctx, "c", "none", d)
	is(t, err, fault.NotFound)
	_, err = s.Blob(ctx, "c", d)
	is(t, err, fault.NotFound)
}

func manifests(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a/b", 1, "v1", "latest")
	got, err := s.Manifest(ctx, "a/b", image.Descriptor.Digest)
	ok(t, err)
	same(t, got.Data, image.Data)
	same(t, got.Descriptor, image.Descriptor)
	if since := time.Since(got.Updated); since < -time.Minute || since > time.Minute {
		t.Errorf("a manifest that was put just now is of %v", got.Updated)
	}
	for range 2 { // read, and read again
		Whole(t, s, "a/b", image.Descriptor.Digest)
	}
	for i, b := range image.Blobs {
		same(t, got.Blobs[i].Digest, b.Digest)
		same(t, got.Blobs[i].Size, b.Size)
		is(t, s.DeleteBlob(ctx, "a/b", b.Digest), fault.Conflict)
	}
	_, err = s.Manifest(ctx, "other", image.Descriptor.Digest)
	is(t, err, fault.NotFound)
	_, err = s.Manifest(ctx, "a/b", digest.FromString("none"))
	is(t, err, fault.NotFound)

	other := Image(Push(t, s, "other", Bytes(9, 10)), image.Blobs[1])
	err = s.PutManifest(ctx, "other", other)
	var missing *storage.MissingError
	if !errors.As(err, &missing) || len(missing.Digests) != 1 || missing.Digests[0] != image.Blobs[1].Digest {
		t.Errorf("a manifest with a layer of another repository: %v", err)
	}
	is(t, err, fault.NotFound)
	_, err = s.Manifest(ctx, "other", other.Descriptor.Digest)
	is(t, err, fault.NotFound)

	absent := describe(ocispec.MediaTypeImageManifest, []byte("absent"))
	index := Index(image.Descriptor, absent)
	ok(t, s.PutManifest(ctx, "a/b", index, storage.NewTag{Name: "multi"}))
	got, err = s.Manifest(ctx, "a/b", index.Descriptor.Digest)
	ok(t, err)
	same(t, got.Manifests, index.Manifests)
	ok(t, s.PutManifest(ctx, "empty", Index()))

	ok(t, s.DeleteManifest(ctx, "a/b", image.Descriptor.Digest, nil))
	for _, tag := range []string{"v1", "latest"} {
		_, err = s.Tag(ctx, "a/b", tag)
		is(t, err, fault.NotFound)
	}
	is(t, s.DeleteManifest(ctx, "a/b", image.Descriptor.Digest, nil), fault.NotFound)
	_, err = s.Manifest(ctx, "a/b", image.Descriptor.Digest)
	is(t, err, fault.NotFound)
	_, err = s.Manifest(ctx, "a/b", index.Descriptor.Digest)
	ok(t, err)
}

// growing has a manifest that is put before all that it names is there, as a copy
// of an image is while it comes.
func growing(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	whole := Image(Push(t, s, "a", Bytes(1, 300)), Push(t, s, "other", Bytes(2, 70_000)), Push(t, s, "other", Bytes(3, 5000)))
	d := whole.Descriptor.Digest
	put := func(blobs int, tags ...storage.NewTag) {
		t.Helper()
		part := whole
		part.Blobs = whole.Blobs[:blobs]
		ok(t, s.PutManifest(ctx, "a", part, tags...))
	}
	put(1, storage.NewTag{Name: "v1"})
	_, err := s.Mount(ctx, "a", "other", whole.Blobs[1].Digest)
	ok(t, err)
	put(2)
	collect(t, s, 0) // takes what is in other
	for _, b := range whole.Blobs[:2] {
		Read(t, s, "a", b.Digest)
	}
	Push(t, s, "a", Bytes(3, 5000))
	put(3)
	collect(t, s, 0)
	Whole(t, s, "a", d)
	got, err := s.Manifest(ctx, "a", d)
	ok(t, err)
	same(t, len(got.Blobs), 3)
	is(t, s.DeleteBlob(ctx, "a", whole.Blobs[2].Digest), fault.Conflict)
	tag, err := s.Tag(ctx, "a", "v1")
	ok(t, err)
	same(t, tag.Target.Digest, d)
	ok(t, s.DeleteManifest(ctx, "a", d, nil))
	collect(t, s, 0)
	repos, err := s.Repositories(ctx, "", -1)
	ok(t, err)
	same(t, len(repos), 0)
}

func tags(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	before := time.Now().Add(-time.Minute)
	first, second := PushImage(t, s, "a", 1, "v"), PushImage(t, s, "a", 11)
	tag, err := s.Tag(ctx, "a", "v")
	ok(t, err)
	same(t, tag.Target, first.Descriptor)
	same(t, tag.Name, "v")
	if tag.Updated.Before(before) || tag.Updated.After(time.Now().Add(time.Minute)) {
		t.Errorf("the tag is of %v", tag.Updated)
	}
	is(t, s.PutManifest(ctx, "a", second, storage.NewTag{Name: "new"}, storage.NewTag{Name: "v", Immutable: true}), fault.Conflict)
	_, err = s.Tag(ctx, "a", "new")
	is(t, err, fault.NotFound) // all or nothing
	ok(t, s.PutManifest(ctx, "a", first, storage.NewTag{Name: "v", Immutable: true}))
	ok(t, s.PutManifest(ctx, "a", second, storage.NewTag{Name: "v"}))
	tag, err = s.Tag(ctx, "a", "v")
	ok(t, err)
	same(t, tag.Target.Digest, second.Descriptor.Digest)
	ok(t, s.DeleteTag(ctx, "a", "v"))
	is(t, s.DeleteTag(ctx, "a", "v"), fault.NotFound)
	is(t, s.DeleteTag(ctx, "none", "v"), fault.NotFound)
	_, err = s.Tag(ctx, "a", "v")
	is(t, err, fault.NotFound)
	Whole(t, s, "a", second.Descriptor.Digest)
	Whole(t, s, "a", first.Descriptor.Digest)
}

func lists(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	list, err := s.Repositories(ctx, "", -1)
	ok(t, err)
	same(t, len(list), 0)
	_, err = s.Tags(ctx, "none", "", -1)
	is(t, err, fault.NotFound)
	for _, repo := range []string{"b", "a/x", "a-b", "a", "a.b/c"} {
		Push(t, s, repo, []byte(repo))
	}
	for _, tag := range []string{"v2", "v10", "V1", "_x", "latest"} {
		PushImage(t, s, "a", 1, tag)
	}
	all := []string{"a", "a-b", "a.b/c", "a/x", "b"}
	for last, want := range map[string][]string{"": all, "a": all[1:], "a-": all[1:], "a/x": all[4:], "b": nil, "zz": nil} {
		for n := -1; n < 7; n++ {
			list, err := s.Repositories(ctx, last, n)
			ok(t, err)
			end := len(want)
			if n >= 0 {
				end = min(n, end)
			}
			same(t, append([]string{}, list...), append([]string{}, want[:end]...))
		}
	}
	list, err = s.Tags(ctx, "a", "", -1)
	ok(t, err)
	same(t, list, []string{"V1", "_x", "latest", "v10", "v2"})
	list, err = s.Tags(ctx, "a", "_x", 2)
	ok(t, err)
	same(t, list, []string{"latest", "v10"})
	list, err = s.Tags(ctx, "b", "", -1) // it has a blob and no tag
	ok(t, err)
	same(t, len(list), 0)
	second := PushImage(t, s, "a", 20)
	digests, err := s.Manifests(ctx, "a", "", -1)
	ok(t, err)
	same(t, len(digests), 2)
	if digests[0] >= digests[1] || digests[0] != second.Descriptor.Digest && digests[1] != second.Descriptor.Digest {
		t.Errorf("the manifests are %v", digests)
	}
	rest, err := s.Manifests(ctx, "a", digests[0], 5)
	ok(t, err)
	same(t, rest, digests[1:])
	// A repository that has lost all is none.
	for _, d := range digests {
		ok(t, s.DeleteManifest(ctx, "a", d, nil))
	}
	is(t, s.DeleteBlob(ctx, "b", digest.FromString("none")), fault.NotFound)
	ok(t, s.DeleteBlob(ctx, "b", digest.FromString("b")))
	_, err = s.Collect(ctx, 0)
	ok(t, err)
	for _, repo := range []string{"a", "b"} {
		_, err = s.Tags(ctx, repo, "", -1)
		is(t, err, fault.NotFound)
	}
	list, err = s.Repositories(ctx, "", -1)
	ok(t, err)
	same(t, len(list), 0) // what only was a blob was due, too
}

// largeManifest is in memory once, however many read it.
func largeManifest(t *testing.T, m Maker) {
	s := open(t, m)
	config := Push(t, s, "a", []byte("{}"))
	doc := ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{config}, Annotations: map[string]string{"long": string(bytes.Repeat([]byte("x"), 3<<20))}}
	image := manifestOf(doc, "")
	ok(t, s.PutManifest(t.Context(), "a", image))
	const readers = 8
	got := make([]*storage.Manifest, readers)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			var err error
			if got[i], err = s.Manifest(t.Context(), "a", image.Descriptor.Digest); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, one := range got {
		if &one.Data[0] != &got[0].Data[0] {
			t.Error("a large manifest is in memory several times")
		}
	}
	same(t, digest.FromBytes(got[0].Data), image.Descriptor.Digest)
}

func referrers(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	image := PushImage(t, s, "a", 1, "v")
	config := Push(t, s, "a", []byte("{}"))
	sig, doc := Artifact(image.Descriptor, "application/sig", config), Artifact(image.Descriptor, "application/doc", config)
	early := Artifact(describe(ocispec.MediaTypeImageManifest, []byte("later")), "application/sig", config)
	for _, x := range []storage.Manifest{sig, doc, early, sig} {
		ok(t, s.PutManifest(ctx, "a", x))
	}
	list, err := s.Referrers(ctx, "a", image.Descriptor.Digest, "", -1)
	ok(t, err)
	same(t, len(list), 2)
	for _, d := range list {
		want := sig.Descriptor
		if d.Digest == doc.Descriptor.Digest {
			want = doc.Descriptor
		}
		same(t, d, want)
	}
	for last, n := digest.Digest(""), 0; n < 3; n++ { // by pages of one, of which the third is empty
		page, err := s.Referrers(ctx, "a", image.Descriptor.Digest, last, 1)
		ok(t, err)
		same(t, len(page), min(1, 2-n))
		if len(page) > 0 {
			same(t, page[0], list[n])
			last = page[0].Digest
		}
	}
	list, err = s.Referrers(ctx, "a", early.Subject, "", -1)
	ok(t, err)
	same(t, list, []ocispec.Descriptor{early.Descriptor})
	ok(t, s.DeleteManifest(ctx, "a", sig.Descriptor.Digest, nil))
	list, err = s.Referrers(ctx, "a", image.Descriptor.Digest, "", -1)
	ok(t, err)
	same(t, list, []ocispec.Descriptor{doc.Descriptor})
	for _, repo := range []string{"a", "none"} {
		list, err = s.Referrers(ctx, repo, digest.FromString("none"), "", -1)
		ok(t, err)
		same(t, len(list), 0)
	}
}

func usage(t *testing.T, m Maker) {
	s := open(t, m)
	ctx := t.Context()
	check := func(repo string, want int) {
		t.Helper()
		n, err := s.Usage(ctx, repo)
		ok(t, err)
		same(t, n, int64(want))
	}
	check("none", 0)
	data := Bytes(1, 1000)
	for range 2 {
		Push(t, s, "a", data)
		check("a", 1000)
	}
	image := PushImage(t, s, "a", 100, "v", "w")
	all := 1000 + 300 + 70_000 + 5000 + len(image.Data)
	check("a", all)
	ok(t, s.PutManifest(ctx, "a", image))
	check("a", all)
	Push(t, s, "a", image.Data) // each once
	check("a", all)
	_, err := s.Mount(ctx, "b", "a", digest.FromBytes(data))
	ok(t, err)
	check("b", 1000)
	ok(t, s.DeleteBlob(ctx, "a", digest.FromBytes(data)))
	check("a", all-1000)
	ok(t, s.DeleteManifest(ctx, "a", image.Descriptor.Digest, nil))
	ok(t, s.DeleteBlob(ctx, "a", image.Descriptor.Digest))
	_, err = s.Collect(ctx, 0)
	ok(t, err)
	check("a", 0)
}
