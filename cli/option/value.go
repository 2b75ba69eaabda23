// Package option holds the kinds of flag values that several commands share.
package option

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/client"
)

// List is a flag that may be given more than once.
type List struct {
	Values []string
	check  func(string) (string, error)
	kind   string
}

// NewList adds a flag of a list. check turns a value into the one to keep; nil
// keeps it.
func NewList(f *pflag.FlagSet, name, short, usage string, check func(string) (string, error)) *List {
	l := &List{check: check, kind: "list"}
	f.VarP(l, name, short, usage)
	return l
}

func (l *List) Set(s string) error {
	if l.check != nil {
		var err error
		if s, err = l.check(s); err != nil {
			return err
		}
	}
	l.Values = append(l.Values, s)
	return nil
}

func (l *List) String() string { return strings.Join(l.Values, ",") }
func (l *List) Type() string   { return l.kind }

// Map splits KEY=VALUE values; a KEY alone has an empty value. nil without
// values.
func (l *List) Map() map[string]string {
	if len(l.Values) == 0 {
		return nil
	}
	m := make(map[string]string, len(l.Values))
	for _, v := range l.Values {
		key, value, _ := strings.Cut(v, "=")
		m[key] = value
	}
	return m
}

// Bytes is a size: a number with an optional unit b, k, m, g, t or p, in
// powers of 1024.
type Bytes struct {
	N       int64
	minusOK bool // "-1" is a value
}

// NewBytes adds a flag of a size.
func NewBytes(f *pflag.FlagSet, name, short, usage string) *Bytes {
	b := &Bytes{}
	f.VarP(b, name, short, usage)
	return b
}

// NewSwap adds a flag of a size that may be -1.
func NewSwap(f *pflag.FlagSet, name, usage string) *Bytes {
	b := &Bytes{minusOK: true}
	f.Var(b, name, usage)
	return b
}

func (b *Bytes) Set(s string) (err error) {
	if b.minusOK && s == "-1" {
		b.N = -1
		return nil
	}
	b.N, err = ParseBytes(s)
	return err
}

func (b *Bytes) String() string {
	if b.N == 0 {
		return ""
	}
	return strconv.FormatInt(b.N, 10)
}

func (b *Bytes) Type() string { return "bytes" }

// ParseBytes reads a size such as 512m, 1.5g, 64MiB or 1024.
func ParseBytes(s string) (int64, error) {
	i := strings.LastIndexAny(s, "01234567890. ")
	if i < 0 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	number, unit := s[:i+1], s[i+1:]
	number = strings.TrimSuffix(number, " ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || strings.HasPrefix(number, "+") || strings.ContainsAny(number, "eExXpPiInN_") {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	unit = strings.ToLower(unit)
	if unit == "" || unit == "b" {
		return int64(n), nil
	}
	power := strings.IndexByte("kmgtp", unit[0])
	if power < 0 || (unit[1:] != "" && unit[1:] != "b" && unit[1:] != "ib") {
		return 0, fmt.Errorf("invalid suffix: '%s'", unit)
	}
	for ; power >= 0; power-- {
		n *= 1024
	}
	return int64(n), nil
}

// Umask is the flag of a mask of permissions, in octal; Bits is nil unless given.
type Umask struct{ Bits *uint32 }

func (u *Umask) Set(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("invalid umask %q: use three octal digits, such as 022", s)
	}
	bits := uint32(n)
	u.Bits = &bits
	return nil
}

func (u *Umask) String() string { return "" }
func (u *Umask) Type() string   { return "umask" }

// Filter is the flag of a list's conditions, name=value.
type Filter struct{ client.Filters }

// NewFilter adds --filter.
func NewFilter(f *pflag.FlagSet) *Filter {
	v := &Filter{client.Filters{}}
	f.VarP(v, "filter", "f", "Filter output based on conditions provided")
	return v
}

// NewPruneFilter adds --filter of what is to be removed. Its short form would be
// that of --force.
func NewPruneFilter(f *pflag.FlagSet, example string) *Filter {
	v := &Filter{client.Filters{}}
	f.Var(v, "filter", fmt.Sprintf("Provide filter values (e.g. %q)", example))
	return v
}

// Add adds conditions name=value unless the same name has a value that denies
// or repeats them: those of the user's configuration.
func (v *Filter) Add(conditions []string) error {
	for _, c := range conditions {
		name, value, ok := strings.Cut(c, "=")
		if !ok {
			return fmt.Errorf("bad format of filter in pruneFilters: %q (expected name=value)", c)
		}
		opposite := "label!"
		if name == opposite {
			opposite = "label"
		}
		if slices.Contains(v.Filters[opposite], value) || slices.Contains(v.Filters[name], value) {
			continue
		}
		v.Filters[name] = append(v.Filters[name], value)
	}
	return nil
}

func (v *Filter) Set(s string) error {
	if s == "" {
		return nil
	}
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("bad format of filter (expected name=value)")
	}
	name = strings.ToLower(strings.TrimSpace(name))
	v.Filters[name] = append(v.Filters[name], strings.TrimSpace(value))
	return nil
}

func (v *Filter) String() string { return "" }
func (v *Filter) Type() string   { return "filter" }

// The texts of --format.
const (
	FormatTable   = "Format output as a table (table, or table TEMPLATE),\nas JSON (json), or by a Go template"
	FormatPlain   = "Format output as JSON (json) or by a Go template"
	DetachKeys    = "Override the key sequence for detaching a container"
	FormatInspect = FormatPlain
)
