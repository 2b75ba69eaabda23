// Package keep is "builder" of the daemon's configuration: how much of the cache
// of builds is kept, by the rules of dockerd's builder.gc, and what a build may
// be granted, by its builder.entitlements.
package keep

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Rule is one of the ceilings that the cache is held under, one after the other.
// What was used last goes last.
type Rule struct {
	All    bool          `json:",omitempty"` // what images share, too
	Filter []string      `json:",omitempty"` // of which one has to fit; none is all
	Unused time.Duration `json:",omitempty"` // only what nobody has used for so long

	// Bytes, zero for none. Nothing goes below Reserved; of what is above that as much
	// goes as is over Max, or as the disk has less free than MinFree.
	Reserved, Max, MinFree int64 `json:",omitempty"`
}

// Config is "builder" of daemon.json. The zero value is what holds without it.
type Config struct {
	GC struct {
		Enabled              *bool    `json:"enabled"`
		DefaultKeepStorage   string   `json:"defaultKeepStorage"` // of old: DefaultReservedSpace
		DefaultReservedSpace string   `json:"defaultReservedSpace"`
		DefaultMaxUsedSpace  string   `json:"defaultMaxUsedSpace"`
		DefaultMinFreeSpace  string   `json:"defaultMinFreeSpace"`
		Policy               []Policy `json:"policy"`
	} `json:"gc"`
	Entitlements struct {
		NetworkHost      *bool `json:"network-host"`
		SecurityInsecure *bool `json:"security-insecure"`
		Device           *bool `json:"device"`
	} `json:"entitlements"`
}

// What a client may ask to be granted to its build.
const (
	NetworkHost      = "network.host"      // the host's network
	SecurityInsecure = "security.insecure" // all privileges
	Device           = "device"            // devices that vendors describe
)

// Grants are what clients may grant to their builds: the host's network if
// nothing else is said, all privileges and devices only if it is.
func (c Config) Grants() []string {
	e, list := c.Entitlements, []string{}
	if e.NetworkHost == nil || *e.NetworkHost {
		list = append(list, NetworkHost)
	}
	if e.SecurityInsecure != nil && *e.SecurityInsecure {
		list = append(list, SecurityInsecure)
	}
	if e.Device != nil && *e.Device {
		list = append(list, Device)
	}
	return list
}

// Policy is one rule as it is written.
type Policy struct {
	All           bool     `json:"all"`
	KeepStorage   string   `json:"keepStorage"` // of old: ReservedSpace
	ReservedSpace string   `json:"reservedSpace"`
	MaxUsedSpace  string   `json:"maxUsedSpace"`
	MinFreeSpace  string   `json:"minFreeSpace"`
	Filter        []string `json:"filter"`
}

// Rules are what the configuration comes to for a cache in a directory: none if
// it is turned off, those of dockerd if it names none.
func (c Config) Rules(dir string) ([]Rule, error) {
	if c.GC.Enabled != nil && !*c.GC.Enabled {
		return nil, nil
	}
	if len(c.GC.Policy) == 0 {
		return c.usual(dir)
	}
	var rules []Rule
	for i, p := range c.GC.Policy {
		r, err := p.rule()
		if err != nil {
			return nil, fmt.Errorf("builder.gc.policy[%d]: %w", i, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func (p Policy) rule() (Rule, error) {
	r := Rule{All: p.All}
	if p.ReservedSpace == "" {
		p.ReservedSpace = p.KeepStorage
	}
	if err := sizes(map[*int64][2]string{&r.Reserved: {"reservedSpace", p.ReservedSpace}, &r.Max: {"maxUsedSpace", p.MaxUsedSpace}, &r.MinFree: {"minFreeSpace", p.MinFreeSpace}}); err != nil {
		return r, err
	}
	var all []string
	for _, f := range p.Filter {
		key, value, found := strings.Cut(f, "=")
		if key = strings.TrimSpace(key); key != "unused-for" && key != "until" {
			all = append(all, f)
			continue
		}
		d, err := time.ParseDuration(strings.Trim(value, "= "))
		if !found || err != nil || d < 0 {
			return r, fault.New(fault.Invalid, "invalid filter %q: a duration such as 48h is expected", f)
		}
		r.Unused = d
	}
	if len(all) > 0 {
		r.Filter = []string{strings.Join(all, ",")} // they all have to fit
	}
	return r, nil
}

func sizes(list map[*int64][2]string) error {
	for to, s := range list {
		if s[1] == "" {
			continue
		}
		n, err := units.RAMInBytes(s[1])
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, "invalid %s %q: a size such as 20GB is expected", s[0], s[1])
		}
		*to = n
	}
	return nil
}

// The shares of the disk that hold without a configuration, in percent, and the
// bounds, in bytes.
const (
	reservedShare, reservedMost = 10, 10e9
	maxShare, maxMost           = 80, 100e9
	freeShare                   = 20
	temporary                   = 512e6
)

// Temporary are the kinds of what is made again most easily.
var Temporary = []string{"type==source.local", "type==exec.cachemount", "type==source.git.checkout"}

// usual are dockerd's rules.
func (c Config) usual(dir string) ([]Rule, error) {
	g, r := c.GC, Rule{}
	if g.DefaultReservedSpace == "" {
		g.DefaultReservedSpace = g.DefaultKeepStorage
	}
	err := sizes(map[*int64][2]string{&r.Reserved: {"builder.gc.defaultReservedSpace", g.DefaultReservedSpace}, &r.Max: {"builder.gc.defaultMaxUsedSpace", g.DefaultMaxUsedSpace},
		&r.MinFree: {"builder.gc.defaultMinFreeSpace", g.DefaultMinFreeSpace}})
	if err != nil {
		return nil, err
	}
	if r.Reserved+r.Max+r.MinFree == 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return nil, fmt.Errorf("cannot see how large the disk below %s is: %w", dir, err)
		}
		share := func(percent int64) int64 { return (int64(st.Blocks)*st.Bsize/100*percent/(1<<30) + 1) * 1e9 }
		r.Reserved, r.Max, r.MinFree = min(share(reservedShare), reservedMost), min(share(maxShare), maxMost), share(freeShare)
	}
	old, all := r, r
	old.Unused, all.All = 60*24*time.Hour, true
	soon := int64(temporary)
	if r.Reserved > 0 {
		soon = min(soon, r.Reserved)
	}
	return []Rule{{Filter: Temporary, Unused: 48 * time.Hour, Max: soon}, old, r, all}, nil
}
