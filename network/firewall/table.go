package firewall

import (
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
)

// Ruleset is the wanted state of all tables of a name; its String is what nft
// prints.
type Ruleset struct {
	Name   string
	Tables []Table
}

// Table of one family. A chain that is jumped to comes before the chain that
// jumps.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Set is a set, or a map if it has a Value.
type Set struct {
	Name       string
	Key, Value []kind
	Interval   bool
	Elements   []Element
}

// Element of a set. Two are the same if their Family, Set and Text are.
type Element struct {
	Family Family
	Set    string
	Text   string
	// The fields, each padded to 4 bytes; end is empty unless the set has
	// intervals.
	key, end, value []byte
	// device is an interface that is looked up when the element is sent: the
	// value is its index, or hook makes it one of the chain Set.
	device string
	hook   bool
}

// Chain is a list of rules, at a hook of the kernel or, without one, to be
// jumped to.
type Chain struct {
	Name, Type, Hook, Priority string
	Rules                      []Rule
	Devices                    []Element // that it is hooked to, if the hook is an interface's
}

// hooked is a chain at a hook.
func hooked(name, typ, hook, priority string, rules []Rule) Chain {
	return Chain{Name: name, Type: typ, Hook: hook, Priority: priority, Rules: rules}
}

// Rule applies its verdict to the packets that every match fits.
type Rule struct {
	matches []match
	verdict verdict
}

func when(v verdict, m ...match) Rule { return Rule{m, v} }

func (r Ruleset) String() string {
	var b strings.Builder
	for i, t := range r.Tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(t.String())
	}
	return b.String()
}

// Table gives the table of the family, if it is wanted.
func (r Ruleset) Table(f Family) (Table, bool) {
	for _, t := range r.Tables {
		if t.Family == f {
			return t, true
		}
	}
	return Table{}, false
}

// Elements are those of all tables and sets.
func (r Ruleset) Elements() (all []Element) {
	for _, t := range r.Tables {
		for _, s := range t.Sets {
			all = append(all, s.Elements...)
		}
		for _, c := range t.Chains {
			all = append(all, c.Devices...)
		}
	}
	return all
}

func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	for _, s := range t.Sets {
		b.WriteString(s.String())
	}
	for _, c := range t.Chains {
		b.WriteString(c.String())
	}
	return strings.TrimSuffix(b.String(), "\n") + "}\n"
}

func (s Set) String() string {
	var b strings.Builder
	word, types := "set", join(s.Key)
	if len(s.Value) > 0 {
		word, types = "map", types+" : "+join(s.Value)
	}
	fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", word, s.Name, types)
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = { ")
		for i, e := range s.Elements {
			if i > 0 {
				b.WriteString(",\n\t\t\t     ")
			}
			b.WriteString(e.Text)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n\n")
	return b.String()
}

func join(kinds []kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = k.name
	}
	return strings.Join(words, " . ")
}

func (c Chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
	if c.Hook != "" {
		fmt.Fprintf(&b, "\t\ttype %s hook %s%s priority %s; policy accept;\n", c.Type, c.Hook, c.devices(), c.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n\n")
	return b.String()
}

func (c Chain) devices() string {
	if len(c.Devices) == 0 {
		return ""
	}
	var names []string
	for _, d := range c.Devices {
		names = append(names, d.Text)
	}
	if len(names) == 1 {
		return " device " + names[0]
	}
	return " devices = { " + strings.Join(names, ", ") + " }"
}

// exprs are the rule as the kernel has it, but for a verdict's last part.
func (r Rule) exprs(sets map[string]uint32) (out []expr.Any) {
	for _, m := range r.matches {
		out = append(out, m.exprs(sets)...)
	}
	return append(out, r.verdict.exprs(sets)...)
}

func (r Rule) String() string {
	var words []string
	for _, m := range r.matches {
		words = append(words, m.String())
	}
	return strings.Join(append(words, r.verdict.text), " ")
}
