package client

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// keepInodes sees to it that no file which was in a client's directory before
// changes in place: layers may be linked to it. What is received replaces what was
// there, but for a hard link, with which a client could name other attributes: one to
// an old file is told those that the file has.
func keepInodes(dir string) func(string, *types.Stat) bool {
	var begun unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &begun)
	old := map[uint64]bool{} // as it was when it was first seen: a link changes the time
	return func(_ string, st *types.Stat) bool {
		if st.Linkname == "" || !os.FileMode(st.Mode).IsRegular() {
			return true
		}
		fi, err := os.Lstat(filepath.Join(dir, st.Linkname))
		if err != nil || !fi.Mode().IsRegular() {
			return true // the link fails, too
		}
		own := fi.Sys().(*syscall.Stat_t)
		if _, ok := old[own.Ino]; !ok {
			old[own.Ino] = !time.Unix(own.Ctim.Unix()).After(time.Unix(begun.Unix()))
		}
		if old[own.Ino] {
			st.Mode, st.Uid, st.Gid, st.ModTime, st.Xattrs = uint32(fi.Mode()), own.Uid, own.Gid, fi.ModTime().UnixNano(), nil
		}
		return true
	}
}
