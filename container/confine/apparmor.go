package confine

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
)

// DefaultProfile is what containers run under that ask for nothing else. It has
// Docker's name: inspect shows it, and administrators write rules about it.
const DefaultProfile = "docker-default"

const apparmorFiles = "/sys/kernel/security/apparmor"

// parser is where the program that compiles profiles lies.
var parser = sync.OnceValue(func() string {
	for _, path := range []string{"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
})

// Enforced tells whether the kernel uses AppArmor, and shows the profiles that it has.
var Enforced = sync.OnceValue(func() bool {
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !bytes.HasPrefix(on, []byte("Y")) {
		return false
	}
	_, err = os.Stat(apparmorFiles)
	return err == nil
})

// AppArmor tells whether containers get a profile: as for Docker, where the
// kernel uses AppArmor, profiles can be compiled, and the daemon is in no container
// itself.
var AppArmor = sync.OnceValue(func() bool { return Enforced() && parser() != "" && os.Getenv("container") == "" })

// loading lets one load the profile and others wait for it.
var loading sync.Mutex

// Load sees to it that the kernel has the default profile: it may have lost it since
// the last start, by an upgrade of the AppArmor package for one.
func Load() error {
	loading.Lock()
	defer loading.Unlock()
	there, err := loaded(DefaultProfile)
	if err != nil || there {
		return err
	}
	var said bytes.Buffer
	load := exec.Command(parser(), "-Kr") // replace; no cache, in which nobody would look
	load.Stdin, load.Stdout, load.Stderr = strings.NewReader(defaultProfile(peer())), &said, &said
	if err := load.Run(); err != nil {
		return fault.New(fault.Internal, "AppArmor enabled on system but the %s profile could not be loaded: %s: %w: %s", DefaultProfile, load, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// loaded tells whether the kernel has a profile: it lists one a line, with the
// mode behind it.
func loaded(name string) (bool, error) {
	f, err := os.Open(apparmorFiles + "/profiles")
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if known, _, _ := strings.Cut(lines.Text(), " ("); known == name {
			return true, nil
		}
	}
	return false, lines.Err()
}

// peer is the profile that the daemon itself runs under, and with it the
// processes that signal a container's.
func peer() string {
	own, err := os.ReadFile("/proc/self/attr/apparmor/current")
	if err != nil {
		own, _ = os.ReadFile("/proc/self/attr/current")
	}
	name, _, _ := strings.Cut(strings.TrimSpace(strings.TrimRight(string(own), "\x00")), " (")
	if name == "" || strings.ContainsAny(name, " \"{}*?,\n") {
		return unconfined
	}
	return name
}
