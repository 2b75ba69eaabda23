package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

const rootfsName = "rootfs"

// mountRoot mounts the overlay at target, in this process's mount namespace
// only, and tells whether there was anything to mount.
func mountRoot(o supervise.Overlay, target string) (bool, error) {
	if len(o.Lower) == 0 {
		return false, nil
	}
	if err := os.Mkdir(target, 0o711); err != nil && !os.IsExist(err) {
		return false, err
	}
	if o.Volatile {
		// The kernel marks such a root so that nobody mounts it again and takes
		// it for whole; here it is only ever the same boot's.
		if err := os.RemoveAll(filepath.Join(o.Work, "work", "incompat")); err != nil {
			return false, err
		}
	}
	err := mountLayers(o, target)
	if err == unix.EINVAL || err == unix.ENOSYS { // "lowerdir+" came with Linux 6.8
		err = mountJoined(o, target)
	}
	if err != nil {
		return false, fault.New(fault.Internal, "cannot mount the container's root: %w", err)
	}
	return true, nil
}

// mountLayers mounts by fsopen(2) with one option for each layer, so that the
// number of layers and the characters in their names are no matter.
func mountLayers(o supervise.Overlay, target string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return err
	}
	for _, dir := range o.Lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", dir); err != nil {
			return err
		}
	}
	if o.Upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", o.Upper); err != nil {
			return err
		}
		if err := unix.FsconfigSetString(fs, "workdir", o.Work); err != nil {
			return err
		}
		if o.Volatile {
			if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
				return err
			}
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return reason(fs, err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
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

// mountJoined mounts by mount(2), whose options are one page: the layers are
// named relative to their common directory.
func mountJoined(o supervise.Overlay, target string) error {
	common := filepath.Dir(o.Lower[0])
	for _, dir := range o.Lower {
		for !strings.HasPrefix(dir, common+"/") && common != "/" {
			common = filepath.Dir(common)
		}
	}
	names := make([]string, len(o.Lower))
	for i, dir := range o.Lower {
		rel, err := filepath.Rel(common, dir)
		if err != nil {
			return err
		}
		names[i] = escape.Replace(rel)
	}
	data := "lowerdir=" + strings.Join(names, ":")
	if o.Upper != "" {
		data += ",upperdir=" + escapeOption.Replace(o.Upper) + ",workdir=" + escapeOption.Replace(o.Work)
		if o.Volatile {
			data += ",volatile"
		}
	}
	if len(data) >= os.Getpagesize() {
		return fault.New(fault.Invalid, "the image has too many layers for this kernel: %d", len(o.Lower))
	}
	if err := os.Chdir(common); err != nil {
		return err
	}
	defer os.Chdir("/")
	return unix.Mount("overlay", target, "overlay", 0, data)
}

// What separates options, and layers within lowerdir.
var (
	escapeOption = strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	escape       = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
)
