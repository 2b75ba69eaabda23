package dir

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

// rounds is how often the process is killed. With TARE_SOAK set to a number it is
// that often.
const rounds = 12

// TestKilled kills a process that pushes, deletes and collects, at moments of
// chance. What it acknowledged is there and whole in the next one, and nothing is
// left that belongs to nobody.
func TestKilled(t *testing.T) {
	if root := os.Getenv("TARE_TEST_CRASH"); root != "" {
		work(root)
		return
	}
	n := rounds
	if soak, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		n = soak
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	k := &killed{root: t.TempDir(), tags: map[string]string{}, uploads: map[string]int64{}, acked: map[string]int{}}
	for round := 0; round < n || k.missing() != "" && round < 20*n; round++ {
		k.round(t, random)
		k.check(t)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	if verb := k.missing(); verb != "" {
		t.Errorf("no %s was acknowledged before a kill: %v", verb, k.acked)
	}
	t.Log(k.acked)
}

// killed is what a process that was killed has acknowledged.
type killed struct {
	root    string
	tags    map[string]string // repository:tag -> digest; "" for deleted; not in it: unknown
	uploads map[string]int64  // repository id seed -> bytes acknowledged
	acked   map[string]int
}

func (k *killed) missing() string {
	for _, verb := range []string{"put", "delete", "untag", "collect", "append"} {
		if k.acked[verb] == 0 {
			return verb
		}
	}
	return ""
}

// round has a process work until it is killed, and hears what it says.
func (k *killed) round(t *testing.T, random *rand.Rand) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "TARE_TEST_CRASH="+k.root, fmt.Sprint("TARE_TEST_SEED=", random.Uint32()))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	timer := time.AfterFunc(time.Duration(20+random.IntN(1200))*time.Millisecond, func() { cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "begin": // of what may have happened or not
			delete(k.tags, f[1])
		case "put":
			k.tags[f[1]] = f[2]
		case "delete", "untag":
			k.tags[f[1]] = ""
		case "append":
			size, _ := strconv.ParseInt(f[4], 10, 64)
			k.uploads[strings.Join(f[1:4], " ")] = size
		case "error":
			t.Error(lines.Text())
		}
		k.acked[f[0]]++
	}
	_ = cmd.Wait()
}

// work is what is killed: three clients and a collection. Each client has tags of
// its own, and the layers are all of theirs.
func work(root string) {
	s, err := Open(root)
	if err != nil {
		fmt.Printf("error %v\n", err)
		return
	}
	n, _ := strconv.Atoi(os.Getenv("TARE_TEST_SEED"))
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	for client := range 3 {
		go func() {
			random := rand.New(rand.NewPCG(uint64(n), uint64(client)))
			for {
				if err := step(s, client, random, say); err != nil {
					say("error %v", err)
				}
			}
		}()
	}
	for i := 0; ; i++ {
		grace := time.Hour
		if i%8 == 0 {
			grace = 0
		}
		if _, err := s.Collect(context.Background(), grace); err != nil {
			say("error %v", err)
		}
		say("collect %v", grace)
	}
}

func step(s *Storage, client int, random *rand.Rand, say func(string, ...any)) error {
	ctx := context.Background()
	repo, tag := fmt.Sprint("r", random.IntN(2)), fmt.Sprintf("c%dt%d", client, random.IntN(4))
	name := repo + ":" + tag
	switch random.IntN(8) {
	case 0:
		say("begin %s", name)
		if err := s.DeleteTag(ctx, repo, tag); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		say("untag %s", name)
	case 1:
		to, err := s.Tag(ctx, repo, tag)
		if err != nil {
			return nil
		}
		say("begin %s", name)
		if err := s.DeleteManifest(ctx, repo, to.Target.Digest, nil); err != nil {
			return err
		}
		say("delete %s", name)
	case 2:
		seed := random.IntN(1000)
		u, err := s.CreateUpload(ctx, repo, digest.SHA256)
		if err != nil {
			return err
		}
		for range 3 {
			data := storagetest.Bytes(uint64(seed), 300_000)
			if _, err := u.Append(ctx, bytes.NewReader(data[u.Size():u.Size()+100_000])); err != nil {
				return err
			}
			say("append %s %s %d %d", repo, u.ID(), seed, u.Size())
		} // and stays open, so that no collection takes it
	default:
		return push(s, repo, tag, client, random, say)
	}
	return nil
}

// push pushes an image of its own over layers that others push, too. A blob may be
// collected before its manifest comes: there is no grace.
func push(s *Storage, repo, tag string, client int, random *rand.Rand, say func(string, ...any)) error {
	ctx, blobs := context.Background(), make([][]byte, 3)
	blobs[0] = fmt.Appendf(nil, "config of client %d: %d", client, random.Uint32()) // so that nobody else deletes the manifest
	for i := range blobs[1:] {
		blobs[i+1] = storagetest.Bytes(uint64(random.IntN(5)), 150_000)
	}
	m := imageOf(blobs...)
	for _, data := range blobs {
		u, err := s.CreateUpload(ctx, repo, digest.SHA256)
		if err != nil {
			return err
		}
		if _, err := u.Append(ctx, bytes.NewReader(data)); err != nil {
			return err
		}
		if err := errors.Join(u.Commit(ctx, digest.FromBytes(data)), u.Close()); err != nil {
			return err
		}
	}
	say("begin %s:%s", repo, tag)
	err := s.PutManifest(ctx, repo, m, storage.NewTag{Name: tag})
	var missing *storage.MissingError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		say("put %s:%s %s", repo, tag, m.Descriptor.Digest)
	}
	return err
}

// check looks at what was left.
func (k *killed) check(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	s := openAt(t, k.root)
	defer func() { ok(t, s.Close()) }()
	for name, size := range k.uploads {
		k.resume(t, s, name, size)
	}
	clear(k.uploads)
	for range 2 { // before and after a collection
		for name, want := range k.tags {
			repo, tag, _ := strings.Cut(name, ":")
			got, err := s.Tag(ctx, repo, tag)
			if want == "" && !errors.Is(err, fault.NotFound) || want != "" && (err != nil || string(got.Target.Digest) != want) {
				t.Errorf("%s is %v instead of %q: %v", name, got.Target.Digest, want, err)
			}
		}
		dump(t, s)
		_, err := s.Collect(ctx, 0)
		ok(t, err)
	}
	k.leaks(t, s)
}

// resume goes on with an upload at the byte that was acknowledged.
func (k *killed) resume(t *testing.T, s *Storage, name string, size int64) {
	t.Helper()
	var repo, id string
	var seed uint64
	_, err := fmt.Sscan(name, &repo, &id, &seed)
	ok(t, err)
	u, err := s.OpenUpload(t.Context(), repo, id)
	if err != nil {
		t.Errorf("upload %s of %d bytes: %v", name, size, err)
		return
	}
	data := storagetest.Bytes(seed, 300_000)
	if u.Size() < size {
		t.Errorf("upload %s has %d bytes instead of %d", name, u.Size(), size)
	}
	appendAll(t, u.(*upload), data[u.Size():])
	commit(t, u.(*upload), data)
}

// leaks compares the files with what the manifests name, after a collection.
func (k *killed) leaks(t *testing.T, s *Storage) {
	t.Helper()
	ctx, named := t.Context(), map[string]bool{}
	repos, err := s.Repositories(ctx, "", -1)
	ok(t, err)
	for _, repo := range repos {
		list, err := s.Manifests(ctx, repo, "", -1)
		ok(t, err)
		for _, d := range list {
			m, err := s.Manifest(ctx, repo, d)
			ok(t, err)
			named[d.Encoded()] = true
			for _, b := range m.Blobs {
				named[b.Digest.Encoded()] = true
			}
		}
	}
	ok(t, filepath.WalkDir(k.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(k.root, path)
		switch dir, name := filepath.Split(rel); {
		case strings.HasPrefix(dir, "blobs/") && !named[name], strings.HasPrefix(dir, uploads):
			t.Errorf("%s is nobody's", rel)
		}
		return nil
	}))
}

func imageOf(blobs ...[]byte) storage.Manifest {
	list := make([]ocispec.Descriptor, len(blobs))
	for i, data := range blobs {
		list[i] = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	return storagetest.Image(list...)
}
