package ocirun

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filters are kept in files beside the containers, whose names are no IDs:
//
//	<root>/seccomp:<0…15>   the filter of a profile, and the text of that
//
// A program that makes one container finds there what another one has compiled.
// Each file is, in this order: keptHeader bytes, of which the first half says which program
// wrote it and the second the flags, the length of the text and the sum of the filter; the
// text; the filter. A file of another program, or of another text, is replaced, and one
// of which a machine that lost its power has kept a part.
const (
	keptName   = "seccomp:"
	keptSlots  = 16
	keptHeader = 64
	keptMost   = 1 << 20
)

// keptIn is the directory of the files; "" for none.
var keptIn string

// KeepFilters has the compiled seccomp filters of configurations that are read from files
// kept in a directory, which is that of the state, for later processes. Of a profile that is found
// there linux.seccomp of the specification tells nothing. It is called before all others.
func KeepFilters(dir string) { keptIn = dir }

// decoded is a seccomp profile with the text that it was read from.
type decoded struct {
	of   *specs.LinuxSeccomp
	text string
}

var lastProfile atomic.Pointer[decoded]

// ownProgram tells this program's file from others, also from what had its name before:
// what it compiles may differ. Its time is that of the change, which no packager sets.
var ownProgram = sync.OnceValue(func() (id [keptHeader / 2]byte) {
	var st unix.Stat_t
	if unix.Stat("/proc/self/exe", &st) == nil {
		for i, n := range [...]uint64{st.Dev, st.Ino, uint64(st.Ctim.Nano()), uint64(st.Size)} {
			binary.NativeEndian.PutUint64(id[8*i:], n)
		}
	}
	return id
})

// keptFile is where the filter of a profile is.
func keptFile(text string) string {
	sum := sumOf([]byte(text[max(len(text)-256, 0):])) + uint64(len(text))
	return keptIn + "/" + keptName + strconv.FormatUint(sum%keptSlots, 10)
}

func sumOf(b []byte) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write(b)
	return sum.Sum64()
}

// takeFilter finds the filter of a profile, nil without. What it is of cannot be
// compiled, and is equal to no other.
func takeFilter(text string) *filter {
	fd, err := unix.Open(keptFile(text), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || int(st.Uid) != unix.Geteuid() || st.Mode&(unix.S_IFMT|0o022) != unix.S_IFREG ||
		st.Size < keptHeader || st.Size > keptMost {
		return nil
	}
	b := make([]byte, st.Size)
	if n, err := unix.Read(fd, b); err != nil || n != len(b) {
		return nil
	}
	id := ownProgram()
	by, head, b := b[:len(id)], b[len(id):keptHeader], b[keptHeader:]
	n := int(binary.NativeEndian.Uint32(head[4:]))
	if string(by) != string(id[:]) || n != len(text) || n >= len(b) || string(b[:n]) != text || sumOf(b[n:]) != binary.NativeEndian.Uint64(head[8:]) {
		return nil
	}
	of := &specs.LinuxSeccomp{DefaultAction: "kept", Architectures: []specs.Arch{specs.Arch(text)}}
	return &filter{of, "", b[n:], uint(binary.NativeEndian.Uint32(head))}
}

// keepFilter writes the filter of a profile, unless an agent is part of it, of whom
// more has to be known. Nobody needs to hear that it could not.
func keepFilter(p *decoded, f *filter) {
	id := ownProgram()
	if s := p.of; id == [len(id)]byte{} || s.ListenerPath != "" || s.ListenerMetadata != "" || f.flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		return
	}
	size := keptHeader + len(p.text) + len(f.code)
	if size > keptMost { // nobody would read it
		return
	}
	b := append(make([]byte, 0, size), id[:]...)
	b = binary.NativeEndian.AppendUint32(b, uint32(f.flags))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(p.text)))
	b = binary.NativeEndian.AppendUint64(b, sumOf(f.code))
	b = append(append(b[:keptHeader], p.text...), f.code...)
	if len(b) > keptMost {
		return
	}
	// Without a name until it is whole.
	fd, err := unix.Open(keptIn, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if n, err := unix.Write(fd, b); err != nil || n != len(b) {
		return
	}
	name := keptFile(p.text)
	_ = unix.Unlink(name)
	_ = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
}
