package ocirun

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// decodeSpec reads a configuration. encoding/json spends more time on preparing
// for the types of a specification than on reading one, and a runtime reads one
// in its life; this decoder prepares nothing. It takes the same documents, and
// names of members in any case.
func decodeSpec(b []byte, s *specs.Spec) error { return decode(b, reflect.ValueOf(s).Elem()) }

// DecodeProcess reads a process, as exec takes it.
func DecodeProcess(b []byte, p *specs.Process) error { return decode(b, reflect.ValueOf(p).Elem()) }

// DecodeResources reads limits, as update takes them.
func DecodeResources(b []byte, r *specs.LinuxResources) error {
	return decode(b, reflect.ValueOf(r).Elem())
}

func decode(b []byte, v reflect.Value) error {
	d := newDecoder(b)
	return d.document(v)
}

// newDecoder makes a decoder of b, which is not changed any more: strings are
// parts of it.
func newDecoder(b []byte) *decoder {
	return &decoder{s: unsafe.String(unsafe.SliceData(b), len(b))}
}

func (d *decoder) document(v reflect.Value) error {
	err := d.value(v, 0)
	if err == nil && d.peek() != 0 {
		err = d.fail("a single value")
	}
	return err
}

type decoder struct {
	s       string
	i       int
	profile string // the text of the seccomp profile, if it had to be decoded
}

const maxDepth = 100

func (d *decoder) fail(want string) error {
	if d.i >= len(d.s) {
		return fmt.Errorf("it ends where %s is expected", want)
	}
	return fmt.Errorf("%s is expected at byte %d, before %q", want, d.i, d.s[d.i:min(d.i+12, len(d.s))])
}

// peek skips white space and shows the next byte, 0 at the end.
func (d *decoder) peek() byte {
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

func (d *decoder) take(c byte) bool {
	if d.peek() == c {
		d.i++
		return true
	}
	return false
}

func (d *decoder) word(w string) bool {
	if strings.HasPrefix(d.s[d.i:], w) {
		d.i += len(w)
		return true
	}
	return false
}

// value reads one value into v.
func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	if d.peek() == 'n' && d.word("null") {
		v.SetZero()
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() == profileType {
			return d.seccomp(v, depth)
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem(), depth)
	case reflect.Struct:
		return d.object(func(name string) error {
			if f := field(v, name); f.IsValid() {
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

var profileType = reflect.TypeFor[*specs.LinuxSeccomp]()

// seccomp reads a profile, most of a configuration, or takes the rehearsed one
// if it has the same text.
func (d *decoder) seccomp(v reflect.Value, depth int) error {
	if last := lastFilter.Load(); last != nil && last.text != "" && strings.HasPrefix(d.s[d.i:], last.text) {
		d.i += len(last.text)
		v.Set(reflect.ValueOf(last.of))
		return nil
	}
	start := d.i
	v.Set(reflect.New(profileType.Elem()))
	err := d.value(v.Elem(), depth)
	d.profile = d.s[start:d.i]
	return err
}

func (d *decoder) inField(name string, v reflect.Value, depth int) error {
	if err := d.value(v, depth+1); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (d *decoder) slice(v reflect.Value, depth int) error {
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
			v.Grow(n + 1)
		}
		v.SetLen(n + 1)
		v.Index(n).SetZero()
		return d.value(v.Index(n), depth+1)
	})
}

func (d *decoder) object(member func(name string) error) error {
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

func (d *decoder) array(element func() error) error {
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

func (d *decoder) scalar(v reflect.Value) error {
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
func (d *decoder) number() string {
	start := d.i
	for d.i < len(d.s) && strings.IndexByte("+-.0123456789eE", d.s[d.i]) >= 0 {
		d.i++
	}
	return d.s[start:d.i]
}

// text takes a string; without escapes it is a part of the input.
func (d *decoder) text() (string, error) {
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

func (d *decoder) escaped(start int) (string, error) {
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

func (d *decoder) hex() rune {
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
func (d *decoder) skip(depth int) error {
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

// field finds the field of a struct by the name in its tag, in any case if no
// field has it exactly.
func field(v reflect.Value, name string) reflect.Value {
	if f := fieldBy(v, func(tag string) bool { return tag == name }); f.IsValid() {
		return f
	}
	return fieldBy(v, func(tag string) bool { return strings.EqualFold(tag, name) })
}

func fieldBy(v reflect.Value, match func(string) bool) reflect.Value {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if e := fieldBy(v.Field(i), match); e.IsValid() {
				return e
			}
			continue
		}
		// The tags of this module's types all begin with json:"NAME.
		tag, ok := strings.CutPrefix(string(f.Tag), `json:"`)
		if !ok {
			continue
		}
		if end := strings.IndexAny(tag, `,"`); end >= 0 && match(tag[:end]) {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}
