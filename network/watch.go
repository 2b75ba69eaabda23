package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/network/firewall"
)

// Other programs flush the whole ruleset: nftables.service when it is reloaded,
// an administrator's script. With the table goes what route_localnet needs and
// what keeps the bridges apart, so it is put back at once, not only with the
// next port that is published. Others' rules that come may want to see what goes
// between neighbours, see firewall.Onlookers.

// watch tells of tables that were deleted, and of others' rules. It misses none
// from when it is opened.
type watch struct {
	conn *netlink.Conn
	own  string // the name of our tables
}

const (
	// repairPause is how long after a failure the table is tried again.
	repairPause = time.Second
	// watchPause is how long after a change the next is looked at.
	watchPause = 50 * time.Millisecond
)

func openWatch(own string) (*watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err = skipElements(conn); err == nil {
		err = conn.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch the nftables tables: %w", err)
	}
	return &watch{conn, own}, nil
}

// skipElements keeps the changes from waking anybody that each published port
// makes: those of elements, and the ruleset's new generation.
func skipElements(conn *netlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	const load, equal, give = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	skipped := []uint16{unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWGEN}
	program := []unix.SockFilter{{Code: load, K: 4}} // nlmsg_type of the first message
	for i, typ := range skipped {
		typ |= unix.NFNL_SUBSYS_NFTABLES << 8
		inOrder := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, typ))
		program = append(program, unix.SockFilter{Code: equal, K: uint32(inOrder), Jt: uint8(len(skipped) - i)})
	}
	program = append(program, unix.SockFilter{Code: give, K: ^uint32(0)}, unix.SockFilter{Code: give, K: 0})
	var failure error
	err = raw.Control(func(fd uintptr) {
		failure = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, failure)
}

// wait returns when a table may have been deleted or others' rules have changed,
// or with an error when the watch is closed.
func (w *watch) wait() error {
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) { // some were lost
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE || !firewall.Ours(tableOf(m), w.own) {
				return nil
			}
		}
	}
}

// tableOf is the name of the table that a message is about, the first attribute
// of each.
func tableOf(m netlink.Message) string {
	const header = 4 // struct nfgenmsg
	if len(m.Data) < header {
		return ""
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil || !ad.Next() {
		return ""
	}
	return ad.String()
}

func (w *watch) close() { w.conn.Close() }

// keep calls repair whenever tables were deleted, until ctx ends and the watch is
// closed.
func (w *watch) keep(ctx context.Context, repair func() error) {
	for {
		err := w.wait()
		if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return
		}
		for err != nil || repair() != nil {
			if !pause(ctx, repairPause) {
				return
			}
			err = nil
		}
		if !pause(ctx, watchPause) {
			return
		}
	}
}
