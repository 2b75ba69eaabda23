package image

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/fault"
)

// debootstrap makes a tree, which tar(1) then reads: it cannot write a tar. It
// knows one archive and two small variants.
func (o *bootstrap) debootstrap(path string) (*tool, error) {
	var fields []string
	for _, f := range strings.Fields(o.sources[0]) {
		if !strings.HasPrefix(f, "[") {
			fields = append(fields, f)
		}
	}
	switch {
	case o.variant != "minbase" && o.variant != "buildd" && o.variant != "standard":
		return nil, fault.New(fault.Invalid, "debootstrap has no variant %q, only minbase, buildd and standard: install mmdebstrap", o.variant)
	case len(o.aptOptions) > 0:
		return nil, fault.New(fault.Invalid, "debootstrap has no options of apt: install mmdebstrap")
	case len(o.mirrors) > 1, len(fields) < 3:
		return nil, fault.New(fault.Invalid, "debootstrap takes one address by --mirror: install mmdebstrap")
	}
	tar, err := exec.LookPath("tar")
	if err != nil {
		return nil, fault.New(fault.NotFound, "debootstrap's tree is packed by tar, which is not installed here")
	}
	dir, err := os.MkdirTemp("", "tare-bootstrap-")
	if err != nil {
		return nil, err
	}
	t := &tool{name: path, tree: dir}
	root := filepath.Join(dir, "root")
	t.args = []string{"--arch=" + o.arch, "--keyring=" + o.keyring, "--components=" + strings.Join(fields[3:], ",")}
	if o.variant != "standard" {
		t.args = append(t.args, "--variant="+o.variant)
	}
	if len(o.include) > 0 {
		t.args = append(t.args, "--include="+strings.Join(o.include, ","))
	}
	t.args = append(t.args, o.suite, root, fields[1])
	t.pack = []string{tar, "--create", "--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=*", "--one-file-system", "--directory=" + root}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		t.pack = append(t.pack, "--mtime=@"+epoch, "--clamp-mtime", "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
	}
	// What only the making needed, and what tells of this machine.
	for _, name := range []string{"./etc/hostname", "./etc/resolv.conf", "./var/cache/apt/archives/*.deb", "./var/cache/apt/*.bin",
		"./var/lib/apt/lists/*_*", "./var/log/*.log", "./var/log/apt/*", "./var/cache/ldconfig/aux-cache", "./dev/*", "./proc/*", "./sys/*"} {
		t.pack = append(t.pack, "--exclude="+name)
	}
	t.pack = append(t.pack, ".")
	return t, nil
}

// remove takes the tree away. What is still mounted below it is another's.
func (t *tool) remove() error {
	if t.tree == "" {
		return nil
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], t.tree+"/") {
			return fault.New(fault.Conflict, "%s is still mounted: unmount it, then remove %s", fields[4], t.tree)
		}
	}
	return os.RemoveAll(t.tree)
}
