package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

func TestOptionsOfTheLocalDriver(t *testing.T) {
	for want, options := range map[string]map[string]string{
		`invalid option: "colour"`:                                    {"colour": "red"},
		`missing required option: "type"`:                             {"device": "x"},
		`missing required option: "device"`:                           {"type": "nfs"},
		`port not allowed in CIFS device URL, include 'port' in 'o='`: {"type": "cifs", "device": "//host:99/share"},
	} {
		if err := checkOptions(options); !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%v: %v, want %s", options, err, want)
		}
	}
	if err := checkOptions(map[string]string{"type": "none", "device": "/x", "o": "bind"}); err != nil {
		t.Error(err)
	}
}

// The kernel knows neither names of servers nor mount(8)'s words.
func TestMountsOfOptions(t *testing.T) {
	lookup := func(host string) (string, error) {
		if host == "nosuch" {
			return "", errors.New("no such host")
		}
		return "10.0.0.9", nil
	}
	for _, c := range []struct {
		kind, device, o string
		want            fsMount
	}{
		{"nfs", ":/export", "addr=server,rw,nolock", fsMount{device: ":/export", kind: "nfs", data: "addr=10.0.0.9,nolock"}},
		{"nfs", ":/export", "addr=10.1.1.1,ro", fsMount{device: ":/export", kind: "nfs", data: "addr=10.1.1.1", flags: unix.MS_RDONLY}},
		{"cifs", "//server/share", "username=u", fsMount{device: "//10.0.0.9/share", kind: "cifs", data: "username=u"}},
		{"cifs", "//server/a b", "addr=server,password=p", fsMount{device: "//server/a b", kind: "cifs", data: "addr=10.0.0.9,password=p"}},
		{"none", "/srv", "bind,noexec,rslave", fsMount{device: "/srv", kind: "none", flags: unix.MS_BIND | unix.MS_NOEXEC, propagation: unix.MS_SLAVE | unix.MS_REC}},
		{"tmpfs", "tmpfs", "size=1m,,uid=5,nosuid,suid", fsMount{device: "tmpfs", kind: "tmpfs", data: "size=1m,uid=5"}},
	} {
		got, err := readMount(map[string]string{optionType: c.kind, optionDevice: c.device, optionData: c.o}, lookup)
		if err != nil || got != c.want {
			t.Errorf("%s %s %s: %+v, %v", c.kind, c.device, c.o, got, err)
		}
	}
	_, err := readMount(map[string]string{optionType: "nfs", optionDevice: ":/x", optionData: "addr=nosuch"}, lookup)
	if err == nil || err.Error() != "error resolving passed in network volume address: no such host" {
		t.Error(err)
	}
}

// A volume that is a mount is mounted while it has users, as the kernel tells, and
// what a daemon left behind is taken up or away.
func TestVolumesThatAreMounts(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, root := context.Background(), t.TempDir()
	s := open(t, root)
	v, err := s.Create(ctx, CreateRequest{Name: "ram", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})
	if err != nil {
		t.Fatal(err)
	}
	is := func() bool {
		yes, err := isMounted(v.Mountpoint)
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for _, user := range []string{"c1", "c2", "c1"} {
		if path, err := s.Mount(ctx, "ram", user); err != nil || path != v.Mountpoint || !is() {
			t.Fatalf("mounted for %s at %s: %v, %v", user, path, is(), err)
		}
	}
	for user, left := range map[string]bool{"nobody": true, "c1": true} {
		if err := s.Unmount(ctx, "ram", user); err != nil || is() != left {
			t.Errorf("unmounted by %s it is mounted: %v, %v", user, is(), err)
		}
	}
	again := open(t, root) // while c2 runs on
	again.Restore(ctx, map[string][]string{"ram": {"c2"}})
	if !is() {
		t.Error("it was unmounted under a user")
	}
	if err := again.Unmount(ctx, "ram", "c2"); err != nil || is() {
		t.Errorf("after the last it is mounted: %v, %v", is(), err)
	}
	if _, err := again.Mount(ctx, "ram", "c3"); err != nil {
		t.Fatal(err)
	}
	open(t, root).Restore(ctx, nil) // c3 has died with its daemon
	if is() {
		t.Error("what nobody uses is mounted")
	}
	if _, err := s.Create(ctx, CreateRequest{Name: "bad", Options: map[string]string{"type": "none", "device": root + "/nosuch", "o": "bind,password=x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "bad", "c1"); err == nil || !strings.Contains(err.Error(), "failed to mount local volume: mount "+root+"/nosuch:") || strings.Contains(err.Error(), "password=x") {
		t.Error(err)
	}
	if len(s.mounts["bad"]) != 0 {
		t.Error("who could not mount it counts as user")
	}
}

// What is removed of a volume that is a mount is the mount, never what it shows.
func TestMountsAreNotEmptied(t *testing.T) {
	testutil.RequireRoot(t)
	ctx := context.Background()
	s := open(t, t.TempDir())
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, CreateRequest{Name: "bound", Options: map[string]string{"type": "none", "device": outside, "o": "bind"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "bound", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "bound", false); err != nil { // its user is on no record
		t.Fatal(err)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "theirs")); err != nil {
		t.Error(err)
	}
}

// What the host's administrator has mounted in the place of a volume's content is
// not deleted with the volume.
func TestMountsOfOthersAreNotEmptied(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, disk := context.Background(), t.TempDir()
	s := open(t, t.TempDir())
	s.mustCreate(t, CreateRequest{Name: "data"})
	if err := os.WriteFile(filepath.Join(disk, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(disk, s.data("data"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", true); !errors.Is(err, fault.Conflict) {
		t.Errorf("removed: %v", err)
	}
	if err := unix.Unmount(s.data("data"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(disk, "f")); err != nil {
		t.Error(err)
	}
}
