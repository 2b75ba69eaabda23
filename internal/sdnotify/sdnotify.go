// Package sdnotify tells whoever started a program how it goes, sd_notify(3).
package sdnotify

import (
	"net"
	"os"
)

// Send tells a state such as READY=1 at NOTIFY_SOCKET. Without that nobody wants
// to know, and it does nothing.
func Send(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
