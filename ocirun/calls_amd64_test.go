package ocirun

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// makers are programs that make the directory /tmp/made by a system call which is not
// the usual one, and exit with the errno: 32-bit code by int 0x80, and x32's numbers.
func makers() map[string][]byte {
	const path = "/tmp/made\x00"
	le := binary.LittleEndian
	i386 := []byte{0xb8, 39, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0xb9, 0xed, 1, 0, 0, 0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80}
	x32 := []byte{0xb8, 83, 0, 0, 0x40, 0xbf, 0, 0, 0, 0, 0xbe, 0xed, 1, 0, 0, 0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}
	const base32, base64 = 0x08048000, 0x400000
	le.PutUint32(i386[6:], base32+84+uint32(len(i386)))
	le.PutUint32(x32[6:], base64+120+uint32(len(x32)))
	small := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 77)...) // Elf32_Ehdr, Elf32_Phdr
	le.PutUint16(small[16:], 2)
	le.PutUint16(small[18:], 3)
	for at, v := range map[int]uint32{20: 1, 24: base32 + 84, 28: 52, 40: 52 | 32<<16, 44: 1, 52: 1, 60: base32, 64: base32, 76: 5, 80: 4096} {
		le.PutUint32(small[at:], v)
	}
	small = append(append(small, i386...), path...)
	large := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 113)...) // Elf64_Ehdr, Elf64_Phdr
	le.PutUint16(large[16:], 2)
	le.PutUint16(large[18:], 62)
	for at, v := range map[int]uint64{24: base64 + 120, 32: 64, 80: base64, 88: base64, 112: 4096} {
		le.PutUint64(large[at:], v)
	}
	for at, v := range map[int]uint32{20: 1, 52: 64 | 56<<16, 56: 1, 64: 1, 68: 5} {
		le.PutUint32(large[at:], v)
	}
	large = append(append(large, x32...), path...)
	for file, header := range map[*[]byte]int{&small: 68, &large: 96} { // p_filesz, p_memsz
		n := uint32(len(*file))
		step := map[int]int{68: 4, 96: 8}[header]
		le.PutUint32((*file)[header:], n)
		le.PutUint32((*file)[header+step:], n)
	}
	return map[string][]byte{"i386": small, "x32": large}
}

// TestOtherCalls: a filter is not passed by the system calls of another
// architecture that the processor has, named in it or not.
func TestOtherCalls(t *testing.T) {
	errno := uint(unix.EACCES)
	for name, program := range makers() {
		dir, s := bundle(t, "/make")
		clean(t)
		root := filepath.Join(dir, "rootfs")
		if err := os.WriteFile(filepath.Join(root, "make"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		s.Linux.Seccomp = nil
		_, status, err := tryRun(t, dir, s)
		if _, there := os.Stat(filepath.Join(root, "tmp/made")); err != nil || there != nil && (name == "i386" || status.ExitStatus() != int(unix.ENOSYS)) {
			t.Logf("%s is nothing that this kernel runs: %v, %v", name, status, err) // its filter is asked all the same for x32
			if name == "i386" {
				continue
			}
		}
		_ = os.Remove(filepath.Join(root, "tmp/made"))
		for _, named := range []bool{false, true} {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
			want := fmt.Sprint("signal ", unix.SIGSYS)
			if named {
				s.Linux.Seccomp.Architectures, want = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, fmt.Sprint("code ", errno)
			}
			_, status := run(t, dir, s)
			got := fmt.Sprint("code ", status.ExitStatus())
			if status.Signaled() {
				got = fmt.Sprint("signal ", status.Signal())
			}
			if got != want {
				t.Errorf("%s, named %v: %s, not %s", name, named, got, want)
			}
			if _, err := os.Stat(filepath.Join(root, "tmp/made")); err == nil {
				t.Errorf("%s, named %v: it passes the filter", name, named)
			}
		}
	}
}
