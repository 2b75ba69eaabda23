package format

import (
	"bufio"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// plainFields gives the fields of a template that consists of nothing but
// fields with tabs between them, as those of plain tables do.
func plainFields(text string) (names []string, ok bool) {
	for cell := range strings.SplitSeq(text, "\t") {
		name, opened := strings.CutPrefix(cell, "{{.")
		name, closed := strings.CutSuffix(name, "}}")
		if !opened || !closed || name == "" || strings.ContainsAny(name, "{}.() |") {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

// plainCells is the text of such a template's fields in all rows, one after the
// other. It is not ok where the template has to be executed: a field is no text,
// or has what would break a table's line.
func plainCells(text string, rows []any) (cells []string, ok bool) {
	names, ok := plainFields(text)
	if !ok {
		return nil, false
	}
	cells = make([]string, 0, len(names)*len(rows))
	var of reflect.Type
	index := make([][]int, len(names))
	for _, row := range rows {
		v := reflect.ValueOf(row)
		if v.Kind() != reflect.Struct {
			return nil, false
		}
		if v.Type() != of {
			of = v.Type()
			for i, name := range names {
				f, found := of.FieldByName(name)
				if !found || f.Type.Kind() != reflect.String {
					return nil, false
				}
				index[i] = f.Index
			}
		}
		for _, at := range index {
			cell := v.FieldByIndex(at).String()
			if breaksLine(cell) {
				return nil, false
			}
			cells = append(cells, cell)
		}
	}
	return cells, true
}

// writePlain prints a table by its cells, in columns if it has titles: at least
// ten wide, three from one to the next.
func (t Table) writePlain(out io.Writer, text string, titled bool, cells []string) error {
	names, _ := plainFields(text)
	if titled {
		titles := make([]string, len(names), len(names)+len(cells))
		for i, name := range names {
			titles[i] = t.Columns[name]
		}
		cells = append(titles, cells...)
	}
	widths := make([]int, len(names))
	for i, cell := range cells {
		column := i % len(names)
		widths[column] = max(widths[column], utf8.RuneCountInString(cell)+3, 10)
	}
	w := bufio.NewWriterSize(out, 16<<10)
	for i, cell := range cells {
		w.WriteString(cell)
		switch column := i % len(names); {
		case column == len(names)-1:
			w.WriteByte('\n')
		case !titled:
			w.WriteByte('\t')
		default:
			for n := utf8.RuneCountInString(cell); n < widths[column]; n++ {
				w.WriteByte(' ')
			}
		}
	}
	return w.Flush()
}

// breaksLine tells whether a cell has what means something to a tabwriter.
func breaksLine(cell string) bool {
	for i := range len(cell) {
		if c := cell[i]; c >= '\t' && c <= '\f' || c == 0xff {
			return true
		}
	}
	return false
}
