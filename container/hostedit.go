package container

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/files"
)

// tellFiles tells the hosts file and resolv.conf of a running container of a network
// that it is on from now.
func (c *connection) tellFiles(before, after *network.Sandbox, e *network.Endpoint) error {
	s, r := c.containers, c.r
	name, err := hostName(s.store, &r)
	if err != nil {
		return err
	}
	names := files.OwnNames(name, r.Config.Domainname)
	err = files.Edit(s.store.Path(r.ID, "hosts"), func(old []byte) []byte {
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
	written, err := resolvConf(r.HostConfig, s.cfg.Defaults.Get(), before)
	if err != nil {
		return err
	}
	text, err := resolvConf(r.HostConfig, s.cfg.Defaults.Get(), after)
	if err != nil {
		return err
	}
	return files.Edit(s.store.Path(r.ID, "resolv.conf"), func(old []byte) []byte {
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
	return files.EditLines(c.containers.store.Path(c.r.ID, "hosts"), func(fields [][]byte) (string, bool) {
		a, err := netip.ParseAddr(string(fields[0]))
		return "", err != nil || !slices.Contains(gone, a)
	})
}
