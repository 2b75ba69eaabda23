package firewall

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Firewall applies rules to the kernel, in the network namespace of the threads
// that call it. Each method is one transaction of nf_tables: all of it happens
// or nothing.
type Firewall struct {
	name string
	mu   sync.Mutex
	made map[Family]bool // the tables of the last Replace; nil before it
	conn *netlink.Conn   // what Change uses; nil until it does, and after a failure
	room int             // the longest transaction that conn's buffer was made for
}

// New is the firewall whose tables have the name.
func New(name string) *Firewall { return &Firewall{name: name} }

// transact sends what fill puts on the connection.
func (f *Firewall) transact(fill func(*nftables.Conn) error) error {
	// The kernel takes a transaction in one message, and answers each of its
	// parts before the first is read.
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetWriteBuffer(16 << 20)
	}))
	if err != nil {
		return err
	}
	if err := fill(conn); err != nil {
		return err
	}
	return conn.Flush()
}

// Whole tells whether all tables are there that the last Replace made; before
// the first one, whether there is that of the family ip.
func (f *Firewall) Whole() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, family := range Families {
		if f.made != nil && !f.made[family] || f.made == nil && family != IP4 {
			continue
		}
		if present, err := tableExists(f.name, family); !present || err != nil {
			return false, err
		}
	}
	return true, nil
}

// Replace makes the tables as r wants them, whatever they were before.
// Connections that are established keep their translation, which is conntrack's.
func (f *Firewall) Replace(r Ruleset) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	made := map[Family]bool{}
	err := f.transact(func(conn *nftables.Conn) error {
		for _, family := range [...]Family{IP4, IP6, Bridge} {
			t := f.table(family)
			wanted, ok := r.Table(family)
			if !ok && family == IP6 && !haveIP6() {
				continue
			}
			// Deleting what may not exist fails, adding what exists does not.
			conn.AddTable(t)
			conn.DelTable(t)
			if !ok {
				continue
			}
			made[family] = true
			conn.AddTable(t)
			if err := addTable(conn, t, wanted); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replace the nftables tables %s: %w", f.name, err)
	}
	if f.replaceShortcuts(r) {
		made[Netdev] = true
	}
	f.made = made
	return nil
}

// Clear deletes the tables that are not wanted with the options.
func (f *Firewall) Clear(o Options) error {
	return f.transact(func(conn *nftables.Conn) error {
		for _, family := range Families {
			if off := family == IP6 && o.Off6 || family != IP6 && o.Off; !off || family == IP6 && !haveIP6() {
				continue
			}
			conn.AddTable(f.table(family))
			conn.DelTable(f.table(family))
		}
		return nil
	})
}

func (f *Firewall) table(family Family) *nftables.Table {
	return &nftables.Table{Name: f.name, Family: nftables.TableFamily(family)}
}

// addTable fills a table that was just made.
func addTable(conn *nftables.Conn, table *nftables.Table, t Table) error {
	ids := map[string]uint32{} // by which the rules of the same transaction refer to the sets
	for _, s := range t.Sets {
		set := s.nft(table)
		if err := addSet(conn, set); err != nil {
			return err
		}
		ids[s.Name] = set.ID
		for part := range slices.Chunk(s.Elements, elementsPerMessage) {
			if err := conn.SetAddElements(set, encode(part)); err != nil {
				return err
			}
		}
	}
	for _, c := range t.Chains {
		c.add(conn, table)
		if table.Family != nftables.TableFamilyNetdev {
			c.addRules(conn, table, ids)
		}
	}
	return nil
}

// nft describes the set.
func (s Set) nft(table *nftables.Table) *nftables.Set {
	types := func(kinds []kind) nftables.SetDatatype {
		if len(kinds) == 1 {
			return kinds[0].nft
		}
		var list []nftables.SetDatatype
		for _, k := range kinds {
			list = append(list, k.nft)
		}
		return nftables.MustConcatSetType(list...)
	}
	set := &nftables.Set{Table: table, Name: s.Name, KeyType: types(s.Key), Interval: s.Interval, Concatenation: s.Interval && len(s.Key) > 1}
	if len(s.Key) == 1 && s.Key[0].name == kindName.name {
		set.KeyByteOrder = binaryutil.NativeEndian // only for those who print it
	}
	if len(s.Value) > 0 {
		set.IsMap, set.DataType = true, types(s.Value)
	}
	return set
}

// encode gives the elements as the kernel takes them, but for those that lead to
// an interface which is not there. An interval of one field
// is two: its beginning, and what comes after its end.
func encode(elements []Element) (out []nftables.SetElement) {
	for _, e := range elements {
		value := e.value
		if e.device != "" {
			index, ok := indexOf(e.device)
			if !ok {
				continue
			}
			value = nativeUint32(index)
		}
		if len(e.end) > 0 && (e.Set == setLeaving) {
			after := slices.Clone(e.end)
			for i := len(after) - 1; i >= 0; i-- {
				if after[i]++; after[i] != 0 {
					break
				}
			}
			out = append(out, nftables.SetElement{Key: e.key}, nftables.SetElement{Key: after, IntervalEnd: true})
			continue
		}
		out = append(out, nftables.SetElement{Key: e.key, KeyEnd: e.end, Val: value})
	}
	return out
}

func (c Chain) add(conn *nftables.Conn, table *nftables.Table) {
	if len(c.Devices) > 0 {
		hookAll(conn, table, c.Devices)
		return
	}
	made := &nftables.Chain{Name: c.Name, Table: table}
	if c.Hook != "" {
		accept := nftables.ChainPolicyAccept
		made.Type, made.Policy = nftables.ChainType(c.Type), &accept
		made.Hooknum, made.Priority = hooks[c.Hook], priorities[c.Priority]
		if table.Family == nftables.TableFamilyBridge {
			made.Priority = nftables.ChainPriorityRef(-300) // dstnat of that family, before br_netfilter
		}
	}
	conn.AddChain(made)
}

func (c Chain) addRules(conn *nftables.Conn, table *nftables.Table, ids map[string]uint32) {
	for _, r := range c.Rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: c.Name, Table: table}, Exprs: r.exprs(ids)})
	}
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "output": nftables.ChainHookOutput,
	"postrouting": nftables.ChainHookPostrouting, "forward": nftables.ChainHookForward,
}

// lastPriority comes after whatever else there is at a hook.
const lastPriority = "2147483646"

var priorities = map[string]*nftables.ChainPriority{
	"raw": nftables.ChainPriorityRaw, "dstnat": nftables.ChainPriorityNATDest, "-100": nftables.ChainPriorityNATDest,
	"srcnat": nftables.ChainPriorityNATSource, "filter": nftables.ChainPriorityFilter, lastPriority: nftables.ChainPriorityRef(2147483646),
}

// tableExists tells whether the host has a table of the name.
func tableExists(name string, family Family) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	switch _, err = conn.ListTableOfFamily(name, nftables.TableFamily(family)); {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for the nftables table %s: %w", name, err)
	}
	return true, nil
}

// numbering is held while a set gets its number within a transaction, which the
// library counts for all connections together.
var numbering sync.Mutex

func addSet(conn *nftables.Conn, set *nftables.Set) error {
	numbering.Lock()
	defer numbering.Unlock()
	return conn.AddSet(set, nil)
}
