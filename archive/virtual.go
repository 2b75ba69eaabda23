package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// virtualKinds are the file systems whose files the kernel makes up when they are
// read: of most it does not know the size, and not all can be read.
var virtualKinds = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.SELINUX_MAGIC: true,
	unix.PSTOREFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
}

// maxVirtual is how much such a file may hold. What holds more has no end, or as
// /proc/kcore all memory.
const maxVirtual = 4 << 20

// virtual tells whether a place is on such a file system. Those who look ahead ask, too.
func (p *packer) virtual(fd int, st *unix.Stat_t) bool {
	if known, ok := p.devices.Load(st.Dev); ok {
		return known.(bool)
	}
	var fs unix.Statfs_t
	known := unix.Fstatfs(fd, &fs) == nil && virtualKinds[fs.Type]
	p.devices.Store(st.Dev, known)
	return known
}

// madeUp writes a file of a virtual file system as it is read now. What cannot be
// read, or only by waiting, is left out: there is some everywhere.
func (p *packer) madeUp(h header, place int, st *unix.Stat_t) (there bool, err error) {
	fd, err := readPlace(place)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	var text []byte
	for len(text) <= maxVirtual {
		n, err := unix.Read(fd, p.buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, nil
		}
		if n == 0 {
			h.size = int64(len(text))
			if err := p.begin(h, st); err != nil {
				return false, err
			}
			_, err := p.tar.Write(text)
			return true, err
		}
		text = append(text, p.buffer[:n]...)
	}
	return false, nil
}

// vanished tells whether an error means that the thing is no more, as in /proc is
// all that belongs to a process which has ended.
func vanished(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
