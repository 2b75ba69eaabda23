package image

import (
	"bytes"
	"cmp"
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
	branches := make([]branch, 0, len(images))
	for i := range images {
		b := grow(&images[i])
		if o.tree {
			branches = append(branches, b)
			continue
		}
		b.leaves = nil
		for i := range b.names {
			one := b
			one.names = b.names[i : i+1]
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
	_, err := s.Out.Write(p.b)
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
	b := branch{names: names(i), at: i.Created, detail: detail{id: i.Id, disk: i.Size, content: i.ContentSize, used: i.Containers > 0}}
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
	var tagged []string
	for _, name := range i.RepoTags {
		if at := strings.LastIndexByte(name, ':'); at > 0 && !strings.HasPrefix(name, none) {
			tagged = append(tagged, name[:at])
			out = append(out, name)
		}
	}
	for _, name := range i.RepoDigests {
		if repo, digest, _ := strings.Cut(name, "@"); repo != none && !slices.Contains(tagged, repo) {
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

	b      []byte
	fields []field
	name   int // columns of the names
}

func (p *painter) paint(branches []branch) {
	p.measure(branches)
	p.b = make([]byte, 0, (len(branches)+2)*(p.name+50)) // what a line takes, more or less
	if p.columns > 0 {
		const info, inUse, mark = "i Info → ", " In Use", " U "
		length := utf8.RuneCountInString(info + mark + inUse)
		p.blank(p.columns - length)
		p.text("", info)
		p.text(badge, mark)
		p.text("", inUse)
		p.line()
	}
	p.text(bold, "IMAGE")
	last := len("IMAGE")
	for i := range p.fields {
		p.blank(p.name - last + gap)
		p.filled(bold, p.fields[i].title, &p.fields[i])
		last = p.name
	}
	p.line()
	for i := range branches {
		if p.spaced && i > 0 {
			p.line()
		}
		p.branch(&branches[i])
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
			p.line()
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
	p.text(style, text)
	p.blank(p.name - utf8.RuneCountInString(text))
}

func (p *painter) details(style string, d *detail) {
	for i := range p.fields {
		f := &p.fields[i]
		value := f.value(d)
		switch {
		case !f.last:
			p.blank(gap)
			p.filled(style, value, f)
		case value != "":
			p.blank(gap)
			p.text(badge, value)
		}
	}
	p.line()
}

// text appends a text in a style.
func (p *painter) text(style, text string) { p.filled(style, text, &field{}) }

// filled appends a text that takes the columns of the field.
func (p *painter) filled(style, text string, f *field) {
	coloured := p.colour && style != ""
	fill := f.width - utf8.RuneCountInString(text)
	if coloured {
		p.b = append(p.b, style...)
	}
	if f.right {
		p.blank(fill)
	}
	p.b = append(p.b, text...)
	if !f.right {
		p.blank(fill)
	}
	if coloured {
		p.b = append(p.b, reset...)
	}
}

func (p *painter) blank(columns int) {
	for range columns {
		p.b = append(p.b, ' ')
	}
}

// line ends a line. Where nothing is in colour, no blanks are left at its end.
func (p *painter) line() {
	if !p.colour {
		p.b = bytes.TrimRight(p.b, " ")
	}
	p.b = append(p.b, '\n')
}
