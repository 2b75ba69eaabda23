package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/internal/seqpacket"
)

// Names of the files in a container's directory.
const (
	SocketName = "sock"
	ExitName   = "exit.json"
	InitName   = "init"
)

// Connect finds the supervising process of the container in dir, after a
// restart of the daemon. fault.NotFound means that the process is gone: see
// ReadExit, and KillInit if that finds nothing. fault.Unavailable with a
// sentence for the user means that the process is of a newer version.
func Connect(ctx context.Context, dir string) (*Keeper, error) {
	conn, err := seqpacket.Dial(filepath.Join(dir, SocketName))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			return nil, fault.New(fault.NotFound, "no process supervises %s", dir)
		}
		return nil, err
	}
	k := newKeeper(dir, conn, nil)
	if err := k.hello(ctx); err != nil {
		k.Close()
		select {
		case <-k.gone:
			if errors.Is(err, fault.Unavailable) && k.ended() {
				// it was on its way out and our connection came too late
				return nil, fault.New(fault.NotFound, "no process supervises %s", dir)
			}
		case <-ctx.Done():
		}
		return nil, err
	}
	return k, nil
}

// ended tells whether nobody answers at the container's socket any more.
func (k *Keeper) ended() bool {
	conn, err := seqpacket.Dial(filepath.Join(k.dir, SocketName))
	if err == nil {
		conn.Close()
		return false
	}
	return true
}

// ReadExit reads the record of a container that has ended from its directory;
// fault.NotFound if there is none.
func ReadExit(dir string) (Exit, error) {
	b, err := os.ReadFile(filepath.Join(dir, ExitName))
	if errors.Is(err, fs.ErrNotExist) {
		return Exit{}, fault.New(fault.NotFound, "no exit is recorded in %s", dir)
	}
	if err != nil {
		return Exit{}, err
	}
	var e Exit
	if err := json.Unmarshal(b, &e); err != nil {
		return Exit{}, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, ExitName), err)
	}
	return e, nil
}

// KillInit kills the init of the container in dir by SIGKILL when its
// supervising process died (by SIGKILL itself: nothing less ends it). The
// kernel does not do so: a parent-death signal is lost as soon as the init
// changes its credentials. It is no error if the init has ended.
func KillInit(dir string) error {
	pid, started, err := readInit(dir)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // ended
	}
	defer unix.Close(fd)
	// the descriptor holds the process that the start time is then read of
	if now, _, err := procfs.Start(pid); err != nil || now != started {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("cannot kill process %d: %w", pid, err)
	}
	thaw(pid, filepath.Base(dir))
	return nil
}

// thaw lets a process that was killed die: in a control group of version 1 that
// is frozen it does not, and nobody else may be left to thaw it.
func thaw(pid int, id string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return // dead
	}
	groups, err := cgroupfs.Host()
	if err != nil || groups.Unified() {
		return
	}
	state := filepath.Join(groups.Group(string(text), id).Dir("freezer"), "freezer.state")
	if f, err := os.OpenFile(state, os.O_WRONLY, 0); err == nil { // there is no freezer otherwise
		_, _ = f.WriteString("THAWED")
		f.Close()
	}
}

// OpenNamespace opens a namespace of the init of the container in dir: "net",
// "pid" and so on, namespaces(7). It is that init's for certain, not that of a
// process which has its number by now. fault.Conflict when it has ended.
func OpenNamespace(dir, kind string) (*os.File, error) {
	return openOfInit(dir, "ns/"+kind, unix.O_RDONLY)
}

// ReadOfInit reads a file of the init's directory in proc(5), on the terms of
// OpenNamespace.
func ReadOfInit(dir, name string) ([]byte, error) {
	f, err := openOfInit(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if errors.Is(err, unix.ESRCH) {
		return nil, fault.New(fault.Conflict, "the container has ended")
	}
	return b, err
}

// OpenRoot opens the root directory of the init of the container in dir, as a
// place (O_PATH), with all that the container has mounted. It is as certain as
// OpenNamespace.
func OpenRoot(dir string) (*os.File, error) {
	return openOfInit(dir, "root", unix.O_PATH|unix.O_DIRECTORY)
}

// openOfInit opens what /proc has of the init.
func openOfInit(dir, name string, flags int) (*os.File, error) {
	pid, started, err := readInit(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, name), flags, 0)
	if err == nil {
		var now uint64
		if now, _, err = procfs.Start(pid); err == nil && now == started {
			return f, nil
		}
		f.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fault.New(fault.Conflict, "the container has ended")
	}
	return nil, err
}

// readInit reads which process the init is; fault.NotFound if it is not noted.
func readInit(dir string) (pid int, started uint64, err error) {
	name := filepath.Join(dir, InitName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fault.New(fault.NotFound, "no init is recorded in %s", dir)
	}
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscanf(string(b), "%d %d", &pid, &started); err != nil {
		return 0, 0, fmt.Errorf("%s is damaged: %w", name, err)
	}
	return pid, started, nil
}
