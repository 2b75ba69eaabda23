package client

import (
	"os"
	"path/filepath"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// keepInodes sees to it that no file which was in a client's directory before
// changes in place: layers may be linked to it. What is received replaces what was
// there, but for a hard link, with which a client could name other attributes: one to
// an old file is told those that the file has.
//
// What is old was born before: the time of change is new as well when a layer that
// is linked to the file goes meanwhile. What is born later than now was before the
// clock was set back. Where files tell no birth all are old.
func keepInodes(dir string) func(string, *types.Stat) bool {
	begun := time.Now().UnixNano()
	return func(_ string, st *types.Stat) bool {
		if st.Linkname == "" || !os.FileMode(st.Mode).IsRegular() {
			return true
		}
		name := filepath.Join(dir, st.Linkname)
		fi, err := os.Lstat(name)
		var is unix.Statx_t
		if err != nil || !fi.Mode().IsRegular() || unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &is) != nil {
			return true // the link fails, too
		}
		at := is.Btime.Sec*1e9 + int64(is.Btime.Nsec)
		if is.Mask&unix.STATX_BTIME == 0 || at <= begun || at > time.Now().UnixNano() {
			st.Mode, st.Uid, st.Gid, st.ModTime, st.Xattrs = uint32(fi.Mode()), is.Uid, is.Gid, fi.ModTime().UnixNano(), nil
		}
		return true
	}
}
