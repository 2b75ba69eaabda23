package platform

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive"
)

// wellKnown are programs that about every system has.
var wellKnown = []string{
	"bin/sh", "bin/busybox", "bin/bash", "usr/bin/env", "bin/true", "sbin/init", "usr/lib/systemd/systemd", "usr/bin/coreutils",
}

// loaderDirs are where the dynamic loader lies, which tells as much.
var loaderDirs = []string{"lib64", "lib", "usr/lib64", "usr/lib", "."}

// maxLooked is how many files of one directory are looked at.
const maxLooked = 200

// Of tells what machine the programs of a tree are for, by the headers of
// the first that is found: those that the config names, well-known ones, the
// dynamic loader, and what lies in the root, as in images of one program. ok is
// false when none is there. Of 32-bit ARM the variant is v7 or, where floating
// point is passed in software, v5.
func Of(root *os.File, programs []string) (p ocispec.Platform, ok bool) {
	for _, name := range slices.Concat(programs, wellKnown) {
		if p, ok = programPlatform(root, name); ok {
			return p, true
		}
	}
	for _, dir := range loaderDirs {
		d, err := archive.OpenDir(root, dir)
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(maxLooked)
		d.Close()
		slices.Sort(names)
		for _, name := range names {
			if dir != "." && !strings.HasPrefix(name, "ld-") {
				continue
			}
			if p, ok = programPlatform(root, dir+"/"+name); ok {
				return p, true
			}
		}
	}
	return ocispec.Platform{}, false
}

// programPlatform reads the header of one ELF file, elf(5).
func programPlatform(root *os.File, name string) (p ocispec.Platform, ok bool) {
	f, err := archive.OpenFile(root, name)
	if err != nil {
		return p, false
	}
	defer f.Close()
	head := make([]byte, 52)
	if _, err := io.ReadFull(f, head); err != nil || string(head[:4]) != elf.ELFMAG {
		return p, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	little := elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2LSB
	if !little {
		order = binary.BigEndian
	}
	wide := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	machine := elf.Machine(order.Uint16(head[18:]))
	architecture := machines[machineKey{machine, wide, little}]
	if architecture == "" {
		return p, false
	}
	p = ocispec.Platform{OS: "linux", Architecture: architecture}
	if architecture == "arm" {
		const hardFloat = 0x400 // EF_ARM_ABI_FLOAT_HARD of e_flags
		if p.Variant = "v5"; order.Uint32(head[36:])&hardFloat != 0 {
			p.Variant = "v7"
		}
	}
	return Normalize(p), true
}

type machineKey struct {
	machine      elf.Machine
	wide, little bool
}

// machines gives Go's names to what headers say.
var machines = map[machineKey]string{
	{elf.EM_X86_64, true, true}:    "amd64",
	{elf.EM_386, false, true}:      "386",
	{elf.EM_AARCH64, true, true}:   "arm64",
	{elf.EM_ARM, false, true}:      "arm",
	{elf.EM_PPC64, true, true}:     "ppc64le",
	{elf.EM_PPC64, true, false}:    "ppc64",
	{elf.EM_S390, true, false}:     "s390x",
	{elf.EM_RISCV, true, true}:     "riscv64",
	{elf.EM_LOONGARCH, true, true}: "loong64",
	{elf.EM_MIPS, true, true}:      "mips64le",
	{elf.EM_MIPS, true, false}:     "mips64",
	{elf.EM_MIPS, false, true}:     "mipsle",
	{elf.EM_MIPS, false, false}:    "mips",
}
