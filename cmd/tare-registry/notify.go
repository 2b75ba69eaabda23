package main

import (
	"net"
	"os"
)

// notify tells whoever started the registry how it goes, as sd_notify(3) has
// it: systemd, or tare-registry start. Nobody may want to know.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
