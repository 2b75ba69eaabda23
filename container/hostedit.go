package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/files"
)

// maxHosts bounds a hosts file, which the container may write, in bytes.
const maxHosts = 1 << 20

// edit changes a file of a container that runs. It is mounted in the container,
// so it is the same file that has to change.
func edit(path string, change func(old []byte) []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err != nil {
		return err
	}
	if len(old) > maxHosts {
		return fault.New(fault.Invalid, "%s is longer than %d bytes", path, maxHosts)
	}
	text := change(slices.Clone(old))
	if bytes.Equal(old, text) {
		return nil
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// rewriteHosts changes the address of a name, and takes its line out when there
// is none any more.
func rewriteHosts(path, name string, addr netip.Addr) error {
	return editLines(path, func(fields [][]byte) (line string, keep bool) {
		if !slices.ContainsFunc(fields[1:], func(f []byte) bool { return string(f) == name }) {
			return "", true
		}
		if !addr.IsValid() {
			return "", false
		}
		return addr.String() + "\t" + string(bytes.Join(fields[1:], []byte(" "))) + "\n", true
	})
}

// editLines is edit by lines of an address and its names: each is kept, replaced
// or left out. Comments and what is none of these stay.
func editLines(path string, change func(fields [][]byte) (line string, keep bool)) error {
	return edit(path, func(old []byte) []byte {
		var text bytes.Buffer
		for line := range bytes.Lines(old) {
			fields := bytes.Fields(line)
			if len(fields) > 1 && fields[0][0] != '#' {
				other, keep := change(fields)
				if !keep {
					continue
				}
				if other != "" {
					line = []byte(other)
				}
			}
			text.Write(line)
		}
		return text.Bytes()
	})
}

// tellFiles tells the hosts file and resolv.conf of a running container of a network
// that it is on from now.
func (c *connection) tellFiles(before, after *network.Sandbox, e *network.Endpoint) error {
	s, r := c.containers, c.r
	name, err := s.store.hostName(&r)
	if err != nil {
		return err
	}
	names := files.OwnNames(name, r.Config.Domainname)
	err = edit(s.store.path(r.ID, "hosts"), func(old []byte) []byte {
		if len(old) > 0 && old[len(old)-1] != '\n' {
			old = append(old, '\n')
		}
		for _, a := range ownAddresses(e) {
			old = fmt.Appendf(old, "%s\t%s\n", a, names)
		}
		return old
	})
	if hasNames(before) || !hasNames(after) {
		return err
	}
	return errors.Join(err, c.nameServer(before, after))
}

// nameServer has a container that was on no network with names use their
// resolver, unless somebody has changed its resolv.conf.
func (c *connection) nameServer(before, after *network.Sandbox) error {
	s, r := c.containers, c.r
	written, err := resolvConf(r.HostConfig, s.cfg.Defaults.get(), before)
	if err != nil {
		return err
	}
	text, err := resolvConf(r.HostConfig, s.cfg.Defaults.get(), after)
	if err != nil {
		return err
	}
	return edit(s.store.path(r.ID, "resolv.conf"), func(old []byte) []byte {
		if !bytes.Equal(old, written) {
			return old
		}
		return text
	})
}

// untellFiles takes the addresses of a network that it has left out of the hosts
// file.
func (c *connection) untellFiles(e *network.Endpoint) error {
	gone := ownAddresses(e)
	return editLines(c.containers.store.path(c.r.ID, "hosts"), func(fields [][]byte) (string, bool) {
		a, err := netip.ParseAddr(string(fields[0]))
		return "", err != nil || !slices.Contains(gone, a)
	})
}
