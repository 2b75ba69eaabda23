package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Problem is something wrong at a place of the file.
type Problem struct {
	Line, Column int
	Text         string
}

// Problems are all that is wrong with a file, in its order. They are
// fault.Invalid.
type Problems struct {
	File string
	List []Problem
}

func (p *Problems) Error() string {
	var b strings.Builder
	for i, one := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, one.Line, one.Column, one.Text)
	}
	return b.String()
}

// path is where something stands in the document: keys, and indexes into
// arrays, with a separator after each.
type path string

func (p path) key(name string) path { return p + path(name) + "\x00" }
func (p path) index(i int) path     { return p.key(fmt.Sprint("#", i)) }

// parent is the path of what p stands in.
func (p path) parent() path {
	s := strings.TrimSuffix(string(p), "\x00")
	return path(s[:strings.LastIndexByte(s, 0)+1])
}

// document is a file that is read: where things stand in it, and what was wrong.
type document struct {
	places   map[path]unstable.Position
	problems []Problem
}

// problem notes what is wrong at a path, or at what it stands in where the
// document does not have it.
func (d *document) problem(at path, format string, args ...any) {
	for {
		if place, ok := d.places[at]; ok {
			d.problems = append(d.problems, Problem{place.Line, place.Column, fmt.Sprintf(format, args...)})
			return
		}
		if at == "" {
			d.problems = append(d.problems, Problem{1, 1, fmt.Sprintf(format, args...)})
			return
		}
		at = at.parent()
	}
}

// decode reads the document into a struct whose fields have toml tags. What the
// decoder of TOML would end at, the first unknown key or wrong type, is one
// problem among all the others.
func (d *document) decode(data []byte, into any) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		d.syntax(err)
		return
	}
	d.places = placesOf(data)
	d.table("", tree, reflect.ValueOf(into).Elem())
}

func (d *document) syntax(err error) {
	var wrong *toml.DecodeError
	if !errors.As(err, &wrong) {
		d.problem("", "this is not TOML: %v", err)
		return
	}
	line, column := wrong.Position()
	d.problems = append(d.problems, Problem{line, column, "this is not TOML: " + strings.TrimPrefix(wrong.Error(), "toml: ")})
}

// placesOf finds where each key and each element of an array stands.
func placesOf(data []byte) map[path]unstable.Position {
	ix := index{places: map[path]unstable.Position{}, elements: map[path]int{}}
	ix.parser.Reset(data)
	table := path("")
	for ix.parser.NextExpression() {
		switch e := ix.parser.Expression(); e.Kind {
		case unstable.Table:
			table = ix.keys("", e.Key())
		case unstable.ArrayTable:
			table = ix.element(e)
		case unstable.KeyValue:
			ix.keyValue(table, e)
		}
	}
	return ix.places
}

type index struct {
	parser   unstable.Parser
	places   map[path]unstable.Position
	elements map[path]int // of arrays of tables, so far
}

// keys notes the keys below a path, each within the last element where it is an
// array of tables.
func (ix *index) keys(at path, keys unstable.Iterator) path {
	for keys.Next() {
		n := keys.Node()
		at = at.key(string(n.Data))
		ix.note(at, n)
		if count := ix.elements[at]; count > 0 {
			at = at.index(count - 1)
			ix.note(at, n)
		}
	}
	return at
}

// element begins the next element of an array of tables.
func (ix *index) element(e *unstable.Node) path {
	at := path("")
	keys := e.Key()
	for keys.Next() {
		n := keys.Node()
		at = at.key(string(n.Data))
		ix.note(at, n)
		if keys.IsLast() {
			ix.elements[at]++
		}
		if count := ix.elements[at]; count > 0 {
			at = at.index(count - 1)
			ix.note(at, n)
		}
	}
	return at
}

func (ix *index) keyValue(table path, e *unstable.Node) {
	ix.value(ix.keys(table, e.Key()), e.Value())
}

func (ix *index) value(at path, n *unstable.Node) {
	i := 0
	for children := n.Children(); children.Next(); {
		child := children.Node()
		switch {
		case n.Kind == unstable.InlineTable && child.Kind == unstable.KeyValue:
			ix.keyValue(at, child)
		case n.Kind == unstable.Array && child.Kind != unstable.Comment:
			if child.Raw.Length > 0 {
				ix.note(at.index(i), child)
			}
			ix.value(at.index(i), child)
			i++
		}
	}
}

// note keeps the first place of a path.
func (ix *index) note(at path, n *unstable.Node) {
	if _, ok := ix.places[at]; !ok {
		ix.places[at] = ix.parser.Shape(n.Raw).Start
	}
}

// literal is a type that reads itself from a value of the document. An error is
// about the form and does not tell the value where it may be a secret.
type literal interface{ fromTOML(v any) error }

// value reads one value; the problem is noted if it is of another type.
func (d *document) value(at path, v any, into reflect.Value) {
	if into.CanAddr() {
		switch own := into.Addr().Interface().(type) {
		case literal:
			if err := own.fromTOML(v); err != nil {
				d.problem(at, "%s: %v", name(at), err)
			}
			return
		case encoding.TextUnmarshaler:
			if text, ok := v.(string); !ok {
				d.wrong(at, v, "a string")
			} else if err := own.UnmarshalText([]byte(text)); err != nil {
				d.problem(at, "%s: %v", name(at), err)
			}
			return
		}
	}
	switch into.Kind() {
	case reflect.Struct:
		if table, ok := v.(map[string]any); ok {
			d.table(at, table, into)
			return
		}
		d.wrong(at, v, "a table")
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.value(at, v, into.Elem())
	case reflect.Slice:
		d.list(at, v, into)
	case reflect.Map:
		d.words(at, v, into)
	case reflect.String:
		d.scalar(at, v, into, "a string")
	case reflect.Bool:
		d.scalar(at, v, into, "true or false")
	case reflect.Int64, reflect.Int:
		d.scalar(at, v, into, "a whole number")
	default:
		panic("config: no way to read " + into.Type().String())
	}
}

func (d *document) scalar(at path, v any, into reflect.Value, want string) {
	given := reflect.ValueOf(v)
	_, whole := v.(int64)
	if !given.IsValid() || given.Kind() != into.Kind() && !(whole && into.Kind() == reflect.Int) {
		d.wrong(at, v, want)
		return
	}
	into.Set(given.Convert(into.Type()))
}

// defaulter is a table that begins with values of its own.
type defaulter interface{ setDefaults() }

func (d *document) table(at path, table map[string]any, into reflect.Value) {
	if t, ok := into.Addr().Interface().(defaulter); ok {
		t.setDefaults()
	}
	fields := map[string]int{}
	for i := range into.NumField() {
		if tag := into.Type().Field(i).Tag.Get("toml"); tag != "" {
			fields[tag] = i
		}
	}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if i, ok := fields[key]; ok {
			d.value(at.key(key), table[key], into.Field(i))
			continue
		}
		where := "the file"
		if at != "" {
			where = "[" + name(at) + "]"
		}
		d.problem(at.key(key), "unknown key %q: %s has %s", key, where, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
}

func (d *document) list(at path, v any, into reflect.Value) {
	list, ok := v.([]any)
	if !ok {
		d.wrong(at, v, "a list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
	for i, one := range list {
		d.value(at.index(i), one, into.Index(i))
	}
}

func (d *document) words(at path, v any, into reflect.Value) {
	table, ok := v.(map[string]any)
	if !ok {
		d.wrong(at, v, "a table")
		return
	}
	into.Set(reflect.MakeMapWithSize(into.Type(), len(table)))
	for _, key := range slices.Sorted(maps.Keys(table)) {
		one := reflect.New(into.Type().Elem()).Elem()
		d.value(at.key(key), table[key], one)
		into.SetMapIndex(reflect.ValueOf(key), one)
	}
}

func (d *document) wrong(at path, v any, want string) {
	d.problem(at, "%s is %s: want %s", name(at), kindOf(v), want)
}

// name is how a path reads in a sentence.
func name(at path) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.TrimSuffix(string(at), "\x00"), "\x00") {
		if strings.HasPrefix(part, "#") {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(part)
	}
	return b.String()
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or a time"
}
