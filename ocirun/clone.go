package ocirun

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
	"golang.org/x/sys/unix"
)

//go:noescape
func rawClone(args unsafe.Pointer, size, header uintptr, born unsafe.Pointer, n, slack uintptr) (r, entered, stuck uintptr)

func interpreter() uintptr

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal     uint64
	stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// arena is a loaded program in memory of its own. When it lives in a memfd the
// child can execute it: file descriptor fd is then valid in the child.
type arena struct {
	mem []byte
	fd  int // -1: anonymous
}

// nextBase spreads arenas over low addresses, which both this process and a
// freshly executed memfd have free: Go's heap and text lie elsewhere.
var nextBase atomic.Uint64

const (
	lowBase  = 0x20000000
	lowRange = 0x20000000
)

// place maps memory for a program and loads it. With a descriptor it is an ELF
// file in that memfd, mapped at the address it names for itself. A child that has
// memory of its own, apart, shares this with its parent.
func place(p *program, fd int, apart bool) (*arena, error) {
	size := (p.size() + 4095) &^ 4095
	a := &arena{fd: fd}
	if fd < 0 {
		kind := unix.MAP_PRIVATE
		if apart {
			kind = unix.MAP_SHARED
		}
		at, _, err := unix.RawSyscall6(unix.SYS_MMAP, 0, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, uintptr(kind|unix.MAP_ANONYMOUS), ^uintptr(0), 0)
		if err != 0 {
			return nil, fault.New(fault.Internal, "map memory for the container's init: %w", err)
		}
		a.mem = unsafe.Slice((*byte)(outside(at)), size)
	} else if err := a.mapLow(size); err != nil {
		return nil, err
	}
	base := uint64(uintptr(unsafe.Pointer(&a.mem[0])))
	p.load(a.mem, base)
	if fd >= 0 {
		writeELF(a.mem, base)
	}
	return a, nil
}

func (a *arena) mapLow(size int) error {
	if err := unix.Ftruncate(a.fd, int64(size)); err != nil {
		return fault.New(fault.Internal, "size the container's init: %w", err)
	}
	for range 1024 {
		off := nextBase.Add(uint64(size)) % lowRange &^ 4095
		at, _, err := unix.RawSyscall6(unix.SYS_MMAP, uintptr(lowBase+off), uintptr(size),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE|unix.MAP_POPULATE, uintptr(a.fd), 0)
		if err == 0 {
			a.mem = unsafe.Slice((*byte)(outside(at)), size)
			return nil
		}
		if err != unix.EEXIST {
			return fault.New(fault.Internal, "map the container's init: %w", err)
		}
	}
	return fault.New(fault.Unavailable, "no free address for the container's init: too many containers are being created")
}

func (a *arena) free() {
	if a.mem != nil {
		_, _, _ = unix.RawSyscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(&a.mem[0])), uintptr(len(a.mem)), 0)
		a.mem = nil
	}
}

// outside makes a pointer of an address that is not the Go heap's.
func outside(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }

// initFile makes the memfd that an arena can be executed from.
func initFile() (int, error) {
	fd, err := unix.MemfdCreate("init", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // kernels before 6.3 know no MFD_EXEC and always allow it
		fd, err = unix.MemfdCreate("init", unix.MFD_CLOEXEC)
	}
	if err == nil {
		// Who may not read what they execute cannot be looked into by others of their
		// user namespace either, from the first instruction on (ptrace(2)).
		if err = unix.Fchmod(fd, 0o111); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, fault.New(fault.Internal, "make the container's init: %w", err)
	}
	return fd, nil
}

// writeELF puts an executable's head, an entry stub and a copy of the
// interpreter before the steps.
func writeELF(mem []byte, base uint64) {
	le := binary.LittleEndian
	copy(mem, "\x7fELF\x02\x01\x01")
	le.PutUint16(mem[16:], 2) // ET_EXEC
	le.PutUint16(mem[18:], elfMachine)
	le.PutUint32(mem[20:], 1)
	le.PutUint64(mem[24:], base+codeAt)
	le.PutUint64(mem[32:], 64) // program headers follow
	le.PutUint16(mem[52:], 64)
	le.PutUint16(mem[54:], 56)
	le.PutUint16(mem[56:], 2)
	load, stack := mem[64:], mem[120:]
	le.PutUint32(load, 1) // PT_LOAD
	le.PutUint32(load[4:], 7)
	le.PutUint64(load[16:], base)
	le.PutUint64(load[32:], uint64(len(mem)))
	le.PutUint64(load[40:], uint64(len(mem)))
	le.PutUint64(load[48:], 4096)
	le.PutUint32(stack, 0x6474e551) // PT_GNU_STACK, not executable
	le.PutUint32(stack[4:], 6)
	stub := entryStub(base + headerAt)
	copy(mem[codeAt:], stub)
	// The interpreter is shorter than this; what follows it in the text is
	// copied along and never reached.
	code := unsafe.Slice((*byte)(outside(interpreter())), 768)
	copy(mem[codeAt+len(stub):], code)
}

// start clones the child that works through the program, with CLONE_VM among the
// flags in this process's memory. It returns the child's pid and a pidfd. The thread
// that clones enters the namespaces to be born in, and comes back.
func (a *arena) start(flags uint64, cgroupFD int, born []join) (pid, pidfd int, err error) {
	hidden()
	var fd int32
	args := cloneArgs{flags: flags | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD)}
	if cgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroupFD)
	}
	others, err := visits(born)
	defer func() {
		for _, v := range others {
			unix.Close(int(v.own))
		}
	}()
	if err != nil {
		return 0, -1, err
	}
	args.pidfd = uint64(uintptr(unsafe.Pointer(&fd))) // now that the stack stays where it is
	r, entered, stuck := rawClone(unsafe.Pointer(&args), unsafe.Sizeof(args), uintptr(unsafe.Pointer(&a.mem[headerAt])),
		unsafe.Pointer(unsafe.SliceData(others)), uintptr(len(others)), thread.Slack)
	runtime.KeepAlive(&fd)
	runtime.KeepAlive(others)
	if stuck != 0 { // a way that is open to who came by it
		panic("ocirun: a thread cannot go back to its own namespaces")
	}
	if failed := unix.Errno(-r); r > ^uintptr(4095) {
		if int(entered) < len(born) {
			return 0, -1, fault.New(fault.Internal, "join the %s namespace: %w", born[entered].kind, failed)
		}
		return 0, -1, fault.New(fault.Internal, "clone the container's init: %w", failed)
	}
	return int(r), int(fd), nil
}

// visit is a namespace that the cloning thread makes that of its next child, and
// the own one that it returns to. A pid namespace becomes that of the children alone.
type visit struct{ fd, flag, own uint64 }

// visits opens the thread's own namespaces, which are those of all threads.
func visits(born []join) ([]visit, error) {
	var out []visit
	for _, j := range born {
		own, err := unix.Open("/proc/thread-self/ns/"+namespaceFiles[j.flag], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return out, fault.New(fault.Internal, "open the own %s namespace: %w", j.kind, err)
		}
		out = append(out, visit{uint64(j.fd), uint64(j.flag), uint64(own)})
	}
	return out, nil
}

var namespaceFiles = map[uintptr]string{unix.CLONE_NEWPID: "pid", unix.CLONE_NEWNET: "net", unix.CLONE_NEWIPC: "ipc",
	unix.CLONE_NEWUTS: "uts", unix.CLONE_NEWCGROUP: "cgroup"}

// hidden makes this process non-dumpable before the first child shares its
// memory: nobody without CAP_SYS_PTRACE over it reaches it through the child.
var hidden = sync.OnceFunc(func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) })

// sealed tells that this process runs from a sealed memfd, which a container
// cannot overwrite through /proc/PID/exe.
var sealed = sync.OnceValue(func() bool {
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
})
