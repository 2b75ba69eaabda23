package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// runtimeValue is the flag --add-runtime NAME=PATH.
type runtimeValue map[string]runtime

func (v runtimeValue) Set(s string) error {
	name, path, ok := strings.Cut(s, "=")
	name, path = strings.TrimSpace(name), strings.TrimSpace(path)
	if !ok || name == "" || path == "" {
		return fault.New(fault.Invalid, "invalid runtime argument: %s: want name=path", s)
	}
	if _, ok := v[name]; ok {
		return fault.New(fault.Invalid, "runtime '%s' was already defined", name)
	}
	v[name] = runtime{Path: path}
	return nil
}

func (v runtimeValue) Type() string { return "runtime" }

func (v runtimeValue) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		out = append(out, name+"="+v[name].Path)
	}
	return fmt.Sprint(out)
}

// poolValue is the flag --default-address-pool base=CIDR,size=BITS.
type poolValue []addressPool

func (v *poolValue) Set(s string) error {
	var p addressPool
	for field := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		var err error
		switch key {
		case "base":
			p.Base, err = netip.ParsePrefix(value)
		case "size":
			p.Size, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
		if err != nil {
			return fault.New(fault.Invalid, "%w", err)
		}
	}
	*v = append(*v, p)
	return nil
}

func (v *poolValue) Type() string { return "pool-options" }

func (v *poolValue) String() string {
	var out []string
	for _, p := range *v {
		out = append(out, fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
	}
	return strings.Join(out, " ")
}

// listValue is a flag that may be given several times, with one element each.
type listValue[T any] struct {
	list  *[]T
	parse func(string) (T, error)
	kind  string
}

func (v listValue[T]) Set(s string) error {
	element, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.list = append(*v.list, element)
	return nil
}

func (v listValue[T]) Type() string   { return v.kind }
func (v listValue[T]) String() string { return fmt.Sprint(*v.list) }

// parseAddr reads an IP address in dockerd's words.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return a, fault.New(fault.Invalid, "%s is not an ip address", s)
	}
	return a, nil
}

// addrValue is a flag that holds one address.
type addrValue struct{ addr *netip.Addr }

func (v addrValue) Set(s string) (err error) { *v.addr, err = parseAddr(s); return err }
func (v addrValue) Type() string             { return "ip" }
func (v addrValue) String() string {
	if !v.addr.IsValid() {
		return ""
	}
	return v.addr.String()
}

// byteSize is a number of bytes: a number, or a text such as "64M".
type byteSize int64

func (b *byteSize) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	*b = byteSize(n)
	return nil
}

func (b *byteSize) Type() string   { return "bytes" }
func (b *byteSize) String() string { return units.BytesSize(float64(*b)) }

// UnmarshalJSON reads a number or a text.
func (b *byteSize) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return b.Set(text)
	}
	return json.Unmarshal(data, (*int64)(b))
}

// ulimits are limits by their names: --default-ulimit NAME=SOFT[:HARD].
type ulimits map[string]*api.Ulimit

func (v ulimits) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	v[u.Name] = u
	return nil
}

func (v ulimits) Type() string   { return "ulimit" }
func (v ulimits) String() string { return fmt.Sprint(v.list()) }

func (v ulimits) list() []*api.Ulimit {
	var out []*api.Ulimit
	for _, name := range slices.Sorted(maps.Keys(v)) {
		out = append(out, v[name])
	}
	return out
}

// check completes the limits of the configuration file, whose names may stand
// in their keys alone, and holds them to the flag's rules.
func (v ulimits) check() error {
	for name, u := range v {
		if u == nil {
			return fault.New(fault.Invalid, "invalid default-ulimits: %s has no value", name)
		}
		u.Name = name
		if _, err := units.ParseUlimit(u.String()); err != nil {
			return fault.New(fault.Invalid, "invalid default-ulimits: %w", err)
		}
	}
	return nil
}

// switches are named features: --feature NAME[=BOOL].
type switches map[string]bool

func (v switches) Set(s string) error {
	name, value, given := strings.Cut(s, "=")
	on := true
	if given {
		var err error
		if on, err = strconv.ParseBool(value); err != nil {
			return fault.New(fault.Invalid, "invalid value %q for feature %s: want true or false", value, name)
		}
	}
	v[name] = on
	return nil
}

func (v switches) Type() string   { return "map" }
func (v switches) String() string { return fmt.Sprint(map[string]bool(v)) }

// switchValue is a flag of three states: unset is not false.
type switchValue struct{ on **bool }

func (v switchValue) Set(s string) error {
	on, err := strconv.ParseBool(s)
	*v.on = &on
	return err
}

func (v switchValue) Type() string { return "bool" }

func (v switchValue) String() string {
	if v.on == nil || *v.on == nil {
		return ""
	}
	return strconv.FormatBool(**v.on)
}

// mapValue is a flag of key=value that is given any number of times.
type mapValue map[string]string

func (v *mapValue) Set(s string) error {
	key, value, _ := strings.Cut(s, "=")
	if *v == nil {
		*v = mapValue{}
	}
	(*v)[key] = value
	return nil
}

func (v *mapValue) Type() string { return "map" }

func (v *mapValue) String() string { return fmt.Sprint(map[string]string(*v)) }
