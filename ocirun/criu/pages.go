package criu

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tarehq/tare/fault"
)

// pagesLog is what the log of ServePages is called.
const pagesLog = "lazy-pages.log"

// ServePages starts the process that gives the memory of a checkpoint, page by page
// as it is touched and the rest in between, to a restoration with the same work
// directory, criu(8) lazy-pages. It is there when it returns, a child of this
// process for somebody to collect, and ends when all has been given or the restored
// processes are gone. end makes it end before.
func ServePages(path, images, work string) (end func(), err error) {
	if path, err = LookPath(path); err != nil {
		return nil, err
	}
	// CRIU does not take away the socket of one that was killed.
	if err := os.Remove(filepath.Join(work, "lazy-pages.socket")); err != nil && !os.IsNotExist(err) {
		return nil, fault.New(fault.Internal, "make way for CRIU: %w", err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, fault.New(fault.Internal, "make the pipe from CRIU: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(path, "lazy-pages", "--images-dir", images, "--work-dir", work, "--log-file", pagesLog, "--status-fd", "3")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "execute %s: %w", filepath.Base(path), err)
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fault.New(fault.Internal, "criu lazy-pages failed (log file: %s)", filepath.Join(work, pagesLog))
	}
	return func() { _ = cmd.Process.Kill() }, nil
}
