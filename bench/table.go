package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// table gathers the figures by measurement and by who was measured.
type table struct {
	only     string // what the titles of comparisons that are measured contain
	rows     []*row
	versions [][2]string
	notes    []string
}

type row struct {
	title, unit string
	names       []string
	values      []float64
}

// add puts one figure down; zero means that it could not be had.
func (t *table) add(title, unit, name string, value float64) {
	if value == 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "%s, %s: %.2f %s\n", title, name, value, unit) // a run takes long
	for _, r := range t.rows {
		if r.title == title {
			r.names, r.values = append(r.names, name), append(r.values, value)
			return
		}
	}
	t.rows = append(t.rows, &row{title, unit, []string{name}, []float64{value}})
}

func (t *table) version(name, text string) {
	if v := [2]string{name, text}; !slices.Contains(t.versions, v) {
		t.versions = append(t.versions, v)
	}
}

func (t *table) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(t.notes, n) {
		t.notes = append(t.notes, n)
	}
}

// print writes the figures with their ratios to ours, which come first.
func (t *table) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %s. Medians; in brackets how many times ours.\n\n", time.Now().Format("2006-01-02"), machine())
	for _, v := range t.versions {
		fmt.Fprintf(&b, "- %s: %s\n", v[0], v[1])
	}
	var groups [][]string
	for _, r := range t.rows {
		if i := slices.IndexFunc(groups, func(g []string) bool { return g[0] == r.names[0] }); i < 0 {
			groups = append(groups, slices.Clone(r.names))
		} else if len(r.names) > len(groups[i]) {
			groups[i] = slices.Clone(r.names)
		}
	}
	for _, names := range groups {
		fmt.Fprintf(&b, "\n| what | unit | %s |\n|---|---|%s\n", strings.Join(names, " | "), strings.Repeat("--:|", len(names)))
		for _, r := range t.rows {
			if r.names[0] == names[0] {
				r.print(&b, names)
			}
		}
	}
	for _, n := range t.notes {
		fmt.Fprintf(&b, "\nNote: %s.\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *row) print(b *strings.Builder, names []string) {
	fmt.Fprintf(b, "| %s | %s |", r.title, r.unit)
	for _, name := range names {
		i := slices.Index(r.names, name)
		switch {
		case i < 0:
			b.WriteString(" – |")
		case i == 0:
			fmt.Fprintf(b, " %.2f |", r.values[i])
		default:
			fmt.Fprintf(b, " %.2f (%.1fx) |", r.values[i], r.values[i]/r.values[0])
		}
	}
	b.WriteByte('\n')
}
