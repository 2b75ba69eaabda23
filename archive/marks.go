package archive

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
)

// marks is a set of directories in the tree. They are known by their inodes, as
// one has many names where there are links, and kept by their paths from the
// root, without a link in them.
type marks struct {
	paths map[uint64]string
	bytes int // that paths takes, about
}

// add puts an open directory into the set.
func (m *marks) add(root, dir int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	name, err := realPath(root, dir)
	if err != nil || m.paths[st.Ino] == name {
		return err
	}
	if m.bytes += len(name) + 64; m.bytes > maxTimes {
		return refuse(name, "is one directory more than is kept of an archive")
	}
	if m.paths == nil {
		m.paths = map[uint64]string{}
	}
	m.paths[st.Ino] = name
	return nil
}

// drop takes an open directory out of the set.
func (m *marks) drop(dir int) {
	var st unix.Stat_t
	if len(m.paths) > 0 && unix.Fstat(dir, &st) == nil {
		delete(m.paths, st.Ino)
	}
}

// list gives the paths of those that are still there, sorted. Another directory
// may have the place of one that was removed.
func (m *marks) list(root int) []string {
	var names []string
	for inode, name := range m.paths {
		fd, err := openat.Open(root, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Ino == inode {
			names = append(names, name)
		}
		unix.Close(fd)
	}
	slices.Sort(names)
	return names
}

// realPath is the path of an open directory from the root, "." for the root.
func realPath(root, dir int) (string, error) {
	above, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(root))
	if err != nil {
		return "", err
	}
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(dir))
	if err != nil {
		return "", err
	}
	if name == above {
		return ".", nil
	}
	below, ok := strings.CutPrefix(name, strings.TrimSuffix(above, "/")+"/")
	if !ok {
		return "", fault.New(fault.Internal, "%s is not below %s: was it moved while an archive was being extracted?", name, above)
	}
	return below, nil
}
