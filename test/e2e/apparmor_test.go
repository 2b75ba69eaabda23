package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// appArmor has the program that compiles profiles do something with one.
func appArmor(t *testing.T, profile string, args ...string) {
	t.Helper()
	cmd := exec.Command("apparmor_parser", args...)
	cmd.Stdin = strings.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apparmor_parser %v: %v\n%s", args, err, out)
	}
}

// TestAppArmor: containers run under the default profile, which the kernel keeps them
// to, or under the one that they ask for.
func TestAppArmor(t *testing.T) {
	testutil.RequireRoot(t)
	if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || on[0] != 'Y' {
		t.Skip("this kernel does not use AppArmor")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	if out := d.Tare(t, "info", "--format", "{{.SecurityOptions}}"); !strings.HasPrefix(out, "[name=apparmor ") {
		t.Error(out)
	}
	const own = "/proc/self/attr/current"
	d.Tare(t, "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	d.Tare(t, "run", "-d", "--name", "free", "--privileged", "busybox", "sleep", "1000")
	for name, want := range map[string]string{"plain": "docker-default", "free": "unconfined"} {
		if out := d.Tare(t, "inspect", "--format", "{{.AppArmorProfile}}", name); out != want {
			t.Errorf("%s: inspect says %q", name, out)
		}
		for _, file := range []string{own, "/proc/1/attr/current"} {
			if out, _, _ := strings.Cut(d.Tare(t, "exec", name, "cat", file), " "); out != want {
				t.Errorf("%s: %s says %q, want %q", name, file, out, want)
			}
		}
	}

	// The profile is written through a descriptor of the host's /proc, which leads nowhere.
	for n := 3; n < 16; n++ {
		if out, err := d.Try("exec", "-w", fmt.Sprint("/proc/self/fd/", n), "plain", "sh", "-c", "ls .. | head -n 3"); err == nil {
			t.Errorf("a working directory by descriptor %d: %s", n, out)
		}
	}

	// What only the profile forbids.
	run := func(command string, opts ...string) error {
		_, err := d.Try(append(append([]string{"run", "--rm", "--privileged"}, opts...), "busybox", "sh", "-ec", command)...)
		return err
	}
	for command, allowed := range map[string]bool{
		"mkdir /m; mount -t tmpfs none /m":                                       false,
		"n=$(cat /proc/sys/vm/swappiness); echo $n > /proc/sys/vm/swappiness":    false,
		"echo 0 > /proc/sys/net/ipv4/ip_forward":                                 false,
		"n=$(cat /proc/sys/kernel/shmmax); echo $n > /proc/sys/kernel/shmmax":    true,
		"echo x > /proc/self/comm; echo 5 > /proc/self/oom_score_adj":            true,
		"echo 0 > /sys/kernel/mm/ksm/run":                                        false,
		"kill -0 1; : > /etc/passwd; mkdir /a; chown 5 /a; nc -l -p 1 & kill $!": true,
	} {
		err := run(command, "--security-opt", "apparmor=docker-default")
		if (err == nil) != allowed || err != nil && !strings.Contains(err.Error(), "ermission denied") {
			t.Errorf("%s: %v", command, err)
		}
		if err := run(command); err != nil {
			t.Errorf("without a profile: %v", err)
		}
	}

	const mine = "profile tare-test flags=(attach_disconnected) {\n file,\n capability,\n network,\n signal,\n deny /etc/passwd r,\n}\n"
	appArmor(t, mine, "-Kr")
	d.AtEnd(func() error {
		return exec.Command("sh", "-c", "echo 'profile tare-test {}' | apparmor_parser -R").Run()
	})
	d.Tare(t, "run", "-d", "--name", "mine", "--security-opt", "apparmor=tare-test", "busybox", "sleep", "1000")
	if out := d.Tare(t, "exec", "mine", "sh", "-c", "cat "+own+"; cat /etc/passwd 2>&1; true"); out != "tare-test (enforce)\ncat: can't open '/etc/passwd': Permission denied" {
		t.Errorf("under a profile of one's own: %s", out)
	}
	if out, err := d.Try("run", "--rm", "--security-opt", "apparmor=nosuch", "busybox", "true"); err == nil || !strings.Contains(err.Error(), "apparmor failed to apply profile") {
		t.Errorf("under one that is not there: %s %v", out, err)
	}

	// A build's steps are confined as well.
	dir := filepath.Join(d.Dir, "context")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/Dockerfile", []byte("FROM busybox\nRUN cat "+own+" > /profile\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	d.Tare(t, "build", "-q", "-t", "built", dir)
	if out := d.Tare(t, "run", "--rm", "built", "cat", "/profile"); out != "docker-default (enforce)" {
		t.Errorf("a step of a build: %s", out)
	}

	// A profile that is lost comes back with the next start.
	d.Tare(t, "rm", "-f", "plain")
	appArmor(t, "profile docker-default {}", "-R")
	if out := d.Tare(t, "run", "--rm", "busybox", "cat", own); out != "docker-default (enforce)" {
		t.Errorf("after the loss: %s", out)
	}
}
