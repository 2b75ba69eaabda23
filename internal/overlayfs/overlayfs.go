// Package overlayfs makes mounts that no path leads to yet: of the overlay file
// system (Documentation/filesystems/overlayfs.rst), and of directories as they
// are. They go with the last descriptor, unless they are attached by
// move_mount(2).
package overlayfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tarehq/tare/internal/thread"
	"golang.org/x/sys/unix"
)

// MaxLower is how many lower directories the kernel takes, its OVL_MAX_STACK.
const MaxLower = 500

// Overlay describes an overlay mount. All paths are absolute.
type Overlay struct {
	Lower       []string // read-only layers, the topmost first; at least two without Upper
	Upper, Work string   // both empty for a read-only mount
	// Volatile says that what is written need not survive the mount: nothing is
	// ever synced.
	Volatile bool
	// Shared is for a read-only mount of a layer that another mount writes to as
	// its Upper at the same time. What changes after it has been looked at may be
	// seen or not.
	Shared bool

	Label string // of SELinux, that all files of the mount have; "" for their own

	// Users is the root of a user namespace: what the layers' files belong to on
	// disk are IDs of it, and what is made belongs to such there. nil for the
	// owners as they are.
	Users *Users
}

// Users are a user namespace, and who its root is outside.
type Users struct {
	FD       int
	UID, GID uint32
}

// Mount makes a detached overlay mount with the MOUNT_ATTR_ flags and returns a
// descriptor of its root, as of O_PATH.
func Mount(o Overlay, attr int) (fd int, err error) {
	if o.Users != nil {
		return mapped(o, attr)
	}
	return mount(o, attr)
}

func mount(o Overlay, attr int) (fd int, err error) {
	fd, err = byLayers(o, attr)
	if err == unix.EINVAL || err == unix.ENOSYS { // "lowerdir+" came with Linux 6.8
		fd, err = byOptions(o, attr)
	}
	return fd, err
}

// Bind makes a detached mount of a directory, without what is mounted below it,
// and returns a descriptor of its root, as of O_PATH. It has the MOUNT_ATTR_
// flags and, beside those about access times, none of the mount that the
// directory lies in. Nothing that is mounted in it is seen elsewhere.
func Bind(dir string, attr int) (fd int, err error) {
	fd, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	const all = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW
	clear := all &^ uint64(attr)
	if attr&unix.MOUNT_ATTR__ATIME != 0 {
		clear |= unix.MOUNT_ATTR__ATIME // which must be cleared as one
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: uint64(attr), Attr_clr: clear, Propagation: unix.MS_PRIVATE})
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
	}
	return fd, nil
}

// byLayers mounts by fsopen(2) with one option for each layer, so that the
// number of layers and the characters in their names are no matter.
func byLayers(o Overlay, attr int) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := configure(fs, o); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, reason(fs, err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
}

func configure(fs int, o Overlay) error {
	set := func(key, value string) error { return unix.FsconfigSetString(fs, key, value) }
	if err := set("source", "overlay"); err != nil {
		return err
	}
	for _, dir := range o.Lower {
		if err := set("lowerdir+", dir); err != nil {
			return err
		}
	}
	if o.Upper != "" {
		if err := set("upperdir", o.Upper); err != nil {
			return err
		}
		if err := set("workdir", o.Work); err != nil {
			return err
		}
	}
	if o.Label != "" {
		if err := set("context", o.Label); err != nil {
			return err
		}
	}
	if o.Volatile {
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return err
		}
	}
	for _, option := range o.features() {
		key, value, _ := strings.Cut(option, "=")
		if err := set(key, value); err != nil {
			return err
		}
	}
	return nil
}

// features are options with which the upper directory tells by itself what has
// changed, whatever the defaults of the kernel's builder or administrator are: a
// directory that was renamed is not but a reference to its old name, nor a file
// of which an attribute changed one to its old data. With an index the kernel would
// refuse an upper directory (EBUSY) whose last mount has not ended yet, though nobody
// uses that any more: its end writes back a disk.
func (o Overlay) features() []string {
	switch {
	case o.Upper != "":
		return []string{"redirect_dir=off", "metacopy=off", "index=off"}
	case o.Shared:
		return []string{"index=off"} // which takes a layer for itself alone
	}
	return nil
}

// reason adds what the kernel says about a failed mount to err; reading the
// context gives messages of the form "e overlay: …".
func reason(fs int, err error) error {
	buf := make([]byte, 512)
	for {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n < 2 {
			return err
		}
		if buf[0] == 'e' {
			return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[2:n])))
		}
	}
}

// byOptions mounts by mount(2), in a mount namespace that a thread has for this
// alone and that ends with it.
func byOptions(o Overlay, attr int) (int, error) {
	data, common, err := options(o)
	if err != nil {
		return -1, err
	}
	fd := -1
	thread.Own(func() bool {
		fd, err = inOwnNamespace(common, o.Lower[0], data, attr)
		return false
	})
	return fd, err
}

func inOwnNamespace(dir, target, data string, attr int) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("mount", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return -1, &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	if err := unix.Mount("overlay", target, "overlay", 0, data); err != nil {
		return -1, err
	}
	return Bind(target, attr)
}

// options writes the options of mount(2), which are one page: the layers are
// named relative to their common directory.
func options(o Overlay) (data, common string, err error) {
	common = Overlay{Lower: o.Lower}.common()
	names := make([]string, len(o.Lower))
	for i, dir := range o.Lower {
		rel, err := filepath.Rel(common, dir)
		if err != nil {
			return "", "", err
		}
		names[i] = escape.Replace(rel)
	}
	data = "lowerdir=" + strings.Join(names, ":")
	if o.Upper != "" {
		data += ",upperdir=" + escapeOption.Replace(o.Upper) + ",workdir=" + escapeOption.Replace(o.Work)
	}
	if o.Volatile {
		data += ",volatile"
	}
	if o.Label != "" {
		data += ",context=" + strconv.Quote(o.Label) // it may have commas
	}
	for _, option := range o.features() {
		data += "," + option
	}
	if len(data) >= os.Getpagesize() {
		return "", "", fmt.Errorf("%d layers are too many for the options that this kernel takes", len(o.Lower))
	}
	return data, common, nil
}

// What separates options, and layers within lowerdir.
var (
	escapeOption = strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	escape       = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
)
