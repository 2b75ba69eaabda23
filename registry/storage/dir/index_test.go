package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not as wanted (-want +got):\n%s", diff)
	}
}

// dump is all that clients see of a registry.
func dump(t testing.TB, s *Storage) map[string]any {
	t.Helper()
	ctx, all := t.Context(), map[string]any{}
	repos, err := s.Repositories(ctx, "", -1)
	ok(t, err)
	for _, repo := range repos {
		tags, err := s.Tags(ctx, repo, "", -1)
		ok(t, err)
		for _, name := range tags {
			tag, err := s.Tag(ctx, repo, name)
			ok(t, err)
			all[repo+":"+name] = tag.Target
		}
		manifests, err := s.Manifests(ctx, repo, "", -1)
		ok(t, err)
		for _, d := range manifests {
			m, err := s.Manifest(ctx, repo, d)
			ok(t, err)
			if m.Updated.IsZero() {
				t.Errorf("nobody knows of when %s@%s is", repo, d)
			}
			same := *m
			same.Updated = time.Time{}
			all[repo+"@"+string(d)] = same
			storagetest.Whole(t, s, repo, d)
			list, err := s.Referrers(ctx, repo, d, "", -1)
			ok(t, err)
			all[repo+" refers to "+string(d)] = list
		}
		n, err := s.Usage(ctx, repo)
		ok(t, err)
		all["usage of "+repo] = n
	}
	return all
}

func withPlatform(d ocispec.Descriptor, arch string) ocispec.Descriptor {
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

// fillRegistry pushes something of each kind.
func fillRegistry(t testing.TB, s *Storage) {
	t.Helper()
	ctx := t.Context()
	for i, repo := range []string{"team/app", "busybox", "library/busybox", "alpine", "ghcr.io/x/y", "docker.io/a/b", "a/b", "index.docker.io/a/b", "localhost/z", "localhost"} {
		storagetest.PushImage(t, s, repo, uint64(100*i), "1", "v1.0_x")
	}
	tag := storage.NewTag{Name: "multi"}
	var platforms []ocispec.Descriptor
	for i, arch := range []string{"amd64", "arm64", "s390x", "riscv64"} {
		platforms = append(platforms, withPlatform(storagetest.PushImage(t, s, "team/app", uint64(5000+100*i)).Descriptor, arch))
	}
	index := storagetest.Index(platforms...)
	ok(t, s.PutManifest(ctx, "team/app", index, tag))
	nested := storagetest.Index(index.Descriptor)
	ok(t, s.PutManifest(ctx, "team/app", storagetest.Index(nested.Descriptor), storage.NewTag{Name: "nested"}))
	ok(t, s.PutManifest(ctx, "team/app", nested))
	untagged := storagetest.PushImage(t, s, "team/app", 9000)
	liar := withPlatform(untagged.Descriptor, "none")
	liar.MediaType = "application/no-manifest"
	ok(t, s.PutManifest(ctx, "team/app", storagetest.Index(liar)))
	config := storagetest.Push(t, s, "team/app", []byte("{}"))
	for _, subject := range []ocispec.Descriptor{index.Descriptor, untagged.Descriptor, platforms[0], {MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}} {
		subject.Platform = nil
		sig := storagetest.Artifact(subject, "application/sig", config)
		ok(t, s.PutManifest(ctx, "team/app", sig))
		ok(t, s.PutManifest(ctx, "team/app", storagetest.Artifact(sig.Descriptor, "application/countersig", config)))
	}
	// Bytes of other digests.
	data := storagetest.Bytes(77, 10_000)
	long := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.SHA512.FromBytes(data), Size: int64(len(data))}
	ok(t, storagetest.Upload(t, s, "long", long.Digest, data))
	m := storagetest.Image(long, long)
	m.Descriptor.Digest = digest.SHA512.FromBytes(m.Data)
	ok(t, s.PutManifest(ctx, "long", m, storage.NewTag{Name: "512"}))
}

// A registry that ended is an image store; one that used it leaves it as it was.
func TestImageStoreHasTheRegistrysImages(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	fillRegistry(t, s)
	before := dump(t, s)
	_, err := s.Collect(t.Context(), 0)
	ok(t, err)
	ok(t, s.Close())

	images, err := content.Open(root)
	ok(t, err)
	for _, name := range []string{"docker.io/team/app:1", "docker.io/library/busybox:1", "docker.io/library/alpine:v1.0_x", "ghcr.io/x/y:1", "localhost/z:1", "docker.io/library/long:512"} {
		e, found := images.Index().Lookup(name)
		if !found || e.Updated.IsZero() {
			t.Errorf("%s is there: %v, of %v", name, found, e.Updated)
			continue
		}
		n := 0
		ok(t, images.Walk(e.Target, func(ocispec.Descriptor, int64) error { n++; return nil }))
		if n < 2 {
			t.Errorf("%s leads to %d contents", name, n)
		}
	}
	multi, _ := images.Index().Lookup("docker.io/team/app:multi")
	same(t, len(images.Index().Attached(multi.Target.Digest)), 1)
	ok(t, images.Collect())
	// Another name, so that index.json is another program's.
	ok(t, images.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(content.Entry{Name: "docker.io/new/name:2", Target: multi.Target, Updated: time.Unix(1e9, 5)}), nil
	}))
	ok(t, images.Close())

	s = openAt(t, root)
	_, err = s.Collect(t.Context(), 0)
	ok(t, err)
	after := dump(t, s)
	tag, err := s.Tag(t.Context(), "new/name", "2")
	ok(t, err)
	same(t, tag.Target.Digest, multi.Target.Digest)
	if !tag.Updated.Equal(time.Unix(1e9, 5)) {
		t.Errorf("the tag is of %v", tag.Updated)
	}
	for key := range after {
		if strings.Contains(key, "new/name") {
			delete(after, key)
		}
	}
	same(t, after, before)
	ok(t, s.Close())
}

// putContent stores an image in an image store.
func putContent(t testing.TB, images *content.Store, algorithm digest.Algorithm, seed uint64) ocispec.Descriptor {
	t.Helper()
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := algorithm.FromBytes(data)
		_, err := images.Ingest(bytes.NewReader(data), d, int64(len(data)))
		ok(t, err)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	m := storagetest.Image(put(ocispec.MediaTypeImageConfig, storagetest.Bytes(seed, 50)), put(ocispec.MediaTypeImageLayer, storagetest.Bytes(seed+1, 2000)))
	return put(ocispec.MediaTypeImageManifest, m.Data)
}

func putIndex(t testing.TB, images *content.Store, list ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	m := storagetest.Index(list...)
	_, err := images.Put(m.Data)
	ok(t, err)
	return m.Descriptor
}

func name(t testing.TB, images *content.Store, entries ...content.Entry) {
	t.Helper()
	ok(t, images.Update(func(ix *content.Index) (*content.Index, error) { return ix.With(entries...), nil }))
}

// A registry serves what an image store has, and leaves all of it to the next one.
func TestRegistryServesAnImageStore(t *testing.T) {
	root := t.TempDir()
	images, err := content.Open(root)
	ok(t, err)
	at := time.Unix(1_700_000_000, 123)
	app, long, dangling, odd := putContent(t, images, digest.SHA256, 1), putContent(t, images, digest.SHA512, 10), putContent(t, images, digest.SHA256, 20), putContent(t, images, digest.SHA256, 30)
	multi := putIndex(t, images, withPlatform(app, "amd64"), withPlatform(long, "arm64"), withPlatform(storagetest.Index().Descriptor, "absent"))
	sig := storagetest.Artifact(app, "application/sig", ocispec.Descriptor{MediaType: "application/empty", Digest: digest.FromString("{}"), Size: 2})
	for _, data := range [][]byte{[]byte("{}"), sig.Data} {
		_, err := images.Put(data)
		ok(t, err)
	}
	twoFaced, err := images.Put([]byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"x","digest":"` +
		string(odd.Digest) + `","size":` + strconv.FormatInt(odd.Size, 10) + `},"layers":[],"fsLayers":[]}`))
	ok(t, err)
	noted := app
	noted.Annotations = map[string]string{"org.example": "kept"}
	name(t, images,
		content.Entry{Name: "docker.io/team/app:1", Target: noted, Updated: at},
		content.Entry{Name: "docker.io/library/busybox:latest", Target: long, Updated: at},
		content.Entry{Name: "ghcr.io/x/y:multi", Target: multi, Updated: at},
		content.Entry{Name: "docker.io/team/pinned@" + string(app.Digest), Target: app, Updated: at},
		content.Entry{Name: "localhost:5000/odd:1", Target: odd, Updated: at},
		content.Entry{Name: "docker.io/two/faced:1", Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: twoFaced, Size: 1}, Updated: at},
		content.Entry{Target: dangling, Updated: at})
	ok(t, images.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.Attach(app.Digest, "docker.io/team/app", true, sig.Descriptor), nil
	}))
	ok(t, images.Sync())
	ok(t, images.Close())
	before := entries(t, root)

	s := openAt(t, root)
	for ref, want := range map[string]digest.Digest{"team/app:1": app.Digest, "library/busybox:latest": long.Digest, "ghcr.io/x/y:multi": multi.Digest} {
		repo, name, _ := strings.Cut(ref, ":")
		tag, err := s.Tag(t.Context(), repo, name)
		ok(t, err)
		same(t, tag.Target.Digest, want)
		if !tag.Updated.Equal(at) {
			t.Errorf("%s is of %v", ref, tag.Updated)
		}
	}
	for repo, want := range map[string]int{"team/app": 2, "team/pinned": 2, "ghcr.io/x/y": 3} {
		list, err := s.Manifests(t.Context(), repo, "", -1)
		ok(t, err)
		if len(list) != want {
			t.Errorf("%s has %v", repo, list)
		}
		for _, d := range list {
			storagetest.Whole(t, s, repo, d)
		}
	}
	refs, err := s.Referrers(t.Context(), "team/app", app.Digest, "", -1)
	ok(t, err)
	same(t, refs, []ocispec.Descriptor{sig.Descriptor})
	repos, err := s.Repositories(t.Context(), "", -1)
	ok(t, err)
	same(t, repos, []string{"ghcr.io/x/y", "library/busybox", "team/app", "team/pinned"})
	c, err := s.Collect(t.Context(), 0)
	ok(t, err)
	same(t, c, storage.Collected{})
	storagetest.PushImage(t, s, "other", 500, "v")
	ok(t, s.DeleteManifest(t.Context(), "other", mustTag(t, s, "other", "v"), nil))
	ok(t, s.Close())
	after := entries(t, root)
	for i := range after { // the time of a name with a digest is of no use to a registry
		if strings.Contains(after[i].Name, "@") {
			after[i].Updated = at
		}
	}
	same(t, after, before)
	images, err = content.Open(root)
	ok(t, err)
	ok(t, images.Collect())
	for _, d := range []ocispec.Descriptor{dangling, odd, sig.Descriptor} {
		n := 0
		ok(t, images.Walk(d, func(ocispec.Descriptor, int64) error { n++; return nil }))
		if n < 2 {
			t.Errorf("%s is gone", d.Digest)
		}
	}
	ok(t, images.Close())
}

func mustTag(t testing.TB, s *Storage, repo, name string) digest.Digest {
	t.Helper()
	tag, err := s.Tag(t.Context(), repo, name)
	ok(t, err)
	return tag.Target.Digest
}

// entries lists the names of an image store in their order, without the
// annotations that a registry adds.
func entries(t testing.TB, root string) (list []content.Entry) {
	t.Helper()
	images, err := content.Open(root)
	ok(t, err)
	defer images.Close()
	for _, e := range images.Index().Entries() {
		e.Updated = e.Updated.Local()
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b content.Entry) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// What an image store removes and moves is so for the registry.
func TestImageStoreChangesNames(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	gone, moved := storagetest.PushImage(t, s, "a/b", 1, "gone", "moved"), storagetest.PushImage(t, s, "a/c", 100, "v")
	left := storagetest.PushImage(t, s, "a/d", 200, "left")
	pushed := storagetest.Push(t, s, "a/d", storagetest.Bytes(300, 100)) // no manifest names it
	ok(t, s.Close())
	images, err := content.Open(root)
	ok(t, err)
	e, _ := images.Index().Lookup("docker.io/a/c:v")
	name(t, images, content.Entry{Name: "docker.io/a/b:moved", Target: e.Target})
	ok(t, images.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.Without("docker.io/a/b:gone", gone.Descriptor.Digest, false).Without("docker.io/a/c:v", moved.Descriptor.Digest, false), nil
	}))
	ok(t, images.Collect())
	ok(t, images.Close())
	s = openAt(t, root)
	defer s.Close()
	ctx := t.Context()
	same(t, mustTag(t, s, "a/b", "moved"), moved.Descriptor.Digest)
	same(t, mustTag(t, s, "a/d", "left"), left.Descriptor.Digest)
	_, err = s.Manifest(ctx, "a/b", gone.Descriptor.Digest)
	is(t, err, fault.NotFound)
	_, err = s.Blob(ctx, "a/d", pushed.Digest)
	is(t, err, fault.NotFound)
	dump(t, s)
	c, err := s.Collect(ctx, 0)
	ok(t, err)
	same(t, c, storage.Collected{})
	_, err = s.Tags(ctx, "a/c", "", -1)
	is(t, err, fault.NotFound)
	// And everything can be pushed again.
	storagetest.PushImage(t, s, "a/b", 1, "gone")
	dump(t, s)
}

func is(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v instead of an error of the kind %v", err, kind)
	}
}

// An image store may remove contents without a change of its names.
func TestContentRemovedBehindTheBack(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	ctx := t.Context()
	m := storagetest.PushImage(t, s, "a", 1, "v")
	for _, d := range []digest.Digest{m.Blobs[1].Digest, m.Descriptor.Digest} {
		ok(t, os.Remove(s.blobPath(d)))
	}
	for range 2 { // before and after a collection
		_, err := s.Blob(ctx, "a", m.Blobs[1].Digest)
		is(t, err, fault.NotFound)
		_, err = s.Mount(ctx, "b", "a", m.Blobs[1].Digest)
		is(t, err, fault.NotFound)
		_, err = s.Manifest(ctx, "a", m.Descriptor.Digest)
		is(t, err, fault.NotFound)
		var missing *storage.MissingError
		if err = s.PutManifest(ctx, "a", m); !errors.As(err, &missing) {
			t.Error(err)
		}
		_, err = s.Collect(ctx, 0)
		ok(t, err)
	}
	storagetest.PushImage(t, s, "a", 1, "v")
	_, err := s.Collect(ctx, 0)
	ok(t, err)
	storagetest.Whole(t, s, "a", m.Descriptor.Digest)
	is(t, s.DeleteBlob(ctx, "a", m.Blobs[1].Digest), fault.Conflict)
}

func TestDamagedImagesAreRefused(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, root string, m ocispec.Descriptor){
		"no manifest": func(t *testing.T, root string, m ocispec.Descriptor) { ok(t, os.Remove(blobFile(root, m.Digest))) },
		"another manifest": func(t *testing.T, root string, m ocispec.Descriptor) {
			ok(t, os.Remove(blobFile(root, m.Digest)))
			ok(t, os.WriteFile(blobFile(root, m.Digest), []byte(`{"layers":[]}`), 0o444))
		},
		"no layer": func(t *testing.T, root string, m ocispec.Descriptor) {
			ok(t, os.Remove(blobFile(root, digest.FromBytes(storagetest.Bytes(2, 2000)))))
		},
		"half a layer": func(t *testing.T, root string, m ocispec.Descriptor) {
			ok(t, os.Truncate(blobFile(root, digest.FromBytes(storagetest.Bytes(2, 2000))), 1000))
		},
		"half an index": func(t *testing.T, root string, m ocispec.Descriptor) {
			ok(t, os.Truncate(filepath.Join(root, "index.json"), 50))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			images, err := content.Open(root)
			ok(t, err)
			m := putContent(t, images, digest.SHA256, 1)
			nameIt(t, images, "docker.io/team/app:1", m)
			ok(t, images.Close())
			harm(t, root, m)
			before, err := os.ReadFile(filepath.Join(root, "index.json"))
			ok(t, err)
			for range 2 {
				_, err = Open(root)
				is(t, err, fault.Invalid)
			}
			t.Log(err)
			after, err := os.ReadFile(filepath.Join(root, "index.json"))
			ok(t, err)
			same(t, string(after), string(before))
		})
	}
}

func blobFile(root string, d digest.Digest) string {
	return filepath.Join(root, "blobs", d.Algorithm().String(), d.Encoded())
}

func nameIt(t testing.TB, images *content.Store, n string, m ocispec.Descriptor) {
	t.Helper()
	name(t, images, content.Entry{Name: n, Target: m})
}

// An image store keeps away until index.json has what the registry has.
func TestBehind(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	storagetest.PushImage(t, s, "a/b", 1, "v")
	abandon(t, s)
	_, err := content.Open(root)
	is(t, err, fault.Conflict)
	t.Log(err)
	s = openAt(t, root)
	testutil.Eventually(t, 20*time.Second, "index.json is written beside the work", func() bool {
		_, err := os.Lstat(filepath.Join(root, content.BehindFile))
		return os.IsNotExist(err)
	})
	storagetest.PushImage(t, s, "a/b", 100, "w")
	abandon(t, s)

	// Somebody changes it nevertheless.
	index := filepath.Join(root, "index.json")
	ok(t, os.WriteFile(index, []byte(`{"schemaVersion":2,"manifests":[]}`), 0o644))
	_, err = Open(root)
	is(t, err, fault.Conflict)
	t.Log(err)
	ok(t, os.Remove(index))
	s = openAt(t, root)
	ok(t, s.Close())
	images, err := content.Open(root)
	ok(t, err)
	same(t, len(images.Index().Entries()), 2)
	ok(t, images.Close())

	// A copy is no change, nor is what a crash left between two index.json.
	data, err := os.ReadFile(index)
	ok(t, err)
	ok(t, os.Remove(index))
	ok(t, os.WriteFile(index, data, 0o644))
	s = openAt(t, root)
	ok(t, s.db.Update(func(tx *bbolt.Tx) error {
		list, err := known(tx)
		ok(t, err)
		return setKnown(tx, list[0], identity{Size: 1, Digest: digest.FromString("next")})
	}))
	storagetest.PushImage(t, s, "a/b", 200, "x")
	abandon(t, s)
	s = openAt(t, root)
	same(t, len(dump(t, s)) > 0, true)
	mustTag(t, s, "a/b", "x")
	ok(t, s.Close())
}

func TestOneProcessAtATime(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	_, err := Open(root)
	is(t, err, fault.Conflict)
	t.Log(err)
	_, err = content.Open(root)
	is(t, err, fault.Conflict)
	t.Log(err)
	ok(t, s.Close())
	images, err := content.Open(root)
	ok(t, err)
	_, err = Open(root)
	is(t, err, fault.Conflict)
	ok(t, images.Close())
	ok(t, openAt(t, root).Close())
}

func TestFormat(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	ok(t, s.db.Update(func(tx *bbolt.Tx) error {
		data, _ := json.Marshal(format{99})
		return tx.Bucket(bucketMeta).Put(keyFormat, data)
	}))
	ok(t, s.Close())
	_, err := Open(root)
	is(t, err, fault.Invalid)
	t.Log(err)
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "docker.io/a", "docker.io/library/a", "index.docker.io/a/b", "localhost", "localhost/a", "x.y/z", "library/a", "docker.io", strings.Repeat("0a", 32), strings.Repeat("x", 255)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, repo string) {
		d := ocispec.Descriptor{Digest: digest.FromString("x"), Annotations: map[string]string{
			content.AnnotationName: hub + repo + ":tag"}}
		if _, _, valid := readName(d); !valid {
			return
		}
		for _, form := range []string{imageName(repo), hub + repo} {
			for suffix, tag := range map[string]string{":tag": "tag", "@" + string(d.Digest): ""} {
				d.Annotations = map[string]string{content.AnnotationName: form + suffix}
				if oneWord(repo) {
					d.Annotations[annotationRepository] = repo
				}
				if got, gotTag, ok := readName(d); !ok || got != repo || gotTag != tag {
					t.Errorf("%q comes back from %s as %q, %q", repo, form+suffix, got, gotTag)
				}
			}
		}
	})
}

// What somebody else left among the blobs does not keep a collection from its work.
func TestOddFiles(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	stray := storagetest.Push(t, s, "a", storagetest.Bytes(1, 10)).Digest
	odd := []string{"blobs/README", "blobs/sha256/notes", "blobs/lost+found/x", "uploads/x/y",
		"blobs/sha256/" + digest.FromString("a directory").Encoded() + "/x"}
	for _, name := range odd {
		ok(t, os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
		ok(t, os.WriteFile(s.path(name), nil, 0o644))
	}
	target, link := s.path("blobs/README"), blobFile(s.root, digest.FromString("a link"))
	ok(t, os.Symlink(target, link))
	_, err := s.Collect(t.Context(), 0)
	ok(t, err)
	_, err = s.Blob(t.Context(), "a", stray)
	is(t, err, fault.NotFound)
	for _, name := range odd {
		if _, err := os.Lstat(s.path(name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("a link that nobody knows was left")
	}
}

// A manifest that is damaged on disk is healed by who puts it again, as its reader is told.
func TestDamagedManifestIsHealed(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	m := storagetest.PushImage(t, s, "a", 1, "v")
	file := blobFile(s.root, m.Descriptor.Digest)
	ok(t, os.Chmod(file, 0o644))
	ok(t, os.WriteFile(file, bytes.Repeat([]byte("x"), len(m.Data)), 0o644))
	_, err := s.Manifest(t.Context(), "a", m.Descriptor.Digest)
	is(t, err, fault.Internal)
	ok(t, s.PutManifest(t.Context(), "a", m))
	storagetest.Whole(t, s, "a", m.Descriptor.Digest)
}

// Whoever runs the registry is told, once, that index.json cannot be written.
func TestIndexFailureIsTold(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	var log bytes.Buffer
	s.LogTo(slog.New(slog.NewTextHandler(&log, nil)))
	s.index.abandon() // which is not to write by itself here
	s.index.end = make(chan struct{})
	storagetest.PushImage(t, s, "a", 1, "v")
	path := s.path("index.json")
	ok(t, os.Mkdir(path, 0o700))
	for range 2 {
		s.index.tell(s.writeIndex())
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "cannot write index.json") {
		t.Errorf("the log has %q", text)
	}
	ok(t, os.Remove(path))
	s.index.tell(s.writeIndex())
	if text := log.String(); !strings.Contains(text, "has all images again") {
		t.Errorf("the log has %q", text)
	}
}

// So is a blob, also while somebody reads it.
func TestSpoiledBlob(t *testing.T) {
	s, err := Open(t.TempDir())
	ok(t, err)
	defer s.Close()
	for _, size := range []int{100, 300_000} {
		data := storagetest.Bytes(uint64(size), size)
		d := storagetest.Push(t, s, "a", data).Digest
		ok(t, os.Chmod(s.blobPath(d), 0o644))
		f, err := os.OpenFile(s.blobPath(d), os.O_WRONLY, 0)
		ok(t, err)
		_, err = f.WriteAt([]byte{^data[size-7]}, int64(size-7))
		ok(t, errors.Join(err, f.Close()))
		reader, err := s.Blob(t.Context(), "a", d)
		ok(t, err)
		storagetest.Push(t, s, "b", data)
		storagetest.Read(t, s, "a", d)
		ok(t, reader.Content.Close())
		before, err := os.Stat(s.blobPath(d))
		ok(t, err)
		storagetest.Push(t, s, "b", data)
		if after, err := os.Stat(s.blobPath(d)); err != nil || !os.SameFile(before, after) {
			t.Errorf("a blob that is right was replaced: %v", err)
		}
	}
}
