package sid

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

// Place is the system, entered: a mount namespace whose root is an overlay over
// the tree with the machine's /tmp in it, and a network namespace for its dockerd.
type Place struct {
	Dir string // of the place, below /tmp
	pid int    // the process that holds the namespaces
}

// enter makes the root, says so, and holds it until its input ends. busybox is
// there for the one command that a minimal system lacks.
const enter = `set -eu
tree=$1 dir=$2
mount --make-rprivate /
mkdir -p $dir/upper $dir/work $dir/root
mount -t overlay -o lowerdir=$tree,upperdir=$dir/upper,workdir=$dir/work overlay $dir/root
cd $dir/root
rm -f etc/resolv.conf
cp -L /etc/resolv.conf etc/resolv.conf
mkdir -p etc/ssl/certs machine
cp -L /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
for d in dev proc sys tmp; do mount --rbind /$d $d; done
pivot_root . machine
/machine/bin/busybox umount -l /machine
echo ready
exec cat
`

// New enters the tree. The end of the test leaves it.
func New(t testing.TB) *Place {
	t.Helper()
	testutil.RequireRoot(t)
	dir, err := os.MkdirTemp("/tmp", "tare-sid-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	holder := exec.Command("unshare", "--mount", "--net", "sh", "-c", enter, "sh", Tree(t), dir)
	input, err := holder.StdinPipe() // which breaks with this process
	if err != nil {
		t.Fatal(err)
	}
	output, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	holder.Stderr = &said
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		_, _ = io.Copy(io.Discard, output)
		_ = holder.Wait()
	})
	if line, _ := bufio.NewReader(output).ReadString('\n'); line != "ready\n" {
		t.Fatalf("enter %s: %s", Tree(t), said.String())
	}
	return &Place{Dir: dir, pid: holder.Process.Pid}
}

// Programs writes scripts into a directory that run the programs of the place
// in the directory where they are called.
func (p *Place) Programs(t testing.TB, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range names {
		script := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d --mount --wdns=\"$PWD\" env PATH=/usr/sbin:/usr/bin:/sbin:/bin %s \"$@\"\n", p.pid, name)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
