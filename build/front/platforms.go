package front

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build/output"
)

// emulated are the platforms of the programs that an emulator of QEMU's runs, by
// how binfmt_misc calls it.
var emulated = map[string][]ocispec.Platform{
	"qemu-aarch64":     {{Architecture: "arm64"}},
	"qemu-arm":         {{Architecture: "arm", Variant: "v7"}, {Architecture: "arm", Variant: "v6"}},
	"qemu-x86_64":      {{Architecture: "amd64"}},
	"qemu-i386":        {{Architecture: "386"}},
	"qemu-riscv64":     {{Architecture: "riscv64"}},
	"qemu-ppc64le":     {{Architecture: "ppc64le"}},
	"qemu-s390x":       {{Architecture: "s390x"}},
	"qemu-mips64el":    {{Architecture: "mips64le"}},
	"qemu-mips64":      {{Architecture: "mips64"}},
	"qemu-loongarch64": {{Architecture: "loong64"}},
}

// binfmt is where the kernel says what runs programs that it does not.
const binfmt = "/proc/sys/fs/binfmt_misc"

// platforms are those whose programs this machine runs, its own first.
func platforms() []ocispec.Platform {
	list := []ocispec.Platform{output.OwnPlatform()}
	if runtime.GOARCH == "amd64" {
		list = append(list, ocispec.Platform{OS: "linux", Architecture: "386"})
	}
	names, err := os.ReadDir(binfmt)
	if err != nil {
		return list // there is nothing of the kind
	}
	for _, entry := range names {
		text, err := os.ReadFile(filepath.Join(binfmt, entry.Name()))
		if err != nil || !strings.HasPrefix(string(text), "enabled") {
			continue
		}
		for _, p := range emulated[entry.Name()] {
			if p.OS = "linux"; !has(list, p) {
				list = append(list, p)
			}
		}
	}
	return list
}

func has(list []ocispec.Platform, p ocispec.Platform) bool {
	for _, q := range list {
		if q.OS == p.OS && q.Architecture == p.Architecture && q.Variant == p.Variant {
			return true
		}
	}
	return false
}
