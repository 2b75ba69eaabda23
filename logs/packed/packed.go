// Package packed compresses what was rotated out of a log, and reads it. It is
// apart from package logs because the process that writes a log does neither:
// the daemon compresses, when it is there.
package packed

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/klauspost/compress/gzip"

	"github.com/tarehq/tare/logs"
)

// Pack compresses the rotated files of the log at path, but for the current
// one. Each is there in one form or the other at every moment, and what a crash
// leaves half done is done again. Calls for one log must take turns; forms is
// held while one file takes the place of the other.
func Pack(path string, forms sync.Locker) error {
	names, err := logs.Rotated(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := pack(path, name, forms); err != nil && !errors.Is(err, fs.ErrNotExist) { // rotated out meanwhile
			return err
		}
	}
	return nil
}

func pack(path, name string, forms sync.Locker) (err error) {
	src, err := os.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	fresh := path + ".packing"
	dst, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(fresh)
		}
	}()
	defer dst.Close()
	z, err := gzip.NewWriterLevel(dst, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, src); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), dst.Sync(), dst.Close()); err != nil { // the other form goes
		return err
	}
	st, err := src.Stat()
	if err != nil {
		return err
	}
	forms.Lock()
	defer forms.Unlock()
	return logs.Replace(path, st.Sys().(*syscall.Stat_t).Ino, fresh)
}

// Unpack reads a compressed file.
func Unpack(r io.Reader) (io.Reader, error) { return gzip.NewReader(bufio.NewReader(r)) }
