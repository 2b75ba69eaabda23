package sid

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

var (
	treeOnce sync.Once
	treeDir  string // to be removed
	tree     string
	errTree  error
)

// Tree is the path of the system's tree: TARE_TEST_SID if it is set, else one
// that mmdebstrap makes, once for all the test processes that have the same
// directory in TARE_TEST_SHARED. Clean removes what was made for this process.
func Tree(t testing.TB) string {
	t.Helper()
	treeOnce.Do(func() {
		if tree = os.Getenv("TARE_TEST_SID"); tree != "" {
			return
		}
		if shared := os.Getenv("TARE_TEST_SHARED"); shared != "" {
			tree = filepath.Join(shared, "sid")
			errTree = testutil.Share(tree, bootstrap)
		} else if treeDir, errTree = os.MkdirTemp("", "tare-test-sid-"); errTree == nil {
			tree = filepath.Join(treeDir, "sid")
			errTree = bootstrap(tree)
		}
	})
	if errTree != nil {
		t.Fatal(errTree)
	}
	return tree
}

// Clean removes what Tree made; for TestMain.
func Clean() {
	if treeDir != "" {
		os.RemoveAll(treeDir)
	}
}

func bootstrap(path string) error {
	// The clock of a test machine may be ahead of its package mirror.
	cmd := exec.Command("mmdebstrap", "--quiet", "--format=directory", "--variant=minbase", `--aptopt=Acquire::Check-Valid-Until "false"`,
		"--include=docker.io,docker-cli,docker-buildx,docker-compose,containerd,runc,iptables,nftables,ca-certificates,git,openssh-client,xz-utils,zstd,curl", "sid", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	return nil
}
