package firewall

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
)

// Ours tells whether a table of the name is one that a daemon like this one
// makes; own is the name of its own.
func Ours(name, own string) bool {
	return name == own || strings.HasPrefix(name, "tare-") || strings.HasPrefix(name, "tared-")
}

// Onlookers names the rules of others that frames between two ports of a bridge
// meet, the first of each table: whoever made them relies on it. Rules of IP see
// such frames where br_netfilter is on. An empty chain that accepts looks at
// nothing; some programs leave those behind.
func Onlookers(own string) (list []string, err error) {
	ip4, ip6 := calls("iptables"), calls("ip6tables")
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list the nftables chains: %w", err)
	}
	for _, c := range chains {
		if c.Hooknum == nil || c.Table == nil || Ours(c.Table.Name, own) || !meetsFrames(c, ip4, ip6) {
			continue
		}
		if c.Policy == nil || *c.Policy == nftables.ChainPolicyAccept {
			// One that cannot be read is one with something in it.
			if rules, err := conn.GetRules(c.Table, c); err == nil && len(rules) == 0 {
				continue
			}
		}
		list = append(list, fmt.Sprintf("the chain %s of the nftables table %s", c.Name, c.Table.Name))
	}
	for name, called := range map[string]bool{"ip_tables_names": ip4, "ip6_tables_names": ip6} {
		// The tables of the older iptables, which are there once they were used.
		if text, err := os.ReadFile("/proc/net/" + name); err == nil && called && len(bytes.TrimSpace(text)) > 0 {
			list = append(list, "a table of iptables-legacy: "+strings.Join(strings.Fields(string(text)), ", "))
		}
	}
	return list, nil
}

// calls tells whether br_netfilter hands frames to the rules of IP.
func calls(what string) bool {
	text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + what)
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// meetsFrames tells whether what passes a bridge comes by the chain.
func meetsFrames(c *nftables.Chain, ip4, ip6 bool) bool {
	switch *c.Hooknum {
	case *nftables.ChainHookPrerouting, *nftables.ChainHookForward, *nftables.ChainHookPostrouting:
	default:
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyBridge:
		return true
	case nftables.TableFamilyIPv4:
		return ip4
	case nftables.TableFamilyIPv6:
		return ip6
	case nftables.TableFamilyINet:
		return ip4 || ip6
	}
	return false
}
