package shape

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A bucket holds what comes within bucketTime, so that the kernel's timer is fine
// enough at any rate, and the queue before it what leaves within queueTime, but
// some packets at the least: TCP fills a link by the queue, and waits behind it.
const (
	bucketTime = 5 * time.Millisecond
	queueTime  = 50 * time.Millisecond
	leastBytes = 16 << 10
)

// bucket is a token bucket of a rate in bits per second.
func bucket(link netlink.Link, parent, handle uint32, rate uint64) *netlink.Tbf {
	perSecond := max(rate/8, 1)
	within := func(d time.Duration) uint64 {
		return perSecond / uint64(time.Second/time.Millisecond) * uint64(d/time.Millisecond)
	}
	// More than any packet, or it would never get through.
	held := max(within(bucketTime), leastBytes, 2*uint64(max(link.Attrs().MTU, 0)))
	held = min(held, 1<<30)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: parent, Handle: handle},
		Rate:       perSecond,
		Buffer:     netlink.Xmittime(perSecond, uint32(held)),
		Limit:      uint32(min(held+max(within(queueTime), leastBytes), 1<<31)),
	}
}

// emulated is a link with a delay and losses. Its queue holds what is on its way.
func emulated(attrs netlink.QdiscAttrs, l Limits) *netlink.Netem {
	return netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{
		Latency: uint32(l.Delay.Microseconds()), Loss: float32(l.Loss), Limit: 100_000,
	})
}

// emulation tells whether the kernel has netem. It is asked for one on lo without
// options, which netem refuses for being without.
func emulation() bool {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: 1, Handle: netlink.MakeHandle(0x7a, 0), Parent: netlink.HANDLE_ROOT})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("netem")))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP)
}
