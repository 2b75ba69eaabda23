// Package plainjson decodes JSON for programs that read a document or two in
// their life: encoding/json spends more time on preparing for the types than on
// reading a small one, and reads a large one twice. It takes the same documents,
// and names of members in any case.
package plainjson

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// Unmarshal reads the document into what out points to: structs with tags or
// names, maps by strings, slices, pointers, strings, booleans and integers. Types
// that decode themselves are not known. b must not change any more: strings are
// parts of it.
func Unmarshal(b []byte, out any) error { return New(b).Document(reflect.ValueOf(out).Elem()) }

// Each reads a document that is a list, or null, element by element into one
// value, and calls each with it in between.
func Each[T any](b []byte, each func(*T)) error {
	d := New(b)
	var element T
	v := reflect.ValueOf(&element).Elem()
	if d.peek() == 'n' && d.word("null") {
		return nil
	}
	err := d.array(func() error {
		v.SetZero()
		if err := d.Value(v, 1); err != nil {
			return err
		}
		each(&element)
		return nil
	})
	if err == nil && d.peek() != 0 {
		err = d.fail("a single value")
	}
	return err
}

// Decoder reads one document.
type Decoder struct {
	// Pointer, unless nil, is asked to read what a pointer of the type leads to;
	// false has it read as any other.
	Pointer func(v reflect.Value, depth int) (read bool, err error)

	s      string
	i      int
	fields map[reflect.Type][]named
}

// named is a field of a struct, by the way to it.
type named struct {
	name  string
	index []int
}

// New makes a decoder of b, which must not change any more.
func New(b []byte) *Decoder {
	return &Decoder{s: unsafe.String(unsafe.SliceData(b), len(b)), fields: map[reflect.Type][]named{}}
}

// Document reads the one value that there is.
func (d *Decoder) Document(v reflect.Value) error {
	err := d.Value(v, 0)
	if err == nil && d.peek() != 0 {
		err = d.fail("a single value")
	}
	return err
}

// Rest is what has not been read.
func (d *Decoder) Rest() string { return d.s[d.i:] }

// Skip passes n bytes.
func (d *Decoder) Skip(n int) { d.i += n }

// Pass passes the next value and gives its text.
func (d *Decoder) Pass(depth int) (text string, err error) {
	d.peek()
	begin := d.i
	err = d.skip(depth)
	return d.s[begin:d.i], err
}

const maxDepth = 100

func (d *Decoder) fail(want string) error {
	if d.i >= len(d.s) {
		return fmt.Errorf("it ends where %s is expected", want)
	}
	return fmt.Errorf("%s is expected at byte %d, before %q", want, d.i, d.s[d.i:min(d.i+12, len(d.s))])
}

// peek skips white space and shows the next byte, 0 at the end.
func (d *Decoder) peek() byte {
	for d.i < len(d.s) {
		switch c := d.s[d.i]; c {
		case ' ', '\t', '\n', '\r':
			d.i++
		case 0:
			return 1 // no token begins so
		default:
			return c
		}
	}
	return 0
}

func (d *Decoder) take(c byte) bool {
	if d.peek() == c {
		d.i++
		return true
	}
	return false
}

func (d *Decoder) word(w string) bool {
	if strings.HasPrefix(d.s[d.i:], w) {
		d.i += len(w)
		return true
	}
	return false
}

// Value reads one value into v; depth is how deep it lies.
func (d *Decoder) Value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	if d.peek() == 'n' && d.word("null") {
		v.SetZero()
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if d.Pointer != nil {
			if read, err := d.Pointer(v, depth); read || err != nil {
				return err
			}
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.Value(v.Elem(), depth)
	case reflect.Struct:
		fields := d.fieldsOf(v.Type())
		return d.object(func(name string) error {
			if f := field(v, fields, name); f.IsValid() {
				return d.inField(name, f, depth)
			}
			return d.skip(depth + 1)
		})
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		return d.object(func(name string) error {
			e := reflect.New(v.Type().Elem()).Elem()
			err := d.inField(name, e, depth)
			v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
			return err
		})
	case reflect.Slice:
		return d.slice(v, depth)
	}
	return d.scalar(v)
}

func (d *Decoder) inField(name string, v reflect.Value, depth int) error {
	if err := d.Value(v, depth+1); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (d *Decoder) slice(v reflect.Value, depth int) error {
	if list, ok := v.Addr().Interface().(*[]string); ok {
		*list = []string{}
		return d.array(func() error {
			s, err := d.text()
			*list = append(*list, s)
			return err
		})
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	return d.array(func() error {
		n := v.Len()
		if n == v.Cap() {
			v.Grow(d.room(n, depth))
		}
		v.SetLen(n + 1)
		v.Index(n).SetZero()
		return d.Value(v.Index(n), depth+1)
	})
}

// room tells for how many elements there shall be room beyond the n that there
// are. What is left of a document that is one list holds elements like those
// before.
func (d *Decoder) room(n, depth int) int {
	if depth > 0 {
		return n + 1
	}
	return max(n+1, (len(d.s)-d.i)*n/d.i)
}

func (d *Decoder) object(member func(name string) error) error {
	if !d.take('{') {
		return d.fail("an object")
	}
	if d.take('}') {
		return nil
	}
	for {
		d.peek()
		name, err := d.text()
		if err != nil {
			return err
		}
		if !d.take(':') {
			return d.fail("a colon")
		}
		if err := member(name); err != nil {
			return err
		}
		if d.take('}') {
			return nil
		}
		if !d.take(',') {
			return d.fail("a comma or the end of the object")
		}
	}
}

func (d *Decoder) array(element func() error) error {
	if !d.take('[') {
		return d.fail("an array")
	}
	if d.take(']') {
		return nil
	}
	for {
		d.peek()
		if err := element(); err != nil {
			return err
		}
		if d.take(']') {
			return nil
		}
		if !d.take(',') {
			return d.fail("a comma or the end of the array")
		}
	}
}

func (d *Decoder) scalar(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		s, err := d.text()
		v.SetString(s)
		return err
	case reflect.Bool:
		switch {
		case d.word("true"):
			v.SetBool(true)
		case d.word("false"):
			v.SetBool(false)
		default:
			return d.fail("true or false")
		}
		return nil
	}
	n := d.number()
	switch {
	case n == "":
		return d.fail("a number")
	case v.CanInt():
		x, err := strconv.ParseInt(n, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("the number %s does not fit", n)
		}
		v.SetInt(x)
	case v.CanUint():
		x, err := strconv.ParseUint(n, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("the number %s does not fit", n)
		}
		v.SetUint(x)
	default:
		return fmt.Errorf("values of the type %s are not known", v.Type())
	}
	return nil
}

// number takes the text of a number.
func (d *Decoder) number() string {
	start := d.i
	for d.i < len(d.s) && strings.IndexByte("+-.0123456789eE", d.s[d.i]) >= 0 {
		d.i++
	}
	return d.s[start:d.i]
}

// text takes a string; without escapes it is a part of the input.
func (d *Decoder) text() (string, error) {
	if d.i >= len(d.s) || d.s[d.i] != '"' {
		return "", d.fail("a string")
	}
	d.i++
	for start := d.i; d.i < len(d.s); d.i++ {
		switch c := d.s[d.i]; {
		case c == '"':
			d.i++
			return d.s[start : d.i-1], nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.fail("no control character in a string")
		}
	}
	return "", d.fail("the end of a string")
}

func (d *Decoder) escaped(start int) (string, error) {
	out := []byte(d.s[start:d.i])
	for d.i < len(d.s) {
		c := d.s[d.i]
		d.i++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ':
			return "", d.fail("no control character in a string")
		case c != '\\':
			out = append(out, c)
			continue
		}
		if d.i >= len(d.s) {
			break
		}
		c = d.s[d.i]
		d.i++
		switch i := strings.IndexByte(`"\/bfnrt`, c); {
		case i >= 0:
			out = append(out, "\"\\/\b\f\n\r\t"[i])
		case c == 'u':
			r := d.hex()
			if utf16.IsSurrogate(r) {
				if low := rune(-1); d.word(`\u`) {
					low = d.hex()
					r = utf16.DecodeRune(r, low)
				} else {
					r = utf8.RuneError
				}
			}
			if r < 0 {
				return "", d.fail("four hexadecimal digits")
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", d.fail("an escape sequence")
		}
	}
	return "", d.fail("the end of a string")
}

func (d *Decoder) hex() rune {
	if d.i+4 > len(d.s) {
		return -1
	}
	n, err := strconv.ParseUint(d.s[d.i:d.i+4], 16, 16)
	if err != nil {
		return -1
	}
	d.i += 4
	return rune(n)
}

// skip passes a value that no field takes.
func (d *Decoder) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	switch d.peek() {
	case '{':
		return d.object(func(string) error { return d.skip(depth + 1) })
	case '[':
		return d.array(func() error { return d.skip(depth + 1) })
	case '"':
		_, err := d.text()
		return err
	}
	if d.word("true") || d.word("false") || d.word("null") {
		return nil
	}
	if _, err := strconv.ParseFloat(d.number(), 64); err != nil {
		return d.fail("a value")
	}
	return nil
}

// fieldsOf lists the fields of a struct, each type's once.
func (d *Decoder) fieldsOf(t reflect.Type) []named {
	fields, ok := d.fields[t]
	if !ok {
		fields = list(t, nil)
		d.fields[t] = fields
	}
	return fields
}

// field finds the field of a struct by its name, in any case if no field has it
// exactly.
func field(v reflect.Value, fields []named, name string) reflect.Value {
	for _, f := range fields {
		if f.name == name {
			return v.FieldByIndex(f.index)
		}
	}
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			return v.FieldByIndex(f.index)
		}
	}
	return reflect.Value{}
}

// list names the fields of a struct, embedded ones as its own.
func list(t reflect.Type, index []int) (fields []named) {
	fields = make([]named, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		at := f.Index // its own
		if len(index) > 0 {
			at = append(index[:len(index):len(index)], i)
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			fields = append(fields, list(f.Type, at)...)
		case !f.IsExported() || name == "-":
		case name == "":
			fields = append(fields, named{f.Name, at})
		default:
			fields = append(fields, named{name, at})
		}
	}
	return fields
}
