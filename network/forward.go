package network

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
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
// that forwarding is ours; every daemon of the host adds its bridge. On a host
// that forwarded before there is no such table. A daemon that is told to leave
// forwarding to others sets the policy to accept and keeps the table, or the
// next repair of a daemon beside it would make it anew.
var (
	guard        = &nftables.Table{Name: "tare-forward", Family: nftables.TableFamilyIPv4}
	guardBridges = nftables.Set{Table: guard, Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
)

// allowForwarding makes the host forward, and tells whether the table stands:
// it does when it was made at this time or before. With open it drops nothing.
func allowForwarding(bridge string, open bool) (guarded bool, err error) {
	const name = "ipv4/ip_forward"
	off := true
	if have, err := os.ReadFile("/proc/sys/net/" + name); err == nil {
		off = strings.TrimSpace(string(have)) == "0"
	}
	present, err := tableExists(guard.Name)
	if err != nil {
		return false, err
	}
	guarded = present || off && !open
	if guarded {
		err = raiseGuard(bridge, open)
	}
	if err != nil {
		return false, err
	}
	if err := ensureSysctl(name, "1"); err != nil {
		if !present && !open {
			err = errors.Join(err, dropGuard())
		}
		return false, err
	}
	if guarded && !present {
		slog.Info("turned forwarding on, which was off; what passes between other interfaces than tared's bridges is dropped until the next boot, "+
			"also for other programs: --ip-forward-no-drop lets it pass", "table", guard.Name)
	}
	return guarded, nil
}

// raiseGuard makes the table, unless it is there, and adds the bridge. With open
// the policy becomes to accept; without, a table that is there keeps its own.
func raiseGuard(bridge string, open bool) error {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, bridge)
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	// Of two daemons that start at once one makes it.
	conn.CreateTable(guard)
	set := guardBridges
	if err := conn.AddSet(&set, nil); err != nil {
		return err
	}
	chain := conn.AddChain(guardChain(nftables.ChainPolicyDrop))
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		conn.AddRule(&nftables.Rule{Table: guard, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: register},
			&expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the nftables table %s: %w", guard.Name, err)
	}
	set = guardBridges
	if err := conn.SetAddElements(&set, []nftables.SetElement{{Key: name}}); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("add %s to the nftables table %s: %w", bridge, guard.Name, err)
	}
	if !open {
		return nil
	}
	conn.AddChain(guardChain(nftables.ChainPolicyAccept))
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set the policy of the nftables table %s: %w", guard.Name, err)
	}
	return nil
}

func guardChain(policy nftables.ChainPolicy) *nftables.Chain {
	return &nftables.Chain{Name: "forward", Table: guard, Type: nftables.ChainTypeFilter, Policy: &policy,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}
}

func dropGuard() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(guard)
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the nftables table %s: %w", guard.Name, err)
	}
	return nil
}

// tableExists tells whether the host has a table of the name.
func tableExists(name string) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	switch _, err = conn.ListTableOfFamily(name, nftables.TableFamilyIPv4); {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for the nftables table %s: %w", name, err)
	}
	return true, nil
}
