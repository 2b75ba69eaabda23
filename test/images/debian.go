package images

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

var (
	debianOnce sync.Once
	debianDir  string // to be removed
	debianTar  string
	errDebian  error
)

// Debian is the path of a tar with a minimal Debian bookworm, some thousand
// files, that mmdebstrap makes once: for all the test processes that have the
// same directory in TARE_TEST_SHARED, or else for this one. Clean removes it
// then.
func Debian(t testing.TB) string {
	t.Helper()
	debianOnce.Do(func() {
		if shared := os.Getenv("TARE_TEST_SHARED"); shared != "" {
			debianTar = filepath.Join(shared, "debian.tar")
			errDebian = testutil.Share(debianTar, Bootstrap)
		} else if debianDir, errDebian = os.MkdirTemp("", "tare-test-debian-"); errDebian == nil {
			debianTar = filepath.Join(debianDir, "debian.tar")
			errDebian = Bootstrap(debianTar)
		}
	})
	if errDebian != nil {
		t.Fatal(errDebian)
	}
	return debianTar
}

// Bootstrap makes that tar at the path.
func Bootstrap(path string) error {
	// The clock of a test machine may be ahead of its package mirror.
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=minbase",
		`--aptopt=Acquire::Check-Valid-Until "false"`, "bookworm", path)
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) == nil && st.Bavail*uint64(st.Bsize) > 2<<30 {
		cmd.Env = append(os.Environ(), "TMPDIR=/dev/shm")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	return nil
}

// Clean removes what Debian made; for TestMain.
func Clean() {
	if debianDir != "" {
		os.RemoveAll(debianDir)
	}
}

// Make is Write in a directory of the test.
func Make(t testing.TB, spec Spec) *Image {
	t.Helper()
	img, err := Write(t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Copy is "skopeo copy": source and target are such as "docker://host/name:tag"
// or "oci:directory:tag". The digest stays the same; indexes are copied whole.
// More arguments go before the names, as "--dest-creds=user:password" or
// "--dest-cert-dir=directory"; certificates are not checked without.
func Copy(t testing.TB, source, target string, more ...string) {
	t.Helper()
	if err := Skopeo(source, target, more...); err != nil {
		t.Fatal(err)
	}
}

// Skopeo is Copy for who is no test.
func Skopeo(source, target string, more ...string) error {
	args := append([]string{"--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
		"--src-tls-verify=false", "--dest-tls-verify=false"}, more...)
	cmd := exec.Command("skopeo", append(args, source, target)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skopeo copy %s %s: %w: %s", source, target, err, out)
	}
	return nil
}
