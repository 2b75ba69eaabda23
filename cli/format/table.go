package format

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Table lists rows of one kind.
type Table struct {
	Columns map[string]string // the columns' titles by field
	Default string            // the template of the rows in a plain table
	Quiet   string            // the template of -q
	Raw     string            // what --format raw has of a row, one a line: "image_id=ID tag=Tag"
}

// raw is the template of --format raw, of which -q takes the first line.
func (t Table) raw(quiet bool) string {
	var b strings.Builder
	for i, line := range strings.Fields(t.Raw) {
		name, field, _ := strings.Cut(line, "=")
		b.WriteString(name + ":{{pad ." + field + " 1 0}}")
		if quiet && i == 0 {
			break
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// titles stands for a row when the titles are rendered.
type titles map[string]string

// Label gives the title of a column that shows one label.
func (titles) Label(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// plainFunctions are the template functions while titles are rendered: those
// that change a row's text leave a title as it is.
func plainFunctions() template.FuncMap {
	return template.FuncMap{
		"json":     func(s string) string { return s },
		"split":    func(s, _ string) string { return s },
		"join":     func(s, _ string) string { return s },
		"title":    func(s string) string { return s },
		"lower":    func(s string) string { return s },
		"upper":    func(s string) string { return s },
		"truncate": func(s string, _ int) string { return s },
	}
}

// Write prints the rows by a --format: "" or "table", "table TEMPLATE",
// "json", "raw", or a template of one row.
func (t Table) Write(out io.Writer, text string, quiet bool, rows []any) error {
	titled := false
	switch {
	case text == "" || text == "table":
		text, titled = t.Default, true
		if quiet {
			text, titled = t.Quiet, false
		}
	case text == "json":
		text = "{{json .}}"
	case text == "raw" && t.Raw != "":
		text = t.raw(quiet)
	case strings.HasPrefix(text, "table "):
		text, titled = strings.TrimSpace(text[len("table"):]), true
	}
	if text == t.Default || text == t.Quiet {
		if cells, ok := plainCells(text, rows); ok {
			return t.writePlain(out, text, titled, cells)
		}
	}
	tmpl, err := Parse(unescape(text))
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	var b strings.Builder
	for _, row := range rows {
		if err := tmpl.Execute(&b, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		b.WriteByte('\n')
	}
	if !titled {
		_, err := io.WriteString(out, b.String())
		return err
	}
	var head strings.Builder
	if err := tmpl.Funcs(plainFunctions()).Execute(&head, titles(t.Columns)); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	w := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(w, head.String())
	io.WriteString(w, b.String())
	return w.Flush()
}
