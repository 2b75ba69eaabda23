package testutil

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const ownMounts = "TARE_TEST_OWN_MOUNTS"

// OwnMounts runs a package's tests in a mount namespace of their own, if it is
// root that runs them: what they mount goes with them, however they end. For
// TestMain.
func OwnMounts(m interface{ Run() int }) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(ownMounts) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "cannot make the mounts private:", err)
			return 1
		}
		return m.Run()
	}
	runtime.LockOSThread() // with whose end the child ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), ownMounts+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Tmpfs mounts a file system in memory for the test and returns its directory.
func Tmpfs(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Btrfs makes a btrfs file system of 256 MiB in a file and mounts it, at a
// directory of the test's own. The loop device goes with the mount.
func Btrfs(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	dir := filepath.Join(t.TempDir(), "btrfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	release := MountBtrfs(t, dir)
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// MountBtrfs is Btrfs at a directory that is there, for the caller to release.
func MountBtrfs(t testing.TB, dir string) (release func() error) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "btrfs.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.btrfs", "-q", image)
	run(t, "mount", "-t", "btrfs", "-o", "loop", image, dir)
	return func() error { return unmount(dir) }
}

// XFS is Btrfs with the other file system whose files can share their data.
func XFS(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	temp := t.TempDir()
	dir, image := filepath.Join(temp, "xfs"), filepath.Join(temp, "xfs.img")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.xfs", "-q", image)
	run(t, "mount", "-t", "xfs", "-o", "loop", image, dir)
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ProjectQuotas are the file systems that have them, where the kernel is built so.
var ProjectQuotas = []string{"ext4", "xfs"}

// MountProjectQuotas mounts a new file system with project quotas. The test is skipped
// on a kernel that has none of the kind.
func MountProjectQuotas(t testing.TB, fs, dir string) (release func() error) {
	t.Helper()
	RequireRoot(t)
	image := filepath.Join(t.TempDir(), fs+".img")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20)); err != nil {
		t.Fatal(err)
	}
	if fs == "ext4" {
		run(t, "mkfs.ext4", "-q", "-O", "quota,project", image)
	} else {
		run(t, "mkfs."+fs, "-q", image)
	}
	if out, err := exec.Command("mount", "-t", fs, "-o", "loop,prjquota", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel has no project quotas of %s: %s", fs, out)
	}
	return func() error { return unmount(dir) }
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v (make test installs what is missing)\n%s", name, err, out)
	}
}

// unmount is an error when something is in use, and unmounts all the same.
func unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EBUSY) {
		return errors.Join(&os.PathError{Op: "umount", Path: dir, Err: err}, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return err
}
