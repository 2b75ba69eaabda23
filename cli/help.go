package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/plugin"
	"github.com/tarehq/tare/cli/stream"
)

// rootHelp prints the commands from the table, none of which is built for it,
// and the plugins.
func rootHelp(s *command.Session, out io.Writer, globals *pflag.FlagSet) error {
	plugins := plugin.List(s, known)
	var b strings.Builder
	b.WriteString("Usage:  tare [OPTIONS] COMMAND\n\nA small and fast container engine\n\nCommon Commands:\n")
	line := func(name, short string) { fmt.Fprintf(&b, "  %-11s %s\n", name, short) }
	for _, name := range common {
		e, _, _ := find([]string{name})
		line(name, e.short)
	}
	b.WriteString("\nManagement Commands:\n")
	for _, g := range groups {
		line(g.noun, g.short)
	}
	var invalid []*plugin.Plugin
	for _, p := range plugins {
		if p.Err != nil {
			invalid = append(invalid, p)
			continue
		}
		line(p.Name+"*", p.ShortDescription)
	}
	b.WriteString("\nCommands:\n")
	for i := range table {
		for _, name := range table[i].names() {
			if !has(common[:], name) {
				line(name, table[i].short)
			}
		}
	}
	line("completion", "Generate the autocompletion script for a shell")
	if len(invalid) > 0 {
		b.WriteString("\nInvalid Plugins:\n")
		for _, p := range invalid {
			line(p.Name, p.Err.Error())
		}
	}
	b.WriteString("\nGlobal Options:\n")
	hideHelp(globals)
	b.WriteString(flagUsages(globals, width(out)))
	b.WriteString("\nRun 'tare COMMAND --help' for more information on a command.\n")
	_, err := io.WriteString(out, called(s, b.String()))
	return err
}

func hideHelp(f *pflag.FlagSet) {
	if h := f.Lookup("help"); h != nil {
		h.Hidden = true
	}
}

func groupHelp(s *command.Session, out io.Writer, noun string) error {
	var b strings.Builder
	for _, g := range groups {
		if g.noun == noun {
			fmt.Fprintf(&b, "Usage:  tare %s COMMAND\n\n%s\n\nCommands:\n", noun, g.short)
		}
	}
	for i := range table {
		if table[i].noun == noun {
			fmt.Fprintf(&b, "  %-11s %s\n", table[i].verb, table[i].short)
		}
	}
	fmt.Fprintf(&b, "\nRun 'tare %s COMMAND --help' for more information on a command.\n", noun)
	_, err := io.WriteString(out, called(s, b.String()))
	return err
}

func commandHelp(s *command.Session, e *entry, c *command.Command, name string) error {
	var b strings.Builder
	long := c.Long
	if long == "" {
		long = e.short
	}
	fmt.Fprintf(&b, "%s\n\n%s\n", strings.TrimRight("Usage:  tare "+name+" "+c.Usage, " "), long)
	if c.Example != "" {
		fmt.Fprintf(&b, "\nExample:\n  $ %s\n", c.Example)
	}
	if e.noun != "" && len(e.top)+len(e.aliases) > 0 {
		names := []string{"tare " + e.noun + " " + e.verb}
		for _, a := range e.aliases {
			names = append(names, "tare "+e.noun+" "+a)
		}
		for _, t := range e.top {
			names = append(names, "tare "+t)
		}
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if c.Flags.Lookup("hostname") == nil {
		hideHelp(c.Flags)
	}
	if usages := flagUsages(c.Flags, width(s.Out)); usages != "" {
		b.WriteString("\nOptions:\n" + usages)
	}
	_, err := io.WriteString(s.Out, called(s, b.String()))
	return err
}

// called is a text about this program, which speaks of itself as docker when it is called that.
func called(s *command.Session, text string) string {
	if s.Name() == "tare" {
		return text
	}
	if rest, ok := strings.CutPrefix(text, "tare: "); ok {
		text = s.Name() + ": " + rest
	}
	for _, before := range [...]string{"'", "  ", ", ", ": ", "$ ", "\t"} {
		text = strings.ReplaceAll(text, before+"tare ", before+s.Name()+" ")
	}
	return text
}

// width is how wide help may be, in columns.
func width(out io.Writer) int {
	if _, w := stream.Size(out); w > 40 {
		return int(w)
	}
	return 80
}

// flagUsages lists the flags in two columns, the way Docker's client does.
func flagUsages(f *pflag.FlagSet, columns int) string {
	type line struct{ flag, usage string }
	var lines []line
	longest := 0
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		l := line{flag: "      --" + flag.Name, usage: flag.Usage}
		if flag.Shorthand != "" {
			l.flag = "  -" + flag.Shorthand + ", --" + flag.Name
		}
		switch kind := flag.Value.Type(); kind {
		case "bool":
		case "stringArray":
			l.flag += " list"
		case "int64":
			l.flag += " int"
		default:
			l.flag += " " + strings.TrimSuffix(kind, "Slice")
		}
		switch flag.DefValue {
		case "", "0", "false", "[]", "0s":
		default:
			if flag.Value.Type() == "string" {
				l.usage += fmt.Sprintf(" (default %q)", flag.DefValue)
			} else {
				l.usage += " (default " + flag.DefValue + ")"
			}
		}
		longest = max(longest, len(l.flag))
		lines = append(lines, l)
	})
	var b strings.Builder
	for _, l := range lines {
		text := wrap(l.usage, max(columns-longest-3, 24))
		fmt.Fprintf(&b, "%-*s   %s\n", longest, l.flag, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", longest+3)))
	}
	return b.String()
}

// wrap breaks lines between words.
func wrap(text string, columns int) string {
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		n := 0
		for j, word := range strings.Fields(line) {
			if j > 0 && n+1+len(word) > columns {
				b.WriteByte('\n')
				n = 0
			} else if j > 0 {
				b.WriteByte(' ')
				n++
			}
			b.WriteString(word)
			n += len(word)
		}
	}
	return b.String()
}
