// Package spread has an ext4 without a journal lay the directories that are made in
// one far from each other.
//
// Without a journal ext4 does not use a deleted file's inode again for some minutes,
// and who makes a file has it look at each such inode of the group of the directory
// (8,192, ext4(5)): a quarter of a millisecond for each file on a machine that
// makes and deletes many. Directories lie in their parent's group, unless that is
// the top of a hierarchy (chattr(1), T): then each has a group that has few. With a
// journal there is nothing to gain.
package spread

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const topDir = 0x00020000 // FS_TOPDIR_FL, ioctl_iflags(2)

// Children does so for a directory. Where it cannot be, files are made as they
// always were.
func Children(dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if !scans(fd) {
		return
	}
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|topDir)
	}
}

// scans tells whether a file is on an ext4 without a journal.
func scans(fd int) bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		return false
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile("/sys/fs/ext4/" + filepath.Base(device) + "/journal_task")
	return err == nil && strings.TrimSpace(string(task)) == "<none>"
}
