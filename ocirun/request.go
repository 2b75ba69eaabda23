package ocirun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
	"golang.org/x/sys/unix"
)

// What a list of system calls cannot do, because it depends on what is found
// meanwhile, init asks the parent for: it reports the request's number and
// waits. The parent works below descriptors that it takes from init.

// ask appends a request.
func (b *builder) ask(do func(*attempt) error) {
	b.requests = append(b.requests, do)
	b.report(recordAsk + len(b.requests) - 1)
	b.pause()
}

// maxRequests is how many numbers records have for them.
const maxRequests = 4000 - recordAsk

// take gives a descriptor of init that a step left in a slot. Init has not left
// the shared memory by then.
func (a *attempt) take(v value) (int, error) {
	n := v.n
	if v.kind == slot {
		n = binary.NativeEndian.Uint64(a.arena.mem[stepsAt+len(a.b.steps)*stepSize+int(v.n):])
	}
	fd, err := unix.PidfdGetfd(a.pidfd, int(n), 0)
	if err != nil {
		return -1, fault.New(fault.Internal, "take descriptor %d of the container's init: %w", n, err)
	}
	return fd, nil
}

// makeTarget makes what a mount is put on, along links that lead to nothing.
func (a *attempt) makeTarget(root value, name string, directory bool) error {
	fd, err := a.take(root)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	uid, gid := a.rootIDs()
	if err := makeBelowAs(fd, name, directory, uid, gid); err != nil {
		return fault.New(fault.Invalid, "make the mount point %s: %w", name, err)
	}
	return nil
}

// rootIDs are the ids outside of the container's root user and group.
func (a *attempt) rootIDs() (uid, gid int) {
	if !a.b.userNamespace() {
		return 0, 0
	}
	return mappedRoot(a.pid, "uid_map"), mappedRoot(a.pid, "gid_map")
}

func mappedRoot(pid int, file string) int {
	if id, ok := outsideID(pid, file, 0); ok {
		return int(id)
	}
	return 0
}

// outsideID is what an ID of a process's user namespace is outside.
func outsideID(pid int, file string, id uint32) (host uint32, ok bool) {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	for line := range bytes.Lines(b) {
		var first, outside, count uint32
		if n, _ := fmt.Sscan(string(line), &first, &outside, &count); n == 3 && id >= first && id-first < count {
			return outside + (id - first), true
		}
	}
	return 0, false
}

// givePipes gives the pipes that are the process's streams to its user, so that it can
// open them again by /dev/stdout: whoever is root in a user namespace may not.
func (a *attempt) givePipes(proc *specs.Process) {
	if proc.Terminal {
		return
	}
	for i, fd := range a.b.stdio {
		var st unix.Stat_t
		if a.b.null[i] || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if uid, ok := outsideID(a.pid, "uid_map", proc.User.UID); ok {
			_ = unix.Fchown(fd, int(uid), -1)
		}
	}
}

// makeBelowAs is makeBelow by the root of a user namespace: root outside may be
// nobody to the file system.
func makeBelowAs(root int, name string, directory bool, uid, gid int) (err error) {
	if uid|gid == 0 {
		return makeBelow(root, name, directory)
	}
	thread.Own(func() bool {
		var back func()
		if back, err = userns.Act(uint32(uid), uint32(gid)); err == nil {
			err = makeBelow(root, name, directory)
		}
		back()
		return true
	})
	return err
}

// makeBelow makes a directory or an empty file, with the directories above it,
// below a root directory. Symbolic links resolve inside as they would for a
// process of the container, also those whose target is to be made. Each step
// goes by a path without links that openat2 keeps inside, so whoever changes
// the tree meanwhile gains nothing.
func makeBelow(root int, name string, directory bool) error {
	todo := strings.Split(name, "/")
	at := "" // done, relative to root, without links
	for links := 0; len(todo) > 0; {
		word := todo[0]
		todo = todo[1:]
		switch word {
		case "", ".":
			continue
		case "..":
			if at = path.Dir(at); at == "." {
				at = ""
			}
			continue
		}
		next := path.Join(at, word)
		last := strings.Join(todo, "") == ""
		target, err := lookBelow(root, next)
		if err == unix.ENOENT {
			err = makeOne(root, at, word, directory || !last)
		}
		if err != nil {
			return err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > 40 {
			return unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			at = ""
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return nil
}

// lookBelow gives the target of a symbolic link, "" for anything else.
func lookBelow(root int, name string) (string, error) {
	fd, err := openBelow(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil || n == 0 {
		return "", unix.ENOENT
	}
	return string(b[:n]), nil
}

func openBelow(root int, name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	return openat.Open(root, name, flags, openat.InRoot)
}

func makeOne(root int, dir, name string, directory bool) error {
	parent, err := openBelow(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if directory {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		var fd int
		if fd, err = unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644); err == nil {
			unix.Close(fd)
		}
	}
	return err
}

// modeBelow is the mode of a directory of the root file system that a tmpfs
// covers, as mount option; "" if there is none yet, or another mount is above it.
func (b *builder) modeBelow(name string, earlier []specs.Mount) string {
	for i := range earlier {
		if d := below(earlier[i].Destination); strings.HasPrefix(below(name)+"/", d+"/") {
			return ""
		}
	}
	root, err := unix.Open(b.rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(root)
	fd, err := openBelow(root, below(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	return "mode=" + strconv.FormatUint(uint64(st.Mode&0o7777), 8)
}
