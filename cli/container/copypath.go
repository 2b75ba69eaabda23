package container

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/fault"
)

// copyArg splits an argument of cp into a container and a path in it, or a path
// here. A path here that has a colon has to begin with / or a dot.
func copyArg(arg string) (container, path string) {
	container, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	return container, path
}

// endsAsDir tells whether a path says by its end that it is a directory.
func endsAsDir(path string) bool {
	return strings.HasSuffix(path, "/") || filepath.Base(path) == "."
}

// withEnd gives a path the end, / or /., of the one that it was made of.
func withEnd(path, from string) string {
	if filepath.Base(from) == "." && filepath.Base(path) != "." {
		path = strings.TrimSuffix(path, "/") + "/."
	}
	if strings.HasSuffix(from, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path
}

// absolute is the path from the root, its end as it was.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	return withEnd(abs, path), err
}

// parentAndBase splits a path, whose base is "." if it is so written.
func parentAndBase(path string) (parent, base string) {
	clean := filepath.Clean(path)
	if filepath.Base(path) == "." {
		return clean, "."
	}
	return filepath.Dir(clean), filepath.Base(clean)
}

// copyEnd is what is known of one end of a copy.
type copyEnd struct {
	path        string
	exists, dir bool
	base        string // what a source calls itself in its archive
}

// copyPlan is where an archive is unpacked, and what the first part of its names
// becomes; "" leaves it.
type copyPlan struct{ dir, name string }

// planCopy follows cp -a: a source goes into a directory that is there, takes the
// place of a file, or becomes what is not there yet.
func planCopy(from, to copyEnd) (copyPlan, error) {
	parent, base := parentAndBase(to.path)
	switch {
	case to.exists && to.dir:
		return copyPlan{dir: to.path}, nil
	case to.exists && from.dir:
		return copyPlan{}, fault.New(fault.Invalid, "cannot copy directory")
	case !to.exists && !from.dir && endsAsDir(to.path):
		return copyPlan{}, fault.New(fault.Invalid, "no such directory")
	}
	return copyPlan{dir: parent, name: base}, nil
}

// localSource finds what is to be copied from here. Links on the way there are
// followed, and the last one with follow or when the path ends as a directory's.
func localSource(path string, follow bool) (copyEnd, error) {
	dir, last := filepath.Split(path)
	if follow {
		dir, last = path, ""
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return copyEnd{}, err
	}
	if follow {
		real = withEnd(real, path)
	} else {
		real = strings.TrimSuffix(real, "/") + "/" + last
	}
	info, err := os.Lstat(real)
	if err != nil {
		return copyEnd{}, err
	}
	_, base := parentAndBase(real)
	if base != "." { // by a link it is called as it was asked for
		_, base = parentAndBase(path)
	}
	return copyEnd{path: real, exists: true, dir: info.IsDir(), base: base}, nil
}

// maxCopyLinks is how many links in a row lead to a destination.
const maxCopyLinks = 10

// localTarget finds what is to be copied to here, through links, which may lead to
// what is not there yet.
func localTarget(path string) (copyEnd, error) {
	given := path
	for range maxCopyLinks + 1 {
		info, err := os.Lstat(path)
		if os.IsNotExist(err) {
			parent, _ := parentAndBase(path)
			above, err := os.Stat(parent)
			if err == nil && !above.IsDir() {
				err = fault.New(fault.Invalid, "not a directory")
			}
			return copyEnd{path: path}, err
		}
		if err != nil {
			return copyEnd{}, err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			return copyEnd{path: path, exists: true, dir: info.IsDir()}, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return copyEnd{}, err
		}
		path = beside(path, target)
	}
	return copyEnd{}, fault.New(fault.Invalid, "too many symlinks in %s", given)
}

// beside is what a link leads to.
func beside(link, target string) string {
	if filepath.IsAbs(target) {
		return target
	}
	parent, _ := parentAndBase(link)
	return filepath.Join(parent, target)
}

// checkKind refuses to write to a device.
func checkKind(mode os.FileMode) error {
	switch {
	case mode&os.ModeDevice != 0:
		return fault.New(fault.Invalid, "got a device")
	case mode&os.ModeIrregular != 0:
		return fault.New(fault.Invalid, "got an irregular file")
	}
	return nil
}

// checkTarget refuses a path here that nothing can be copied to.
func checkTarget(path string) error {
	dir := filepath.Dir(filepath.Clean(path))
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return fault.New(fault.Invalid, "invalid output path: directory %q does not exist", dir)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().IsRegular() || info.IsDir() {
		return nil
	}
	if err := checkKind(info.Mode()); err != nil {
		return fault.New(fault.Invalid, "invalid output path: %q must be a directory or a regular file: %w", path, err)
	}
	return nil
}
