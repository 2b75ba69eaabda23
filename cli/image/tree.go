package image

import (
	"cmp"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/stream"
	"github.com/tarehq/tare/client"
)

// branch is one image of the view, under all of its names, with the images for
// single platforms that it has.
type branch struct {
	names  []string
	detail detail
	leaves []leaf
	at     int64 // creation, Unix seconds
}

type leaf struct {
	platform  string
	available bool
	detail    detail
}

type detail struct {
	id            string
	disk, content int64 // bytes
	used          bool
}

// view prints the images as docker 29 does.
func (o *ls) view(s *command.Session, images []client.ImageSummary) error {
	var branches []branch
	for i := range images {
		b := grow(&images[i])
		if o.tree {
			branches = append(branches, b)
			continue
		}
		b.leaves = nil
		for _, name := range b.names {
			one := b
			one.names = []string{name}
			branches = append(branches, one)
		}
		if len(b.names) == 0 {
			branches = append(branches, b)
		}
	}
	slices.SortStableFunc(branches, o.order)
	_, width := stream.Size(s.Out)
	p := &painter{columns: int(width), spaced: o.tree, colour: width > 0 && s.Getenv("NO_COLOR") == ""}
	p.paint(branches)
	text := p.b.String()
	if !p.colour {
		lines := strings.Split(text, "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " ")
		}
		text = strings.Join(lines, "\n")
	}
	_, err := io.WriteString(s.Out, text)
	return err
}

// order is the newest first in the tree, and by name in the list, with what has
// no name last.
func (o *ls) order(a, b branch) int {
	if o.tree {
		return cmp.Compare(b.at, a.at)
	}
	if len(a.names) == 0 || len(b.names) == 0 {
		return cmp.Or(cmp.Compare(len(b.names), len(a.names)), cmp.Compare(b.at, a.at))
	}
	return strings.Compare(a.names[0], b.names[0])
}

func grow(i *client.ImageSummary) branch {
	b := branch{names: names(i), at: i.Created, detail: detail{id: i.Id, disk: i.Size, used: i.Containers > 0}}
	for k := range i.Manifests {
		m := &i.Manifests[k]
		if m.Kind != "image" || m.ImageData == nil {
			continue
		}
		l := leaf{platform: m.ImageData.Platform.String(), available: m.Available,
			detail: detail{id: m.ID, disk: m.Size.Total, content: m.Size.Content, used: len(m.ImageData.Containers) > 0}}
		b.detail.content += l.detail.content
		b.detail.used = b.detail.used || l.detail.used
		b.leaves = append(b.leaves, l)
	}
	return b
}

// names are an image's tags, and the repositories that name it by digest alone.
func names(i *client.ImageSummary) []string {
	var out []string
	tagged := map[string]bool{}
	for _, name := range i.RepoTags {
		if at := strings.LastIndexByte(name, ':'); at > 0 && !strings.HasPrefix(name, none) {
			tagged[name[:at]] = true
			out = append(out, name)
		}
	}
	for _, name := range i.RepoDigests {
		if repo, digest, _ := strings.Cut(name, "@"); repo != none && !tagged[repo] {
			out = append(out, repo+"@"+format.ShortID(digest))
		}
	}
	return out
}

// The escape sequences of the view.
const (
	bold  = "\x1b[1m"
	title = "\x1b[1;34m"
	faint = "\x1b[2m"
	badge = "\x1b[30;106m"
	reset = "\x1b[0m"
)

// field is one column after the names.
type field struct {
	title string
	width int
	right bool
	last  bool // it is a mark, and nothing comes after it
	value func(*detail) string
}

var fields = [...]field{
	{"ID", 12, false, false, func(d *detail) string { return format.ShortID(d.id) }},
	{"DISK USAGE", 10, true, false, func(d *detail) string { return format.Size(float64(d.disk)) }},
	{"CONTENT SIZE", 12, true, false, func(d *detail) string { return format.Size(float64(d.content)) }},
	{"EXTRA", 5, false, true, func(d *detail) string {
		if d.used {
			return " U "
		}
		return ""
	}},
}

const (
	gap       = 3  // columns between two fields
	leastName = 12 // columns that names keep before a field is dropped
)

// painter lays the view out for a terminal of some columns; 0 is none, where
// nothing is cut.
type painter struct {
	columns        int
	spaced, colour bool

	b      strings.Builder
	fields []field
	name   int // columns of the names
}

func (p *painter) paint(branches []branch) {
	p.measure(branches)
	if p.columns > 0 {
		const info, inUse, mark = "i Info → ", " In Use", " U "
		length := utf8.RuneCountInString(info + mark + inUse)
		p.b.WriteString(strings.Repeat(" ", max(p.columns-length, 0)) + info + p.paintIn(badge, mark) + inUse + "\n")
	}
	p.b.WriteString(p.paintIn(bold, "IMAGE"))
	last := len("IMAGE")
	for _, f := range p.fields {
		p.b.WriteString(strings.Repeat(" ", p.name-last+gap) + p.paintIn(bold, pad(f.title, f.width, f.right)))
		last = p.name
	}
	p.b.WriteByte('\n')
	for i, b := range branches {
		if p.spaced && i > 0 {
			p.b.WriteByte('\n')
		}
		p.branch(&b)
	}
}

// measure drops the last fields of a narrow terminal, and gives the names what
// they need and what there is.
func (p *painter) measure(branches []branch) {
	p.fields = fields[:]
	p.name = len("IMAGE")
	for i := range branches {
		for _, name := range branches[i].names {
			p.name = max(p.name, len(name))
		}
		if len(branches[i].names) == 0 {
			p.name = max(p.name, len(nameless))
		}
		for k := range branches[i].leaves {
			p.name = max(p.name, utf8.RuneCountInString(twigs[0])+len(branches[i].leaves[k].platform))
		}
	}
	if p.columns <= 0 {
		return
	}
	room := p.columns
	for i, f := range fields {
		if room-f.width-gap < leastName {
			p.fields = fields[:i]
			break
		}
		room -= f.width + gap
	}
	p.name = min(p.name, max(room, leastName))
}

const nameless = "<untagged>"

// twigs lead to a leaf, and to the last one.
var twigs = [...]string{"├─ ", "└─ "}

func (p *painter) branch(b *branch) {
	names := b.names
	if len(names) == 0 {
		names = []string{nameless}
	}
	for i, name := range names {
		p.cell(title, name)
		if i < len(names)-1 {
			p.b.WriteByte('\n')
		}
	}
	p.details("", &b.detail)
	for i := range b.leaves {
		l, twig, style := &b.leaves[i], twigs[0], ""
		if i == len(b.leaves)-1 {
			twig = twigs[1]
		}
		if !l.available {
			style = faint
		}
		p.cell(style, twig+l.platform)
		p.details(style, &l.detail)
	}
}

// cell writes a text in the names' column.
func (p *painter) cell(style, text string) {
	if utf8.RuneCountInString(text) > p.name {
		text = format.Ellipsis(text, p.name)
	}
	p.b.WriteString(p.paintIn(style, text) + strings.Repeat(" ", p.name-utf8.RuneCountInString(text)))
}

func (p *painter) details(style string, d *detail) {
	for _, f := range p.fields {
		value := f.value(d)
		switch {
		case !f.last:
			p.b.WriteString(strings.Repeat(" ", gap) + p.paintIn(style, pad(value, f.width, f.right)))
		case value != "":
			p.b.WriteString(strings.Repeat(" ", gap) + p.paintIn(badge, value))
		}
	}
	p.b.WriteByte('\n')
}

func (p *painter) paintIn(style, text string) string {
	if !p.colour || style == "" {
		return text
	}
	return style + text + reset
}

func pad(text string, width int, right bool) string {
	fill := strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
	if right {
		return fill + text
	}
	return text + fill
}
