package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TableName is of the nftables table in each sandbox, as nft prints it:
//
//	table ip tare-dns {
//		chain ask {
//			type filter hook input priority 2147483647; policy accept;
//			iif "lo" ip daddr 127.0.0.11 udp dport 53 udp dport set 61053
//			iif "lo" ip daddr 127.0.0.11 tcp dport 53 tcp dport set 61053
//		}
//
//		chain answer {
//			type filter hook output priority -450; policy accept;
//			ip saddr 127.0.0.11 udp sport 61053 udp sport set 53
//			ip saddr 127.0.0.11 tcp sport 61053 tcp sport set 53
//		}
//	}
//
// A container's own server may have port 53 of all its addresses, so the
// resolver's sockets have another. Ports are rewritten packet by packet, last
// before a question is delivered and first when an answer leaves: connection
// tracking, which slows down all of a namespace's traffic and whose table a
// busy client fills, is not needed, and the container's own rules see port 53
// in both directions.
//
// The table belongs to the socket that made it (NFT_TABLE_F_OWNER, Linux 5.12):
// a container that flushes its rules keeps its resolver, and a new resolver
// finds nothing of an old one.
const TableName = "tare-dns"

// ownerFlag is NFT_TABLE_F_OWNER, linux/netfilter/nf_tables.h.
const ownerFlag = 2

// handover is how long a process that was killed may take to be gone, with its
// table.
const handover = time.Second

// redirect makes the table for the calling thread's namespace.
func redirect(udp, tcp uint16) (*os.File, error) {
	f, err := transact(batch(udp, tcp))
	// The kernel says "not permitted" for a table of somebody else's.
	for deadline := time.Now().Add(handover); (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EEXIST)) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		f, err = transact(batch(udp, tcp))
	}
	if err != nil {
		return nil, fmt.Errorf("make the nftables table %s in a container: %w", TableName, err)
	}
	return f, nil
}

// transact carries out a batch and gives the socket that owns its table.
func transact(batch []byte) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "rules")
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		err = unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err == nil {
		err = acknowledged(fd)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// acknowledged reads the answer to the batch's last message, or to one that
// failed, by which all of the batch has. It is there when sendto returns.
func acknowledged(fd int) error {
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("netlink answers with %d bytes that are not understood", n)
	}
	if errno := int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// batch is the transaction.
func batch(udp, tcp uint16) []byte {
	const first, last = -450, 1<<31 - 1 // before defragmentation; after all others
	table := attr(unix.NFTA_TABLE_NAME, TableName+"\x00")
	b := message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	b += message(newTable, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFPROTO_IPV4, 0, table, attr(unix.NFTA_TABLE_FLAGS, be32(ownerFlag)))
	b += chain("ask", unix.NF_INET_LOCAL_IN, last)
	b += chain("answer", unix.NF_INET_LOCAL_OUT, first)
	lo := meta(unix.NFT_META_IIF) + equal(ne32(1)) // its index in each namespace
	addr := string(Address.Addr().AsSlice())
	for _, p := range []struct {
		protocol     byte
		port         uint16
		checksum     uint32
		acknowledged uint16
	}{{unix.IPPROTO_UDP, udp, 6, 0}, {unix.IPPROTO_TCP, tcp, 16, unix.NLM_F_ACK}} {
		proto := meta(unix.NFT_META_L4PROTO) + equal(string([]byte{p.protocol}))
		b += rule("ask", 0, lo, load(networkHeader, 16, 4), equal(addr), proto,
			load(transportHeader, 2, 2), equal(be16(Address.Port())), rewrite(2, p.port, p.checksum))
		b += rule("answer", p.acknowledged, load(networkHeader, 12, 4), equal(addr), proto,
			load(transportHeader, 0, 2), equal(be16(p.port)), rewrite(0, Address.Port(), p.checksum))
	}
	return []byte(b + message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
}

// The messages of nf_tables, linux/netfilter/nf_tables.h.
const (
	newTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE
	newChain = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWCHAIN
	newRule  = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
)

// Headers of a packet.
const (
	networkHeader   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// message is struct nlmsghdr and struct nfgenmsg with the attributes.
func message(typ, flags uint16, family byte, resource uint16, attrs ...string) string {
	body := string([]byte{family, unix.NFNETLINK_V0}) + be16(resource)
	for _, a := range attrs {
		body += a
	}
	return ne32(uint32(unix.SizeofNlMsghdr+len(body))) + ne16(typ) + ne16(flags|unix.NLM_F_REQUEST) + ne32(1) + ne32(0) + body
}

// attr is struct nlattr with its padding; its values follow each other.
func attr(typ uint16, values ...string) string {
	var data string
	for _, v := range values {
		data += v
	}
	return ne16(uint16(4+len(data))) + ne16(typ) + data + "\x00\x00\x00"[:-len(data)&3]
}

func chain(name string, hook uint32, priority int32) string {
	return message(newChain, unix.NLM_F_CREATE, unix.NFPROTO_IPV4, 0,
		attr(unix.NFTA_CHAIN_TABLE, TableName+"\x00"), attr(unix.NFTA_CHAIN_NAME, name+"\x00"), attr(unix.NFTA_CHAIN_TYPE, "filter\x00"),
		attr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, attr(unix.NFTA_HOOK_HOOKNUM, be32(hook)), attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(priority)))))
}

func rule(chain string, flags uint16, expressions ...string) string {
	return message(newRule, flags|unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.NFPROTO_IPV4, 0,
		attr(unix.NFTA_RULE_TABLE, TableName+"\x00"), attr(unix.NFTA_RULE_CHAIN, chain+"\x00"),
		attr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expressions...))
}

func expression(name string, attrs ...string) string {
	return attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, attr(unix.NFTA_EXPR_NAME, name+"\x00"), attr(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, attrs...))
}

// meta, load, equal and rewrite all use the first register.
func meta(key uint32) string {
	return expression("meta", attr(unix.NFTA_META_KEY, be32(key)), attr(unix.NFTA_META_DREG, be32(unix.NFT_REG_1)))
}

func load(header, offset, length uint32) string {
	return expression("payload", attr(unix.NFTA_PAYLOAD_DREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_PAYLOAD_BASE, be32(header)),
		attr(unix.NFTA_PAYLOAD_OFFSET, be32(offset)), attr(unix.NFTA_PAYLOAD_LEN, be32(length)))
}

func equal(data string) string {
	return expression("cmp", attr(unix.NFTA_CMP_SREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
		attr(unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, attr(unix.NFTA_DATA_VALUE, data)))
}

// rewrite replaces a port and mends the checksum.
func rewrite(offset uint32, port uint16, checksum uint32) string {
	return expression("immediate", attr(unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_1)),
		attr(unix.NFTA_IMMEDIATE_DATA|unix.NLA_F_NESTED, attr(unix.NFTA_DATA_VALUE, be16(port)))) +
		expression("payload", attr(unix.NFTA_PAYLOAD_SREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_PAYLOAD_BASE, be32(transportHeader)),
			attr(unix.NFTA_PAYLOAD_OFFSET, be32(offset)), attr(unix.NFTA_PAYLOAD_LEN, be32(2)),
			attr(unix.NFTA_PAYLOAD_CSUM_TYPE, be32(unix.NFT_PAYLOAD_CSUM_INET)), attr(unix.NFTA_PAYLOAD_CSUM_OFFSET, be32(checksum)))
}

func be16(v uint16) string { return string(binary.BigEndian.AppendUint16(nil, v)) }
func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }
func ne16(v uint16) string { return string(binary.NativeEndian.AppendUint16(nil, v)) }
func ne32(v uint32) string { return string(binary.NativeEndian.AppendUint32(nil, v)) }
