package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestNFSVolume: the local driver's type nfs, on the kernel's own server.
func TestNFSVolume(t *testing.T) {
	testutil.RequireRoot(t)
	for _, program := range []string{"exportfs", "rpc.mountd", "rpc.nfsd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: see scripts/test-kernel", err)
		}
	}
	exported := t.TempDir()
	serve := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script, exported).CombinedOutput(); err != nil {
			t.Fatalf("the NFS server: %v\n%s", err, out)
		}
	}
	t.Cleanup(func() {
		serve(`rpc.nfsd 0; pkill rpc.mountd || true; exportfs -ua || true; umount /proc/fs/nfsd`)
	})
	serve(`mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab /var/lib/nfs/rmtab; : >/etc/exports
echo 10 >/proc/fs/nfsd/nfsv4leasetime; echo 10 >/proc/fs/nfsd/nfsv4gracetime
exportfs -i -o rw,no_root_squash,insecure,fsid=0,no_subtree_check "127.0.0.1:$0"
rpc.mountd -N 3
rpc.nfsd -N 3 2`)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "volume", "create", "-o", "type=nfs", "-o", "o=addr=localhost,vers=4.2,rw", "-o", "device=:/", "far")
	d.Tare(t, "run", "--rm", "-v", "far:/share", "busybox", "sh", "-c", "mkdir /share/dir && echo from a container >/share/dir/file")
	if text, err := os.ReadFile(filepath.Join(exported, "dir/file")); err != nil || string(text) != "from a container\n" {
		t.Errorf("on the server: %q %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(exported, "back"), []byte("from the server\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Two at once share one mount, which goes with the last of them.
	d.Tare(t, "run", "-d", "--name", "one", "-v", "far:/share", "busybox", "sleep", "1000")
	if got := d.Tare(t, "run", "--rm", "-v", "far:/share:ro", "busybox", "cat", "/share/back"); got != "from the server" {
		t.Errorf("in a container: %q", got)
	}
	if n := mountsOf(t, "nfs4"); n == 0 {
		t.Error("no nfs is mounted while it is used")
	}
	d.Tare(t, "rm", "-f", "one")
	if n := mountsOf(t, "nfs4"); n != 0 {
		t.Errorf("%d nfs are mounted still", n)
	}
	d.Tare(t, "volume", "rm", "far")
	if _, err := os.Stat(filepath.Join(exported, "dir/file")); err != nil {
		t.Errorf("the removal of the volume removed the server's files: %v", err)
	}
}

// mountsOf counts a file system's mounts.
func mountsOf(t *testing.T, kind string) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == kind {
			n++
		}
	}
	return n
}
