package image

import (
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
)

// systems are the operating systems and architectures that stand alone as a platform.
var systems = []string{"linux", "windows", "darwin", "macos", "freebsd", "netbsd", "openbsd", "dragonfly", "solaris", "illumos", "aix", "android", "ios", "plan9", "js", "wasip1", "zos", "nacl",
	"amd64", "x86_64", "x86-64", "arm64", "aarch64", "arm", "armhf", "armel", "386", "i386", "ppc64", "ppc64le", "s390x", "riscv64", "riscv", "mips", "mipsle", "mips64", "mips64le", "loong64",
	"sparc64", "wasm", "armbe", "arm64be", "amd64p32", "ppc", "s390", "sparc", "mips64p32", "mips64p32le"}

// CheckPlatform refuses what is no os[/arch[/variant]], nor one of the words that stand
// alone; "" is none.
func CheckPlatform(p string) error {
	if p == "" {
		return nil
	}
	parts := strings.Split(p, "/")
	if len(parts) == 1 && !slices.Contains(systems, strings.ToLower(p)) {
		return fault.New(fault.Invalid, "%q: unknown operating system or architecture: invalid argument", p)
	}
	bad := len(parts) > 3
	for _, part := range parts {
		if part == "" || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			bad = true
		}
	}
	if bad {
		return fault.New(fault.Invalid, "%q: cannot parse platform specifier: use os[/arch[/variant]]", p)
	}
	return nil
}

func checkPlatform(p string) error {
	if err := CheckPlatform(p); err != nil {
		return fault.New(fault.Invalid, "invalid platform: %w", err)
	}
	return nil
}

func checkPlatforms(list []string) error {
	for _, p := range list {
		if err := checkPlatform(p); err != nil {
			return err
		}
	}
	return nil
}
