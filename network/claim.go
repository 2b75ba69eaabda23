package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// claim keeps a bridge for one daemon: an empty nftables table that the kernel
// binds to the socket that made it (NFT_TABLE_F_OWNER, Linux 5.12). Like the
// bridge it belongs to one network namespace, nobody else can change or flush
// it, only root can make one, and it goes with the process, however that ends.
type claim struct{ conn *netlink.Conn }

// ownerFlag is NFT_TABLE_F_OWNER, linux/netfilter/nf_tables.h.
const ownerFlag = 2

// claimPatience is how long a daemon that was killed may take to be gone.
const claimPatience = time.Second

// claimBridge takes the bridge, or tells that another daemon has it.
func claimBridge(ctx context.Context, bridge string) (*claim, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	deadline := time.Now().Add(claimPatience)
	for {
		err := ownTable(conn, "tared-holds-"+bridge)
		if err == nil {
			return &claim{conn}, nil
		}
		// The kernel says "not permitted" for a table of somebody else's.
		taken := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EEXIST)
		if taken && time.Now().Before(deadline) && pause(ctx, 10*time.Millisecond) {
			continue
		}
		conn.Close()
		if taken {
			return nil, fault.New(fault.Conflict, "the bridge %s is in use by another tared: stop it, or choose another bridge by --bridge", bridge)
		}
		return nil, fmt.Errorf("claim the bridge %s: %w", bridge, err)
	}
}

// ownTable makes a table that lives and dies with the connection.
func ownTable(conn *netlink.Conn, name string) error {
	family := func(family byte, resource uint16) []byte { // struct nfgenmsg
		return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
	}
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, ownerFlag)},
	})
	if err != nil {
		return err
	}
	batch := func(typ uint16) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request}, Data: family(0, unix.NFNL_SUBSYS_NFTABLES)}
	}
	table := netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
		},
		Data: append(family(unix.NFPROTO_IPV4, 0), attributes...),
	}
	if _, err := conn.SendMessages([]netlink.Message{batch(unix.NFNL_MSG_BATCH_BEGIN), table, batch(unix.NFNL_MSG_BATCH_END)}); err != nil {
		return err
	}
	_, err = conn.Receive()
	return err
}

// release gives the bridge to the next daemon.
func (c *claim) release() { c.conn.Close() }
