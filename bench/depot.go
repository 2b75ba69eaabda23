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

// direct has the loop device of the disk go past the page cache below it. That
// would take at once what disks need time for, and write all of it at the sync.
func direct(disk string) error {
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "--mountpoint", disk).Output()
	if err != nil {
		return err
	}
	_, err = try(exec.Command("losetup", "--direct-io=on", strings.TrimSpace(string(out))))
	return err
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
