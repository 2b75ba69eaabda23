package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A host that forwards for its containers must not become a router between its
// other networks. Whoever turns forwarding on makes this table first, as nft
// prints it:
//
//	table ip tare-forward {
//		set bridges {
//			type ifname
//			elements = { "tare0" }
//		}
//
//		chain forward {
//			type filter hook forward priority filter; policy drop;
//			iifname @bridges accept
//			oifname @bridges accept
//		}
//	}
//
// It stays as long as forwarding does, until the next boot, and so remembers
// that forwarding is ours; every daemon of the host adds its bridges. On a host
// that forwarded before there is no such table. A daemon that is told to leave
// forwarding to others sets the policy to accept and keeps the table, or the
// next repair of a daemon beside it would make it anew. IPv6 has one of its own.
const guardName = "tare-forward"

func guard(f Family) *nftables.Table {
	return &nftables.Table{Name: guardName, Family: nftables.TableFamily(f)}
}

func guardBridges(f Family) *nftables.Set {
	return &nftables.Set{Table: guard(f), Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
}

// AllowForwarding makes the host forward for the bridge, and tells whether the
// table stands: it does when it was made at this time or before. With open it
// drops nothing.
func AllowForwarding(bridge string, f Family, open bool) (guarded bool, err error) {
	const ip4, ip6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
	name := ip4
	if f == IP6 {
		name = ip6
	}
	off := true
	if have, err := os.ReadFile("/proc/sys/net/" + name); err == nil {
		off = strings.TrimSpace(string(have)) == "0"
	} else if f == IP6 && errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without IPv6
	}
	present, err := tableExists(guardName, f)
	if err != nil {
		return false, err
	}
	guarded = present || off && !open
	if guarded {
		err = RaiseGuard(bridge, f, open)
	}
	if err == nil && f == IP6 && off {
		err = keepAdvertisements()
	}
	if err != nil {
		return false, err
	}
	if err := ensureSysctl(name, "1"); err != nil {
		if !present && !open {
			err = errors.Join(err, dropGuard(f))
		}
		return false, err
	}
	if guarded && !present {
		slog.Info("turned forwarding on, which was off; what passes between other interfaces than tared's bridges is dropped until the next boot, "+
			"also for other programs: --ip-forward-no-drop lets it pass", "table", guardName, "family", f.String())
	}
	return guarded, nil
}

// TurnForwardingOn makes the host forward and guards nothing.
func TurnForwardingOn(f Family) error {
	if f == IP4 {
		return ensureSysctl("ipv4/ip_forward", "1")
	}
	if !haveIP6() {
		return nil
	}
	if err := keepAdvertisements(); err != nil {
		return err
	}
	return ensureSysctl("ipv6/conf/all/forwarding", "1")
}

// keepAdvertisements lets the host go on to take its addresses and routes from
// router advertisements: with the value 1 an interface ignores them once the
// host forwards.
func keepAdvertisements() error {
	const root = "/proc/sys/net/"
	all, err := filepath.Glob(root + "ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range all {
		have, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(have)) != "1" {
			continue // an interface may go at any time
		}
		if err := os.WriteFile(path, []byte("2"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep the host's router advertisements: %w", err)
		}
	}
	return nil
}

// haveIP6 tells whether the kernel has IPv6.
func haveIP6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// ensureSysctl writes only what differs: writing ip_forward resets other
// settings of the interfaces, and /proc/sys may be read-only where all is set.
func ensureSysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	if have, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}

// RaiseGuard makes the table, unless it is there, and adds the bridge. With open
// the policy becomes to accept; without, a table that is there keeps its own.
func RaiseGuard(bridge string, f Family, open bool) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	// Of two daemons that start at once one makes it.
	table := guard(f)
	conn.CreateTable(table)
	set := guardBridges(f)
	if err := addSet(conn, set); err != nil {
		return err
	}
	chain := conn.AddChain(guardChain(f, nftables.ChainPolicyDrop))
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: word(0)},
			&expr.Lookup{SourceRegister: word(0), SetName: set.Name, SetID: set.ID},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the nftables table %s: %w", guardName, err)
	}
	if err := conn.SetAddElements(guardBridges(f), []nftables.SetElement{{Key: ifname(bridge)}}); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("add %s to the nftables table %s: %w", bridge, guardName, err)
	}
	if !open {
		return nil
	}
	conn.AddChain(guardChain(f, nftables.ChainPolicyAccept))
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set the policy of the nftables table %s: %w", guardName, err)
	}
	return nil
}

// JoinGuard lets what passes within bridges pass, for which the host does not
// forward: frames between their ports meet the tables too where br_netfilter is
// on. Where no table stands there is nothing to do.
func JoinGuard(bridges []string) error {
	if len(bridges) == 0 {
		return nil
	}
	var elements []nftables.SetElement
	for _, b := range bridges {
		elements = append(elements, nftables.SetElement{Key: ifname(b)})
	}
	for _, f := range []Family{IP4, IP6} {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		if err := conn.SetAddElements(guardBridges(f), elements); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("add bridges to the nftables table %s: %w", guardName, err)
		}
	}
	return nil
}

// LeaveGuard takes a bridge out of the tables, where they stand and have it.
func LeaveGuard(bridge string) error {
	for _, f := range []Family{IP4, IP6} {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		if err := conn.SetDeleteElements(guardBridges(f), []nftables.SetElement{{Key: ifname(bridge)}}); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("take %s out of the nftables table %s: %w", bridge, guardName, err)
		}
	}
	return nil
}

func guardChain(f Family, policy nftables.ChainPolicy) *nftables.Chain {
	return &nftables.Chain{Name: "forward", Table: guard(f), Type: nftables.ChainTypeFilter, Policy: &policy,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}
}

func dropGuard(f Family) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(guard(f))
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the nftables table %s: %w", guardName, err)
	}
	return nil
}
