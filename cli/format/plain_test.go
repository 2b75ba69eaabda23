package format

import (
	"strings"
	"testing"
)

// A plain table is what its template and a tabwriter make of the rows.
func TestPlainTable(t *testing.T) {
	type row struct{ ID, Image, Names string }
	table := Table{
		Columns: map[string]string{"ID": "CONTAINER ID", "Image": "IMAGE", "Names": "NAMES"},
		Default: "{{.ID}}\t{{.Image}}\t{{.Names}}", Quiet: "{{.ID}}",
	}
	for _, rows := range [][]any{
		nil,
		{row{"1", "a", "n"}},
		{row{"123456789012", "a-very-long-image-name", ""}, row{"", "äöüäöüäöü", "x y"}, row{"2", "", "<&>"}},
		{row{"1", "two\nlines", "n"}, row{"1", "a\ttab", "n"}},
	} {
		for _, quiet := range []bool{false, true} {
			text := map[bool]string{false: "table " + table.Default, true: "table"}[quiet]
			var want, got strings.Builder
			slow := table
			slow.Quiet = " " + table.Quiet // is no longer what the quick way knows
			if err := slow.Write(&want, text, quiet, rows); err != nil {
				t.Fatal(err)
			}
			if err := table.Write(&got, "", quiet, rows); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("%v, quiet %v:\n%q, want\n%q", rows, quiet, got.String(), want.String())
			}
		}
	}
}
