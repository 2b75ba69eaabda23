package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// formatVersion is that of the data root's layout.
const formatVersion = 1

// roots holds the two directories for this daemon alone while it runs.
type roots struct {
	locks   []*os.File
	pidfile string
	id      string // the data root's own
}

// openRoots makes the directories if they are missing, locks them against a
// second daemon and writes the PID file. The locks go with the process, so
// nothing that a killed daemon left is in the way.
func openRoots(o *options) (*roots, error) {
	r := &roots{}
	if err := r.open(o); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *roots) open(o *options) (err error) {
	for _, at := range []struct {
		dir, flag string
		mode      os.FileMode
	}{
		// Users of the host have no way to what images and volumes hold, such as
		// programs that would run as root for them.
		{o.DataRoot, "--data-root", 0o710},
		{o.ExecRoot, "--exec-root", 0o711},
	} {
		err := os.MkdirAll(at.dir, at.mode)
		if err == nil {
			err = unix.Access(at.dir, unix.W_OK)
		}
		if errors.Is(err, unix.EROFS) {
			return fault.New(fault.Unavailable, "%s is on a read-only file system: mount it for writing, or choose another directory by %s", at.dir, at.flag)
		}
		if err != nil {
			return err
		}
		f, err := lock(filepath.Join(at.dir, "lock"))
		if err != nil {
			return err
		}
		r.locks = append(r.locks, f)
	}
	if err := forgetOtherBoot(o.ExecRoot); err != nil {
		return err
	}
	if err := checkFormat(filepath.Join(o.DataRoot, "version")); err != nil {
		return err
	}
	if r.id, err = engineID(filepath.Join(o.DataRoot, "engine-id")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.Pidfile), 0o755); err != nil {
		return err
	}
	if err := atomicfile.Write(o.Pidfile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	r.pidfile = o.Pidfile
	return nil
}

// bootID is where the kernel tells which boot this is, random(4).
const bootID = "/proc/sys/kernel/random/boot_id"

// forgetOtherBoot empties an exec root that another boot has left, on a file
// system that outlives one: what is written there names processes and
// namespaces that are no more, and whose numbers others have by now.
func forgetOtherBoot(dir string) error {
	now, err := os.ReadFile(bootID)
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, "boot")
	last, err := os.ReadFile(mark)
	switch {
	case err == nil && bytes.Equal(last, now):
		return nil
	case err == nil:
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name() == "lock" || e.Name() == "boot" {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("cannot clear what another boot has left: %w", err)
			}
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return atomicfile.Write(mark, now, 0o644)
}

// lockPatience is how long a daemon that was killed may take to be gone.
const lockPatience = time.Second

func lock(path string) (*os.File, error) {
	// Not for writing: the disk may become read-only under a daemon that writes nothing.
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockPatience)
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		f.Close()
		return nil, fault.New(fault.Conflict, "%s is in use by another tared: stop it, or choose other directories with --data-root and --exec-root", filepath.Dir(path))
	}
	return f, nil
}

// checkFormat refuses a data root that a newer program has written.
func checkFormat(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return atomicfile.WriteSync(path, fmt.Appendln(nil, formatVersion), 0o644)
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 1 {
		return fault.New(fault.Invalid, "%s does not hold the version of a data root: is this the right directory?", path)
	}
	if n > formatVersion {
		return fault.New(fault.Invalid, "%s has format %d, which is newer than this tared's %d: start the newer tared", filepath.Dir(path), n, formatVersion)
	}
	return nil
}

// engineID reads the identifier of the data root, and makes one the first
// time: a random UUID, RFC 9562 version 4.
func engineID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(data)); id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return id, atomicfile.Write(path, []byte(id+"\n"), 0o600)
}

// Close removes the PID file and lets the directories go.
func (r *roots) Close() error {
	var err error
	if r.pidfile != "" {
		// Another daemon may have written its own there by now.
		if pid, e := os.ReadFile(r.pidfile); e == nil && string(pid) == strconv.Itoa(os.Getpid()) {
			err = os.Remove(r.pidfile)
		}
	}
	for _, f := range r.locks {
		err = errors.Join(err, f.Close())
	}
	return err
}
