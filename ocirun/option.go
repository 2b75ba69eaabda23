package ocirun

import (
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// mountOptions is what the option strings of one mount mean.
type mountOptions struct {
	bind, recursive  bool
	flags            uintptr // of mount(2)
	set, clear       uint64  // of mount_setattr(2), for bind mounts
	setAll, clearAll uint64  // the same for the whole tree
	propagation      []uintptr
	data             string // what only the file system understands
	idmap, idmapAll  bool   // owners are mapped, in the whole tree
	copyUp           bool   // a tmpfs begins with what it covers
	remount          bool   // what is mounted there is changed
	copyLink         bool   // a source that is a symbolic link is made anew instead of mounted
}

// flagOption has the bits of one option in both calls.
type flagOption struct {
	flag  uintptr
	attr  uint64
	clear bool
}

var flagOptions = map[string]flagOption{
	"ro": {unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, false}, "rw": {unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, true},
	"nosuid": {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, false}, "suid": {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, true},
	"nodev": {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, false}, "dev": {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, true},
	"noexec": {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, false}, "exec": {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, true},
	"nodiratime": {unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, true},
	"nosymfollow": {unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW, false}, "symfollow": {unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW, true},
	"sync": {unix.MS_SYNCHRONOUS, 0, false}, "async": {unix.MS_SYNCHRONOUS, 0, true},
	"dirsync": {unix.MS_DIRSYNC, 0, false}, "lazytime": {unix.MS_LAZYTIME, 0, false}, "nolazytime": {unix.MS_LAZYTIME, 0, true},
	"mand": {unix.MS_MANDLOCK, 0, false}, "nomand": {unix.MS_MANDLOCK, 0, true},
	"iversion": {unix.MS_I_VERSION, 0, false}, "noiversion": {unix.MS_I_VERSION, 0, true},
	"silent": {unix.MS_SILENT, 0, false}, "loud": {unix.MS_SILENT, 0, true},
}

// atimeOptions are modes, of which a mount has one.
var atimeOptions = map[string]struct {
	flag uintptr
	attr uint64
}{
	"relatime": {unix.MS_RELATIME, unix.MOUNT_ATTR_RELATIME}, "norelatime": {unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME},
	"noatime": {unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME}, "atime": {unix.MS_RELATIME, unix.MOUNT_ATTR_RELATIME},
	"strictatime": {unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME}, "nostrictatime": {unix.MS_RELATIME, unix.MOUNT_ATTR_RELATIME},
}

// atimeClears name a mode that is not wanted and leave the choice: a file system
// gets the kernel's default, a bind mount keeps what its source has.
var atimeClears = map[string]bool{"atime": true, "norelatime": true, "nostrictatime": true}

var propagationOptions = map[string]uintptr{
	"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "unbindable": unix.MS_UNBINDABLE,
	"rprivate": unix.MS_PRIVATE | unix.MS_REC, "rshared": unix.MS_SHARED | unix.MS_REC,
	"rslave": unix.MS_SLAVE | unix.MS_REC, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// parseOptions reads the options of a mount. What is not a flag goes to the file
// system, as mount(8) does it.
func parseOptions(m *specs.Mount) (mountOptions, error) {
	var o mountOptions
	var data []string
	for _, word := range m.Options {
		if p, ok := propagationOptions[word]; ok {
			o.propagation = append(o.propagation, p)
			continue
		}
		if f, ok := flagOptions[word]; ok {
			if f.clear {
				o.flags, o.set, o.clear = o.flags&^f.flag, o.set&^f.attr, o.clear|f.attr
			} else {
				o.flags, o.set, o.clear = o.flags|f.flag, o.set|f.attr, o.clear&^f.attr
			}
			continue
		}
		if atimeClears[word] {
			continue
		}
		if a, ok := atimeOptions[word]; ok {
			const modes = unix.MS_RELATIME | unix.MS_NOATIME | unix.MS_STRICTATIME
			o.flags = o.flags&^modes | a.flag
			o.set, o.clear = o.set&^unix.MOUNT_ATTR__ATIME|a.attr, o.clear|unix.MOUNT_ATTR__ATIME
			continue
		}
		if o.recursiveOption(word) {
			continue
		}
		switch word {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "defaults", "":
		case "tmpcopyup":
			o.copyUp = true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.idmapAll = true, true
		case "remount":
			o.remount = true
		case "copy-symlink":
			o.copyLink = true
		default:
			data = append(data, word)
		}
	}
	if m.Type == "bind" && !o.bind {
		o.bind = true
	}
	o.data = strings.Join(data, ",")
	if o.set&unix.MOUNT_ATTR_NODIRATIME != 0 && o.clear&unix.MOUNT_ATTR__ATIME == 0 { // implies relatime
		o.clear |= unix.MOUNT_ATTR__ATIME
	}
	if o.copyUp && (o.bind || m.Type != "tmpfs") {
		return o, fault.New(fault.Invalid, "the mount %s has the option tmpcopyup, which only a tmpfs has", m.Destination)
	}
	return o, nil
}

// exact completes the options of a bind mount: one that is named makes those
// that are not named mean their opposite, as a remount does. In a user namespace
// that is left to what the kernel would let its root change.
func (o *mountOptions) exact(userNamespace bool) {
	all := uint64(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW)
	if userNamespace {
		all = unix.MOUNT_ATTR_NOSYMFOLLOW
	}
	if o.set|o.clear != 0 {
		o.clear |= all &^ o.set
	}
}

// recursiveOption reads rro, rnosuid and the like.
func (o *mountOptions) recursiveOption(word string) bool {
	name, ok := strings.CutPrefix(word, "r")
	if !ok {
		return false
	}
	if a, ok := atimeOptions[name]; ok && word != "relatime" {
		o.setAll, o.clearAll = o.setAll&^unix.MOUNT_ATTR__ATIME|a.attr, o.clearAll|unix.MOUNT_ATTR__ATIME
		return true
	}
	f, ok := flagOptions[name]
	if !ok || f.attr == 0 {
		return false
	}
	if f.clear {
		o.setAll, o.clearAll = o.setAll&^f.attr, o.clearAll|f.attr
	} else {
		o.setAll, o.clearAll = o.setAll|f.attr, o.clearAll&^f.attr
	}
	return true
}

// MountOptions lists the options that are understood here and not by the file
// system.
func MountOptions() []string {
	out := []string{"bind", "rbind", "defaults", "tmpcopyup", "idmap", "ridmap", "remount", "copy-symlink"}
	for name, f := range flagOptions {
		out = append(out, name)
		if f.attr != 0 {
			out = append(out, "r"+name)
		}
	}
	for name := range atimeOptions {
		out = append(out, name, "r"+name)
	}
	for name := range propagationOptions {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
