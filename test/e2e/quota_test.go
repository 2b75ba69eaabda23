package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestProjectQuotas bounds containers and volumes on file systems that number what
// lies in a directory.
func TestProjectQuotas(t *testing.T) {
	testutil.RequireRoot(t)
	for _, fs := range testutil.ProjectQuotas {
		t.Run(fs, func(t *testing.T) {
			d := daemon.New(t, "--storage-driver", "overlay")
			data := dataRoot(t, d)
			d.AtEnd(testutil.MountProjectQuotas(t, fs, data))
			d.Up(t)
			d.ImportBusybox(t)
			tooMuch := func(args ...string) {
				t.Helper()
				out, err := d.Try(args...)
				if err == nil || !strings.Contains(err.Error(), "No space left on device") && !strings.Contains(err.Error(), "Disk quota exceeded") {
					t.Errorf("20 MB are written where 8 MB may be: %s %v", out, err)
				}
			}
			fill := func(path string) []string { return []string{"dd", "if=/dev/zero", "of=" + path, "bs=1M", "count=20"} }
			d.Tare(t, "run", "-d", "--name", "small", "--storage-opt", "size=8m", "busybox", "sleep", "1000")
			tooMuch(append([]string{"exec", "small"}, fill("/much")...)...)
			d.Tare(t, "exec", "small", "rm", "/much")
			d.Tare(t, "exec", "small", "sh", "-c", "rm /bin/vi; mv /etc/passwd /etc/other; mkdir /dir; mv /dir /moved") // what overlayfs moves between its directories
			d.Tare(t, "restart", "-t", "0", "small")
			tooMuch(append([]string{"exec", "small"}, fill("/moved/much")...)...)
			d.Tare(t, append([]string{"run", "--rm", "busybox"}, fill("/much")...)...)

			d.Tare(t, "volume", "create", "--opt", "size=8m", "bounded")
			tooMuch(append([]string{"run", "--rm", "-v", "bounded:/v", "busybox"}, fill("/v/much")...)...)
			d.Tare(t, append([]string{"run", "--rm", "-v", "free:/v", "busybox"}, fill("/v/much")...)...)

			// A bound for all who do not say.
			d.Signal(t, syscall.SIGTERM)
			d.Add("--storage-opt", "overlay2.size=8m")
			d.Up(t)
			tooMuch(append([]string{"run", "--rm", "busybox"}, fill("/much")...)...)
			d.Tare(t, append([]string{"run", "--rm", "--storage-opt", "size=40m", "busybox"}, fill("/much")...)...)
			d.Tare(t, "rm", "-f", "small")
			d.Tare(t, "volume", "rm", "bounded", "free")
		})
	}
}
