package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/test/registry"
)

// What the registries are asked for.
const (
	small, large = 1 << 20, 100_000_000 // bytes of the blobs that are read
	layer        = 50 << 20             // bytes of a blob that is pushed
	crowd        = 100                  // uploads of large blobs beside each other
	stock        = 100_000              // blobs of a registry that is started
)

// depot is a registry, or what stands for the least that one can cost, as a
// process that is measured from outside.
type depot struct {
	name string
	host string
	pid  int
	dir  string // its storage
	stop func()

	manifest, little, big string // paths of what is read
}

// benchRegistries measures servers of images by turns.
func benchRegistries(t *table, dir, bin string, runs int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	disk, err := newDisk(dir, "disk")
	if err != nil {
		return err
	}
	var depots []*depot
	for _, start := range []func(string, string) (*depot, error){startTare, startDocker, startBare} {
		d, err := start(disk, bin)
		if err != nil {
			t.note("registries: %v", err)
			continue
		}
		defer func() { d.stop() }()
		depots = append(depots, d)
	}
	time.Sleep(5 * time.Second)
	for _, d := range depots {
		t.add("registry idle, resident", "MB", d.name, resident(d.pid))
		if err := d.fill(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	gets := func(title string, n int, path func(*depot) string) {
		compareCPU(t, title+", server CPU", n, depots, func(d *depot) error { return d.read(path(d)) })
	}
	gets("GET of a manifest", 1000*runs, func(d *depot) string { return d.manifest })
	gets("GET of a blob of 1 MiB", 200*runs, func(d *depot) string { return d.little })
	compareRate(t, "GET of a blob of 100 MB", large, runs, depots, func(d *depot, _ int) func() error {
		return func() error { return d.read(d.big) }
	})
	var writers []*depot
	for _, d := range depots {
		if d.name != bare {
			writers = append(writers, d)
		}
	}
	compareRate(t, "push of a blob of 50 MiB", layer, runs, writers, func(d *depot, n int) func() error { return d.pushReady(uint64(1000+n), layer) })
	for _, d := range writers {
		if err := d.pushTogether(t); err != nil {
			t.note("%s, eight pushes of one blob: %v", d.name, err)
		}
	}
	for _, d := range writers {
		if err := d.pushMany(t); err != nil {
			t.note("%s, %d pushes at once: %v", d.name, crowd, err)
		}
	}
	if len(depots) > 0 && depots[0].name == "tare-registry" {
		return depots[0].startFull(t, bin)
	}
	return nil
}

// startTare runs the registry that is measured.
func startTare(disk, bin string) (*depot, error) {
	d := &depot{name: "tare-registry", dir: filepath.Join(disk, "tare")}
	return d, d.run(bin)
}

// run starts tare-registry on the depot's directory until it answers.
func (d *depot) run(bin string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.host = l.Addr().String()
	l.Close()
	cmd := exec.Command(filepath.Join(bin, "tare-registry"), "serve", "--root", d.dir, "--addr", d.host)
	if err := cmd.Start(); err != nil {
		return err
	}
	d.pid = cmd.Process.Pid
	d.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	return d.ready()
}

func (d *depot) ready() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		r, err := http.Get("http://" + d.host + "/v2/")
		if err == nil {
			r.Body.Close()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w", d.name, err)
		}
	}
}

// startDocker runs Debian's registry.
func startDocker(disk, _ string) (*depot, error) {
	dir := filepath.Join(disk, "docker-registry")
	r, err := registry.Run(registry.Options{Storage: dir})
	if err != nil {
		return nil, err
	}
	return &depot{name: "docker-registry", host: r.Host, pid: r.Pid(), dir: dir, stop: func() { _ = r.Remove() }}, nil
}

// bare is Go's own server of files, which adds nothing.
const bare = "net/http"

func startBare(disk, _ string) (*depot, error) {
	d := &depot{name: bare, dir: filepath.Join(disk, "bare")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.host = l.Addr().String()
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serveBare+"="+d.dir)
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.pid = cmd.Process.Pid
	d.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return d, d.ready()
}

// serveBare is set in the process that serves a directory, on descriptor 3.
const serveBare = "TARE_BENCH_SERVE"

// serve answers for the one manifest from memory, for blobs from their files.
func serve(dir string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	var once sync.Once
	var manifest []byte
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch base := filepath.Base(r.URL.Path); {
		case strings.Contains(r.URL.Path, "/manifests/"):
			once.Do(func() { manifest, _ = os.ReadFile(filepath.Join(dir, "manifest")) })
			w.Header().Set("Content-Type", manifestType)
			w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
			_, _ = w.Write(manifest)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.ServeFile(w, r, filepath.Join(dir, base))
		}
	}))
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// fill gives the depot an image of a small and a large layer.
func (d *depot) fill() error {
	type descriptor struct {
		MediaType string        `json:"mediaType"`
		Digest    digest.Digest `json:"digest"`
		Size      int64         `json:"size"`
	}
	list := []descriptor{}
	for i, size := range []int64{2, small, large} {
		body := content(uint64(i), size)
		if size == 2 {
			body = strings.NewReader("{}")
		}
		sum, err := d.put(body, size)
		if err != nil {
			return err
		}
		kind := "application/vnd.oci.image.layer.v1.tar"
		if size == 2 {
			kind = "application/vnd.oci.image.config.v1+json"
		}
		list = append(list, descriptor{kind, sum, size})
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": list[0], "layers": list[1:]})
	if err != nil {
		return err
	}
	d.manifest, d.little, d.big = "/v2/a/b/manifests/1", "/v2/a/b/blobs/"+list[1].Digest.String(), "/v2/a/b/blobs/"+list[2].Digest.String()
	if d.name == bare {
		return os.WriteFile(filepath.Join(d.dir, "manifest"), manifest, 0o644)
	}
	_, err = d.do("PUT", d.manifest, bytes.NewReader(manifest), int64(len(manifest)))
	return err
}

// put stores a blob as Docker's clients do: its digest comes last.
func (d *depot) put(body io.Reader, size int64) (digest.Digest, error) {
	sum := sha256.New()
	body = io.TeeReader(body, sum)
	if d.name == bare {
		f, err := os.Create(filepath.Join(d.dir, "new"))
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := io.Copy(f, body); err != nil {
			return "", err
		}
		name := digestOf(sum)
		return name, os.Rename(f.Name(), filepath.Join(d.dir, name.String()))
	}
	err := d.upload(body, size, func() digest.Digest { return digestOf(sum) })
	return digestOf(sum), err
}

// upload has the digest told when all has been sent.
func (d *depot) upload(body io.Reader, size int64, name func() digest.Digest) error {
	at, err := d.do("POST", "/v2/a/b/blobs/uploads/", nil, 0)
	if err != nil {
		return err
	}
	if at, err = d.do("PATCH", at, body, size); err != nil {
		return err
	}
	join := "?"
	if strings.Contains(at, "?") {
		join = "&"
	}
	_, err = d.do("PUT", at+join+"digest="+name().String(), nil, 0)
	return err
}

func digestOf(sum hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, sum) }

// do makes a request and returns where its answer points to.
func (d *depot) do(method, path string, body io.Reader, size int64) (location string, err error) {
	if strings.HasPrefix(path, "/") {
		path = "http://" + d.host + path
	}
	r, err := http.NewRequestWithContext(context.Background(), method, path, body)
	if err != nil {
		return "", err
	}
	if body != nil {
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/octet-stream")
		if method == "PUT" {
			r.Header.Set("Content-Type", manifestType)
		}
	}
	r.Header.Set("Accept", manifestType)
	answer, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return "", err
	}
	if answer.StatusCode >= 300 {
		return "", fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return answer.Header.Get("Location"), nil
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: crowd, DisableCompression: true}}

func (d *depot) read(path string) error {
	_, err := d.do("GET", path, nil, 0)
	return err
}

func (d *depot) push(seed uint64, size int64) error {
	_, err := d.put(content(seed, size), size)
	return err
}

// pushReady is push by a client that has the bytes and their digest already: one
// that makes both beside the server takes half of what there is of a machine with
// two cores, and the server is what is measured.
func (d *depot) pushReady(seed uint64, size int64) func() error {
	data, err := io.ReadAll(content(seed, size))
	sum := digest.FromBytes(data)
	return func() error {
		if err != nil {
			return err
		}
		return d.upload(bytes.NewReader(data), size, func() digest.Digest { return sum })
	}
}

// content is bytes that no other seed has, made faster than they can be stored.
func content(seed uint64, size int64) io.Reader {
	var key, iv [16]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // of the key's length
	}
	return io.LimitReader(cipher.StreamReader{S: cipher.NewCTR(block, iv[:]), R: zeros{}}, size)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// compareCPU measures what a request costs the server, by turns.
func compareCPU(t *table, title string, n int, depots []*depot, once func(*depot) error) {
	total, failed := make([]float64, len(depots)), make([]error, len(depots))
	each := n / blocks
	for range blocks {
		for i, d := range depots {
			time.Sleep(rest)
			before := cpuOf(d.pid)
			for m := 0; m < each && failed[i] == nil; m++ {
				failed[i] = once(d)
			}
			total[i] += cpuOf(d.pid) - before
		}
	}
	for i, d := range depots {
		if failed[i] != nil {
			t.note("%s, %s: %v", d.name, title, failed[i])
			continue
		}
		t.add(title, "µs", d.name, total[i]*1000/float64(each*blocks))
	}
}

// compareRate measures how fast bytes go, by turns, and what that costs the
// server. What prepare does itself is not counted.
func compareRate(t *table, title string, size int64, runs int, depots []*depot, prepare func(d *depot, n int) func() error) {
	all, failed, total := make([][]float64, len(depots)), make([]error, len(depots)), make([]float64, len(depots))
	for n := range runs {
		for i, d := range depots {
			if failed[i] != nil {
				continue
			}
			once := prepare(d, n)
			syscall.Sync()
			before, begin := cpuOf(d.pid), time.Now()
			failed[i] = once()
			all[i] = append(all[i], float64(size)/1e6/time.Since(begin).Seconds())
			total[i] += cpuOf(d.pid) - before
		}
	}
	for i, d := range depots {
		if failed[i] != nil {
			t.note("%s, %s: %v", d.name, title, failed[i])
			continue
		}
		t.add(title, "MB/s", d.name, median(all[i]))
	}
	for i, d := range depots {
		if failed[i] == nil {
			t.add(title+", server CPU", "ms", d.name, total[i]/float64(len(all[i])))
		}
	}
}

// pushTogether has eight clients push the same new blob at the same time.
func (d *depot) pushTogether(t *table) error {
	const clients = 8
	before := written(d.pid)
	if err := together(clients, func(int) error { return d.push(77, layer) }); err != nil {
		return err
	}
	t.add("written when eight push one new blob of 50 MiB", "MB", d.name, (written(d.pid)-before)/1e6)
	return nil
}

// pushMany has many clients push large blobs of their own at the same time.
func (d *depot) pushMany(t *table) error {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.pid), []byte("5"), 0) // the peak begins anew, proc(5)
	err := together(crowd, func(i int) error { return d.push(uint64(10_000+i), large) })
	if err != nil {
		return err
	}
	t.add(fmt.Sprintf("%d pushes of 100 MB at once, peak memory", crowd), "MB", d.name, highest(d.pid))
	return nil
}

func together(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// written is how many bytes a process had written to storage, proc(5).
func written(pid int) float64 { return told(pid, "io", "write_bytes") }

// startFull measures the start with many blobs stored.
func (d *depot) startFull(t *table, bin string) error {
	const clients = 64
	err := together(clients, func(c int) error {
		for i := c; i < stock; i += clients {
			if err := d.push(uint64(1_000_000+i), 100); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var took []float64
	for range 5 {
		d.stop()
		begin := time.Now()
		if err := d.run(bin); err != nil {
			return err
		}
		took = append(took, ms(time.Since(begin)))
	}
	t.add(fmt.Sprintf("start to the first answer, %d blobs stored", stock), "ms", d.name, median(took))
	return nil
}
