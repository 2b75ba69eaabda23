package progress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// draw writes the lines over those that stand there. It writes all at once, and
// never a line that the terminal would break.
func (d *Display) draw() {
	height, width := d.size()
	if height <= 0 || width <= 0 {
		return
	}
	lines := d.lines(height-1, width-1)
	var b strings.Builder
	b.WriteString(d.up(width))
	widths := make([]int, len(lines))
	for i, line := range lines {
		widths[i] = utf8.RuneCountInString(line)
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	d.write(b.String())
	d.drawn, d.dirty = widths, false
}

// up leads to the beginning of the first line that stands there. A terminal
// that became narrower since has broken lines in two.
func (d *Display) up(width int) string {
	n := 0
	for _, columns := range d.drawn {
		n += max(1, (columns+width-1)/width)
	}
	if n == 0 {
		return "\r"
	}
	return "\r\x1b[" + strconv.Itoa(n) + "A"
}

// settle leaves every line on the terminal for good.
func (d *Display) settle() {
	if !d.live || len(d.rows) == 0 {
		return
	}
	_, width := d.size()
	var b strings.Builder
	b.WriteString(d.up(max(width, 1)) + "\x1b[J")
	for _, r := range d.rows {
		b.WriteString(r.head())
		if counts := r.counts(); counts != "" && !finished(r.status) {
			b.WriteString(" " + counts)
		}
		b.WriteByte('\n')
	}
	d.write(b.String())
	d.rows, d.drawn, d.total, d.dirty = nil, nil, meter{}, false
	clear(d.byID)
}

// lines renders at most height lines of at most width columns. When there are
// more, what moves is shown first and what is finished last.
func (d *Display) lines(height, width int) []string {
	shown := d.rows
	total := d.totalLine()
	fit := height
	if total != "" {
		fit--
	}
	if len(shown) > fit {
		fit = max(height-1, 0)
		shown = d.choose(fit)
		total = d.summary(len(d.rows)-len(shown), total)
	}
	head := 0
	for _, r := range shown {
		if r.counting() {
			head = max(head, utf8.RuneCountInString(r.head()))
		}
	}
	var out []string
	for _, r := range shown {
		out = append(out, d.line(r, head, width))
	}
	if total != "" {
		out = append(out, cut(total, width))
	}
	if len(out) > height {
		out = out[len(out)-max(height, 0):]
	}
	return out
}

// choose takes n rows, in their order.
func (d *Display) choose(n int) []*row {
	rank := func(r *row) int {
		switch {
		case finished(r.status):
			return 2
		case r.counting():
			return 0
		}
		return 1
	}
	order := slices.Clone(d.rows)
	slices.SortStableFunc(order, func(a, b *row) int { return rank(a) - rank(b) })
	order = order[:min(n, len(order))]
	return slices.DeleteFunc(slices.Clone(d.rows), func(r *row) bool { return !slices.Contains(order, r) })
}

// summary is the last line when rows are not shown.
func (d *Display) summary(hidden int, total string) string {
	more := fmt.Sprintf("%d more", hidden)
	if total == "" {
		return "... " + more
	}
	return total + "  (" + more + ")"
}

// totalLine sums up what the network carries; "" with less than two layers.
func (d *Display) totalLine() string {
	var moved, size int64
	layers, done, known, unsized := 0, 0, 0, 0
	for _, r := range d.rows {
		if !r.layer {
			continue
		}
		layers++
		moved += r.moved
		size += r.size
		switch {
		case finished(r.status):
			done++
		case r.size == 0:
			unsized++
		}
		if r.moved > 0 || r.size > 0 {
			known++
		}
	}
	if layers < 2 || known == 0 {
		return ""
	}
	now := d.now()
	d.total.add(now, moved)
	line := "Total: " + sizeOf(moved, size, unsized > 0)
	if rate := perSecond(d.total.rate(now)); rate != "" && moved < size {
		line += "  " + rate
	}
	return fmt.Sprintf("%s  %d of %d layers", line, done, layers)
}

// sizeOf leaves the end open while it is not known of all layers.
func sizeOf(moved, total int64, open bool) string {
	if open {
		return size(moved)
	}
	return size(moved) + "/" + size(total)
}

// line renders a row: head, bar, counts and rate, and the fewer of them the
// narrower it is. Heads of rows with counts are head columns wide.
func (d *Display) line(r *row, head, width int) string {
	if !r.counting() {
		return cut(r.head(), width)
	}
	text := r.head()
	if pad := head - utf8.RuneCountInString(text); pad > 0 && head < width/2 {
		text += strings.Repeat(" ", pad)
	}
	counts, rate := r.counts(), r.rate(d.now())
	tail := counts
	if rate != "" {
		tail = strings.TrimSpace(fmt.Sprintf("%-17s %s", counts, rate))
	}
	room := width - utf8.RuneCountInString(text) - 2
	switch {
	case len(tail) <= room:
	case len(counts) <= room:
		tail = counts
	default:
		return cut(r.head(), width)
	}
	const least, most, aside = 12, 52, 28 // columns: of a bar, and kept for counts and rate
	if bar := min(room-max(len(tail), aside)-1, most); r.total > 0 && bar >= least {
		text += " " + drawBar(r.current, r.total, bar-2)
	}
	return cut(strings.TrimRight(text+"  "+tail, " "), width)
}

// drawBar draws how far n has come in a bar of some columns.
func drawBar(n, total int64, columns int) string {
	full := int(float64(columns) * float64(n) / float64(total))
	if full >= columns {
		return "[" + strings.Repeat("=", columns) + "]"
	}
	return "[" + strings.Repeat("=", full) + ">" + strings.Repeat(" ", columns-full-1) + "]"
}

// cut shortens a line to its columns.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
