package image

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"testing"
	"time"

	"github.com/tarehq/tare/image/hello"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
)

// header is the beginning of an ELF file.
func header(machine elf.Machine, class elf.Class, data elf.Data, flags uint32) string {
	h := append([]byte(elf.ELFMAG), byte(class), byte(data), 1)
	h = append(h, make([]byte, 57)...)
	var order binary.ByteOrder = binary.LittleEndian
	if data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	order.PutUint16(h[18:], uint16(machine))
	order.PutUint32(h[36:], flags)
	return string(h)
}

func TestImportFindsThePlatform(t *testing.T) {
	f := open(t, t.TempDir())
	s390x := header(elf.EM_S390, elf.ELFCLASS64, elf.ELFDATA2MSB, 0)
	for name, c := range map[string]struct {
		entries []tar.Header
		data    string // of each regular file
		o       ImportOptions
		want    string
	}{
		"shell":        {[]tar.Header{{Name: "bin/sh"}}, s390x, ImportOptions{}, "linux/s390x"},
		"merged usr":   {[]tar.Header{{Name: "usr/bin/dash"}, {Name: "bin", Linkname: "usr/bin"}, {Name: "usr/bin/sh", Linkname: "/bin/dash"}}, s390x, ImportOptions{}, "linux/s390x"},
		"busybox":      {[]tar.Header{{Name: "bin/busybox"}}, header(elf.EM_386, elf.ELFCLASS32, elf.ELFDATA2LSB, 0), ImportOptions{}, "linux/386"},
		"hard float":   {[]tar.Header{{Name: "bin/sh"}}, header(elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB, 0x05000400), ImportOptions{}, "linux/arm/v7"},
		"soft float":   {[]tar.Header{{Name: "bin/sh"}}, header(elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB, 0x05000200), ImportOptions{}, "linux/arm/v5"},
		"loader":       {[]tar.Header{{Name: "lib/ld-musl-riscv64.so.1"}}, header(elf.EM_RISCV, elf.ELFCLASS64, elf.ELFDATA2LSB, 0), ImportOptions{}, "linux/riscv64"},
		"one program":  {[]tar.Header{{Name: "README"}, {Name: "server"}}, string(hello.Program("arm64")), ImportOptions{}, "linux/arm64"},
		"entry point":  {[]tar.Header{{Name: "opt/app/run"}}, header(elf.EM_PPC64, elf.ELFCLASS64, elf.ELFDATA2LSB, 0), ImportOptions{Changes: []string{`ENTRYPOINT ["/opt/app/run", "x"]`}}, "linux/ppc64le"},
		"as told":      {[]tar.Header{{Name: "bin/sh"}}, s390x, ImportOptions{Platform: "linux/arm64"}, "linux/arm64"},
		"no program":   {[]tar.Header{{Name: "bin/sh"}}, "#!/bin/true\n", ImportOptions{}, platform.Format(platform.Host())},
		"short":        {[]tar.Header{{Name: "bin/sh"}}, "\x7fELF", ImportOptions{}, platform.Format(platform.Host())},
		"unknown":      {[]tar.Header{{Name: "bin/sh"}}, header(elf.EM_VAX, elf.ELFCLASS32, elf.ELFDATA2LSB, 0), ImportOptions{}, platform.Format(platform.Host())},
		"pipe":         {[]tar.Header{{Name: "bin/sh", Typeflag: tar.TypeFifo}, {Name: "sbin/init"}}, s390x, ImportOptions{}, "linux/s390x"},
		"link outside": {[]tar.Header{{Name: "bin/sh", Linkname: "/proc/self/exe"}, {Name: "bin/busybox", Linkname: "../../../../bin/true"}}, "", ImportOptions{}, platform.Format(platform.Host())},
		"loop":         {[]tar.Header{{Name: "bin/sh", Linkname: "sh"}}, "", ImportOptions{}, platform.Format(platform.Host())},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range c.entries {
			h.Mode = 0o755
			if h.Linkname != "" {
				h.Typeflag = tar.TypeSymlink
			} else if h.Typeflag == 0 {
				h.Size = int64(len(c.data))
			}
			w.WriteHeader(&h)
			if h.Size > 0 {
				w.Write([]byte(c.data))
			}
		}
		w.Close()
		id, err := f.Import(context.Background(), &buf, c.o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		img, err := f.Catalog.Resolve(context.Background(), id)
		if got := platform.Format(img.Platform); err != nil || got != c.want {
			t.Errorf("%s: %s instead of %s, %v", name, got, c.want, err)
		}
	}
}

func TestImportIsReproducible(t *testing.T) {
	f := open(t, t.TempDir())
	data := rootfs(t, file{"a", "1"})
	o := ImportOptions{Epoch: time.Unix(1e9, 0), Message: "x"}
	first, err := f.Import(context.Background(), bytes.NewReader(data), o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.Import(context.Background(), bytes.NewReader(data), o); err != nil || again != first {
		t.Errorf("%s, then %s, %v", first, again, err)
	}
	if r, _ := f.Inventory.Inspect(context.Background(), first, inventory.InspectOptions{}); r.Created != "2001-09-09T01:46:40Z" {
		t.Errorf("created %s", r.Created)
	}
}
