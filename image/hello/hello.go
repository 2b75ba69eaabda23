// Package hello is the image that is built in, so that there is one to run without a
// network or a file: a static program of a few instructions, assembled here.
package hello

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/snapshot"
)

// Name is the built-in image's.
const Name = "docker.io/library/hello:latest"

// Greeting is what its program writes.
const Greeting = `
Hello! A container has just greeted you, so your installation works.

On the way here:
 1. the client asked the daemon to run the image "hello",
 2. the daemon found it built in and prepared a root file system from it,
 3. the runtime started this program there, in namespaces of its own,
 4. and what the program wrote came back to your terminal.

To try next:
 tare import rootfs.tar my/image    make an image from any tar of a system
 tare run -it my/image sh           look around inside of it
 tare --help                        see what else there is

`

// Program assembles a static executable that writes the greeting and
// exits with 0: one ELF header, one program header, code, text.
func Program(architecture string) []byte {
	const headers, base = 64 + 56, 0x400000
	var code []byte
	var machine uint16
	size := uint32(len(Greeting))
	le := binary.LittleEndian
	switch architecture {
	case "amd64":
		machine = 62
		const length = 33
		code = append(code, 0xbf, 1, 0, 0, 0)                             // mov edi, 1
		code = le.AppendUint32(append(code, 0x48, 0x8d, 0x35), length-12) // lea rsi, [rip+text]
		code = le.AppendUint32(append(code, 0xba), size)                  // mov edx, size
		code = append(code, 0xb8, 1, 0, 0, 0, 0x0f, 0x05)                 // mov eax, write; syscall
		code = append(code, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05)    // xor edi, edi; mov eax, exit; syscall
	case "arm64":
		machine = 183
		const length = 32
		for _, instruction := range []uint32{
			0xd2800020,                   // mov x0, 1
			0x10000001 | (length-4)/4<<5, // adr x1, text
			0xd2800002 | size<<5,         // mov x2, size
			0xd2800008 | 64<<5,           // mov x8, write
			0xd4000001,                   // svc 0
			0xd2800000,                   // mov x0, 0
			0xd2800008 | 93<<5,           // mov x8, exit
			0xd4000001,                   // svc 0
		} {
			code = le.AppendUint32(code, instruction)
		}
	}
	total := uint64(headers + len(code) + len(Greeting))
	elf := append([]byte("\x7fELF"), 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0) // 64 bits, little endian, version 1
	elf = le.AppendUint16(elf, 2)                                        // an executable
	elf = le.AppendUint16(elf, machine)
	elf = le.AppendUint32(elf, 1)
	elf = le.AppendUint64(elf, base+headers) // entry
	elf = le.AppendUint64(elf, 64)           // program headers
	elf = le.AppendUint64(elf, 0)            // section headers
	elf = le.AppendUint32(elf, 0)            // flags
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, v)
	}
	elf = le.AppendUint32(elf, 1) // load
	elf = le.AppendUint32(elf, 5) // readable and executable
	for _, v := range []uint64{0, base, base, total, total, 0x10000} {
		elf = le.AppendUint64(elf, v)
	}
	return append(append(elf, code...), Greeting...)
}

// Maker makes the built-in image in a store.
type Maker struct {
	Content *content.Store
	Layers  *snapshot.Store

	mu sync.Mutex // held while it is made
}

// Make stores the built-in image, unpacked and with its name, unless it is there:
// the same index of the same two platforms on every machine.
func (m *Maker) Make(ctx context.Context) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.Content.Index().Lookup(Name); ok {
		return nil
	}
	done := m.Content.Attempt()
	defer func() { done(err) }()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, architecture := range []string{"amd64", "arm64"} {
		manifest, err := m.put(ctx, architecture)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	target, err := m.Content.PutJSON(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	if err := errors.Join(m.Layers.Sync(), m.Content.Sync()); err != nil {
		return err
	}
	return m.Content.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(content.Entry{Name: Name, Target: target, Updated: time.Now()}), nil
	})
}

// put stores one platform's image, and unpacks it where it runs.
func (m *Maker) put(ctx context.Context, architecture string) (ocispec.Descriptor, error) {
	var layer bytes.Buffer
	executable := Program(architecture)
	tw := tar.NewWriter(&layer)
	hdr := &tar.Header{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(executable)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(hdr); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := tw.Write(executable); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := tw.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := m.Content.Put(layer.Bytes())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	created := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	machine := ocispec.Platform{OS: "linux", Architecture: architecture}
	said := dockerspec.DockerOCIImage{Image: ocispec.Image{
		Created: &created, Platform: machine,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{d}},
		History: []ocispec.History{{Created: &created, CreatedBy: "hello", Comment: "built in"}},
	}}
	said.Config.Cmd = []string{"/hello"}
	said.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if platform.Matches(platform.Host(), machine) {
		if _, err := m.Layers.Unpack(ctx, "", d, bytes.NewReader(layer.Bytes())); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	manifest, err := config.Put(m.Content, said, []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(layer.Len())}})
	manifest.Platform = &machine
	return manifest, err
}
