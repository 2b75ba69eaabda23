package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// resolving makes the daemon see a resolv.conf of the test's, in a mount
// namespace of its own.
func resolving(t *testing.T, d *daemon.Daemon) (resolvConf string) {
	t.Helper()
	real := d.Program("")
	dir := filepath.Join(d.Dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob(filepath.Join(real, "tare*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if filepath.Base(p) != "tared" {
			if err := os.Symlink(p, filepath.Join(dir, filepath.Base(p))); err != nil {
				t.Fatal(err)
			}
		}
	}
	resolvConf = filepath.Join(dir, "resolv.conf")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s /etc/resolv.conf && exec \"$0\" \"$@\"' %s \"$@\"\n", resolvConf, filepath.Join(real, "tared"))
	if err := os.WriteFile(filepath.Join(dir, "tared"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(resolvConf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Use(dir)
	return resolvConf
}

// nameServer answers every question of a kind with an address, on a loopback
// address of the host.
func nameServer(t *testing.T, at, answer string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", at+":53")
	if err != nil {
		t.Fatal(err)
	}
	s := &mdns.Server{PacketConn: conn, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		a := new(mdns.Msg).SetReply(q)
		if q.Question[0].Qtype == mdns.TypeA {
			a.Answer = append(a.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET}, A: net.ParseIP(answer)})
		}
		_ = w.WriteMsg(a)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
}

// What a container does not find on its networks the host's servers are asked
// for, on whatever address of the host they are, as the host's file names them
// now, with a daemon or without; not for one on an internal network.
func TestNamesOfTheWorld(t *testing.T) {
	d := daemon.New(t)
	resolvConf := resolving(t, d)
	nameServer(t, "127.0.0.53", "10.0.0.53")
	nameServer(t, "127.0.0.54", "10.0.0.54")
	servers := func(list ...string) {
		t.Helper()
		if err := os.WriteFile(resolvConf, []byte("nameserver "+strings.Join(list, "\nnameserver ")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	servers("127.0.0.53")
	d.Up(t)
	d.ImportBusybox(t)
	d.Tare(t, "network", "create", "open")
	d.Tare(t, "network", "create", "--internal", "shut")
	d.Tare(t, "run", "-d", "--name", "aa", "--network", "open", "busybox", "sleep", "1000")
	d.Tare(t, "run", "-d", "--name", "bb", "--network", "shut", "busybox", "sleep", "1000")
	d.Tare(t, "run", "-d", "--name", "cc", "--network", "shut", "busybox", "sleep", "1000")
	finds := func(when, from, name, want string) {
		t.Helper()
		out, err := d.Try("exec", from, "nslookup", "-type=a", name)
		if want == "" && err == nil || want != "" && !strings.Contains(out, want) {
			t.Errorf("%s, %s looks up %s: %v\n%s", when, from, name, err, out)
		}
	}
	finds("at first", "aa", "far.example", "10.0.0.53")
	finds("at first", "bb", "far.example", "")
	finds("at first", "bb", "cc", "Address")
	gateway := d.Tare(t, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "open")
	nameServer(t, gateway, "10.0.0.1")
	d.Tare(t, "run", "-d", "--name", "dd", "--network", "open", "--dns", gateway, "busybox", "sleep", "1000")
	finds("with a server of its own", "dd", "far.example", "10.0.0.1")
	finds("with a server of its own", "dd", "aa", "Address")
	servers("127.0.0.54")
	finds("with another server", "aa", "far.example", "10.0.0.54")

	pid := d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "aa")
	d.Signal(t, syscall.SIGKILL)
	for _, server := range []string{"53", "54"} {
		servers("127.0.0." + server)
		out, err := d.Command(t, "nsenter", "-t", pid, "-n", "busybox", "nslookup", "-type=a", "far.example", "127.0.0.11").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "10.0.0."+server) {
			t.Errorf("without a daemon: %v\n%s", err, out)
		}
	}
	d.Up(t)
	finds("with the next daemon", "aa", "far.example", "10.0.0.54")
	d.Tare(t, "network", "connect", "open", "bb")
	finds("on two networks", "bb", "far.example", "10.0.0.54")
	d.Tare(t, "network", "disconnect", "open", "bb")
	finds("on the internal one again", "bb", "far.example", "")
	d.Tare(t, "rm", "-f", "aa", "bb", "cc", "dd")
	d.Signal(t, syscall.SIGTERM)
	testutil.Eventually(t, 10*time.Second, "the resolver ends", func() bool {
		_, err := os.Stat(d.Dir + "/exec/dns.sock")
		return os.IsNotExist(err)
	})
}
