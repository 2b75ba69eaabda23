package handoff_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/handoff"
)

// pair is a connection of the network, from both ends.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	for _, c := range []net.Conn{client, server} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return client, server
}

// plain hides what a connection is, as TLS does.
type plain struct{ net.Conn }

func TestConnectionGoesOn(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"descriptor": func(c net.Conn) net.Conn { return c },
		"relay":      func(c net.Conn) net.Conn { return plain{c} },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l := handoff.Receive(socket)
			defer l.Close()
			accepted := make(chan net.Conn, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				accepted <- c
			}()
			client, server := pair(t)
			io.WriteString(client, "head body")
			head := make([]byte, 5)
			if _, err := io.ReadFull(server, head); err != nil {
				t.Fatal(err)
			}
			wait, err := handoff.Send(path, wrap(server), head)
			if err != nil {
				t.Fatal(err)
			}
			got := <-accepted
			defer got.Close()
			client.(*net.TCPConn).CloseWrite()
			if all, err := io.ReadAll(got); string(all) != "head body" || err != nil {
				t.Errorf("read %q, %v", all, err)
			}
			io.WriteString(got, "answer")
			got.Close()
			if all, err := io.ReadAll(client); string(all) != "answer" || err != nil {
				t.Errorf("answered %q, %v", all, err)
			}
			wait()
		})
	}
}

func TestNobodyListens(t *testing.T) {
	client, server := pair(t)
	if _, err := handoff.Send(filepath.Join(t.TempDir(), "none"), server, nil); err == nil {
		t.Error("handed over to nobody")
	}
	io.WriteString(server, "still here")
	if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
		t.Errorf("the connection is not as it was: %v", err)
	}
}

// A receiver is done with a connection of which nothing was read as soon as it has the
// descriptor: that it goes then is no failure.
func TestNothingWasRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l := handoff.Receive(socket)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer l.Close()
	for i := range 200 {
		client, server := net.Pipe()
		wait, err := handoff.Send(path, server, nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		client.Close()
		wait()
	}
}
