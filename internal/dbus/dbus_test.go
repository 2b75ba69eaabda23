package dbus

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startBus runs the reference implementation of a bus.
func startBus(t *testing.T) (socket string) {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon (Debian's dbus-daemon)")
	}
	dir := t.TempDir()
	socket = dir + "/bus"
	config := `<busconfig><type>session</type><listen>unix:path=` + socket + `</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(dir+"/conf", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--nofork", "--print-address", "--config-file", dir+"/conf")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	return socket
}

// TestBus: calls, answers, refusals and signals of a real bus.
func TestBus(t *testing.T) {
	socket := startBus(t)
	c, err := Bus(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := func(member string, args ...any) ([]string, error) {
		return c.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, args...)
	}
	if out, err := call("GetNameOwner", "org.freedesktop.DBus"); err != nil || !slices.Equal(out, []string{"org.freedesktop.DBus"}) {
		t.Error(out, err)
	}
	var refused *Error
	if _, err := call("GetNameOwner", "no.such.name"); !errors.As(err, &refused) || refused.Name != "org.freedesktop.DBus.Error.NameHasNoOwner" || refused.Text == "" {
		t.Errorf("%v", err)
	}
	if _, err := call("RequestName", "tare.test", uint32(0)); err != nil {
		t.Error(err)
	}
	if _, err := call("AddMatch", "type='signal',member='NameOwnerChanged'"); err != nil {
		t.Error(err)
	}
	other, err := Bus(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "tare.other", uint32(0)); err != nil {
		t.Error(err)
	}
	if err := c.Await(10*time.Second, "NameOwnerChanged", func(s []string) bool { return len(s) == 3 && s[0] == "tare.other" && s[1] == "" && s[2] != "" }); err != nil {
		t.Error(err)
	}
	other.Close()
	if err := c.Await(10*time.Second, "NameOwnerChanged", func(s []string) bool { return len(s) == 3 && s[0] == "tare.other" && s[2] == "" }); err != nil {
		t.Error(err)
	}
	if _, err := call("GetNameOwner", struct{}{}); err == nil {
		t.Error("a value without a type was sent")
	}
}

// TestMarshalling: the bus itself checks what the longest of our types look
// like: it sends them on to whom they are for, which is this connection.
func TestMarshalling(t *testing.T) {
	c, err := Bus(startBus(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "tare.test", uint32(0)); err != nil {
		t.Fatal(err)
	}
	properties := []Property{{"A", "text"}, {"B", true}, {"C", uint64(7)}, {"D", []byte{1, 2, 3}}, {"E", []uint32{1}}, {"F", [][2]string{{"a", "b"}, {"c", "d"}}},
		{"G", []string{"x", ""}}, {"H", []Property{}}, {"I", int64(-1)}, {"J", int32(-1)}, {"K", Path("/a")}, {"L", Dict{{"x", "y"}, {"z", []string{"1"}}}}}
	b, err := encodeCall(99, "tare.test", "/x", "tare.test", "M", []any{"unit", properties, []Unit{{"n", properties}}, uint32(5)})
	if err == nil {
		err = c.write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.receive()
	for err == nil && m.member != "M" {
		m, err = c.receive()
	}
	if err != nil || m.signature != "sa(sv)a(sa(sv))u" || !slices.Equal(m.texts(), []string{"unit"}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestHostilePeer: one that answers with something else, or not at all.
func TestHostilePeer(t *testing.T) {
	greeting := "DATA\r\nOK 1234\r\n"
	for name, test := range map[string]struct{ says, want string }{
		"refuses":         {"REJECTED EXTERNAL\r\n", "does not let this user in"},
		"ends":            {"", "EOF"},
		"babbles":         {strings.Repeat("x", 2000), "not as D-Bus has it"},
		"no message":      {greeting + "GET / HTTP/1.1\r\n\r\n", "not as D-Bus has it"},
		"huge":            {greeting + "l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00", "not as D-Bus has it"},
		"fields too long": {greeting + "l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x05\x01u\x00\xff\xff", "EOF"},
		"bad fields":      {greeting + "l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x01\x01s\x00\xff\xff\xff\xff", "not as D-Bus has it"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := t.TempDir() + "/s"
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrUnix{Name: socket})
			}
			if err == nil {
				err = unix.Listen(fd, 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			go func() {
				peer, _, err := unix.Accept(fd)
				if err != nil {
					return
				}
				_, _ = unix.Write(peer, []byte(test.says))
				_ = unix.Shutdown(peer, unix.SHUT_WR)
				time.Sleep(time.Millisecond) // what was sent is read before the end
				for b := make([]byte, 512); ; {
					if n, err := unix.Read(peer, b); n <= 0 || err != nil {
						break
					}
				}
				unix.Close(peer)
			}()
			c, err := Direct(socket)
			if err == nil {
				_, err = c.Call("x", "/x", "x.y", "M")
				c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
