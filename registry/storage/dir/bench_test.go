package dir

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

// BenchmarkPush pushes images of a config, a layer of the size and a manifest, each
// acknowledged when it is on disk. TMPDIR says on which.
func BenchmarkPush(b *testing.B) {
	for _, size := range []int{10_000, 1 << 20} {
		for _, clients := range []int{1, 8} {
			b.Run(fmt.Sprintf("layer=%d/clients=%d", size, clients), func(b *testing.B) {
				s := openAt(b, b.TempDir())
				defer s.Close()
				var serial atomic.Uint64
				b.SetBytes(int64(size))
				b.SetParallelism(clients) // times GOMAXPROCS
				b.RunParallel(func(pb *testing.PB) {
					layer := storagetest.Bytes(1, size)
					for pb.Next() {
						n := serial.Add(1)
						binary.BigEndian.PutUint64(layer, n)
						m := storagetest.Image(storagetest.Push(b, s, "r", fmt.Append(nil, n)), storagetest.Push(b, s, "r", layer))
						if err := s.PutManifest(b.Context(), "r", m, storage.NewTag{Name: fmt.Sprint("t", n)}); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkUpload is the throughput of one large blob.
func BenchmarkUpload(b *testing.B) {
	s := openAt(b, b.TempDir())
	defer s.Close()
	data := storagetest.Bytes(1, 64<<20)
	b.SetBytes(int64(len(data)))
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(data, uint64(i))
		u, err := s.CreateUpload(b.Context(), "r", digest.SHA256)
		ok(b, err)
		_, err = u.Append(b.Context(), bytes.NewReader(data))
		ok(b, err)
		ok(b, u.Commit(b.Context(), digest.FromBytes(data)))
		ok(b, u.Close())
	}
}

// BenchmarkOpen opens a registry that has 100,000 blobs in 10,000 images, up to the
// first answer.
func BenchmarkOpen(b *testing.B) {
	root := b.TempDir()
	s := openAt(b, root)
	for part := range 100 {
		ok(b, s.db.Update(func(tx *bbolt.Tx) error { return fillBench(tx, part) }))
	}
	ok(b, s.mark())
	s.index.marked()
	ok(b, s.Close())
	st, err := os.Stat(s.path(database))
	ok(b, err)
	for b.Loop() {
		s = openAt(b, root)
		if _, err := s.Tag(b.Context(), "r3/app", "t3-7"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		ok(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(st.Size())/1e6, "MB-db")
}

// fillBench makes the records of 100 images of ten blobs.
func fillBench(tx *bbolt.Tx, part int) error {
	r, err := makeRepo(tx, fmt.Sprintf("r%d/app", part))
	if err != nil {
		return err
	}
	for i := range 100 {
		m := storage.Manifest{}
		for j := range 10 {
			d := digest.FromString(fmt.Sprint(part, i, j))
			if err := r.link(d, 1000); err != nil {
				return err
			}
			m.Blobs = append(m.Blobs, storagetest.Index().Descriptor)
			m.Blobs[j].Digest = d
		}
		m.Descriptor = storagetest.Image(m.Blobs...).Descriptor
		if err := r.addManifest(newRecord(m)); err != nil {
			return err
		}
		if err := r.setTag(fmt.Sprintf("t%d-%d", part, i), tagged{digest: m.Descriptor.Digest}); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkRead reads a manifest and a blob's record as a request does.
func BenchmarkRead(b *testing.B) {
	s := openAt(b, b.TempDir())
	defer s.Close()
	m := storagetest.PushImage(b, s, "team/app", 1, "v")
	b.Run("tag", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			_, err := s.Tag(b.Context(), "team/app", "v")
			ok(b, err)
		}
	})
	b.Run("manifest", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			_, err := s.Manifest(b.Context(), "team/app", m.Descriptor.Digest)
			ok(b, err)
		}
	})
	b.Run("blob", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			blob, err := s.Blob(b.Context(), "team/app", m.Blobs[1].Digest)
			ok(b, err)
			blob.Content.Close()
		}
	})
}

// BenchmarkMemory has another process take 100 uploads of 100 MB at once, and tells
// the most memory that it had.
func BenchmarkMemory(b *testing.B) {
	if root := os.Getenv("TARE_TEST_MEMORY"); root != "" {
		hundred(b, root)
		return
	}
	for range b.N {
		cmd := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^BenchmarkMemory$", "-test.benchtime", "1x")
		cmd.Env = append(os.Environ(), "TARE_TEST_MEMORY="+b.TempDir())
		out, err := cmd.CombinedOutput()
		_, after, found := strings.Cut(string(out), "peak ")
		kb, _, _ := strings.Cut(after, " ")
		peak, e := strconv.ParseFloat(kb, 64)
		if err != nil || !found || e != nil {
			b.Fatalf("%v: %s", err, out)
		}
		b.ReportMetric(peak/1024, "MB-peak")
	}
}

func hundred(b *testing.B, root string) {
	s := openAt(b, root)
	defer s.Close()
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			u, err := s.CreateUpload(b.Context(), "r", digest.SHA256)
			ok(b, err)
			defer u.Close()
			_, err = u.Append(b.Context(), io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), 100e6))
			ok(b, err)
			ok(b, u.Cancel(b.Context()))
		})
	}
	wg.Wait()
	data, err := os.ReadFile("/proc/self/status")
	ok(b, err)
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	fmt.Println("peak", strings.Fields(after)[0], "kB")
}

// cpu tells the processor's time per operation, which other programs disturb less.
func cpu(b *testing.B) func() {
	spent := func() int64 {
		var u unix.Rusage
		ok(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := spent()
	return func() { b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkIndex writes the index.json of 10,000 images with ten tags each.
func BenchmarkIndex(b *testing.B) {
	s := openAt(b, b.TempDir())
	defer s.Close()
	for part := range 100 {
		ok(b, s.db.Update(func(tx *bbolt.Tx) error { return moreTags(tx, part) }))
	}
	for b.Loop() {
		ok(b, s.mark())
		s.index.marked()
		ok(b, s.writeIndex())
	}
	st, err := os.Stat(s.path(ocispec.ImageIndexFile))
	ok(b, err)
	b.ReportMetric(float64(st.Size())/1e6, "MB-index")
}

// moreTags is fillBench with nine more tags for each.
func moreTags(tx *bbolt.Tx, part int) error {
	if err := fillBench(tx, part); err != nil {
		return err
	}
	r, err := lookRepo(tx, fmt.Sprintf("r%d/app", part))
	if err != nil {
		return err
	}
	for i := range 100 {
		t, _ := r.tag(fmt.Sprintf("t%d-%d", part, i))
		for j := range 9 {
			if err := r.setTag(fmt.Sprintf("t%d-%d-%d", part, i, j), t); err != nil {
				return err
			}
		}
	}
	return nil
}
