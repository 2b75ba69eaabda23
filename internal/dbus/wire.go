package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The kinds of message, and the header's fields, as the specification numbers
// them.
const (
	methodCall, methodReturn, methodError, signal = 1, 2, 3, 4

	fieldPath, fieldInterface, fieldMember, fieldError = 1, 2, 3, 4
	fieldReplySerial, fieldDestination, fieldSender    = 5, 6, 7
	fieldSignature                                     = 8
	maxMessage                                         = 1 << 27
)

// Path is an object's path.
type Path string

// Property is a name with a value, which travels as a variant: "(sv)".
type Property struct {
	Name  string
	Value any
}

// Dict is a dictionary of variants by name: "a{sv}".
type Dict []Property

// Unit is a name with properties: "(sa(sv))".
type Unit struct {
	Name       string
	Properties []Property
}

// signatureOf is the type of a value in the words of the protocol, "" for one
// that has none.
func signatureOf(v any) string {
	switch v.(type) {
	case string:
		return "s"
	case Path:
		return "o"
	case bool:
		return "b"
	case uint32:
		return "u"
	case int32:
		return "i"
	case uint64:
		return "t"
	case int64:
		return "x"
	case []byte:
		return "ay"
	case []string:
		return "as"
	case []uint32:
		return "au"
	case [][2]string:
		return "a(ss)"
	case []Property:
		return "a(sv)"
	case Dict:
		return "a{sv}"
	case []Unit:
		return "a(sa(sv))"
	}
	return ""
}

// encoder appends values, each at a multiple of its own size.
type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(n uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, n)
}

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) sig(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array writes the length before what each writes, of elements that begin at
// multiples of n.
func (e *encoder) array(n int, each func()) {
	e.u32(0)
	at := len(e.b)
	e.align(n)
	from := len(e.b)
	each()
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-from))
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case string:
		e.str(v)
	case Path:
		e.str(string(v))
	case bool:
		n := uint32(0)
		if v {
			n = 1
		}
		e.u32(n)
	case uint32:
		e.u32(v)
	case int32:
		e.u32(uint32(v))
	case uint64:
		e.align(8)
		e.b = binary.LittleEndian.AppendUint64(e.b, v)
	case int64:
		e.value(uint64(v))
	case []byte:
		e.array(1, func() { e.b = append(e.b, v...) })
	case []string:
		e.array(4, func() {
			for _, s := range v {
				e.str(s)
			}
		})
	case []uint32:
		e.array(4, func() {
			for _, n := range v {
				e.u32(n)
			}
		})
	default:
		e.structs(v)
	}
}

func (e *encoder) structs(v any) {
	switch v := v.(type) {
	case [][2]string:
		e.array(8, func() {
			for _, pair := range v {
				e.align(8)
				e.str(pair[0])
				e.str(pair[1])
			}
		})
	case []Property:
		e.array(8, func() {
			for _, p := range v {
				e.align(8)
				e.str(p.Name)
				e.sig(signatureOf(p.Value))
				e.value(p.Value)
			}
		})
	case Dict: // whose entries lie as structures do
		e.structs([]Property(v))
	case []Unit:
		e.array(8, func() {
			for _, u := range v {
				e.align(8)
				e.str(u.Name)
				e.value(u.Properties)
			}
		})
	}
}

// message is one that was received, as far as it is read.
type message struct {
	kind                   byte
	replyTo                uint32
	iface, member, failure string
	path, signature        string
	body                   []byte
	little                 bool
}

// encodeCall writes a method call.
func encodeCall(serial uint32, destination string, path Path, iface, member string, args []any) ([]byte, error) {
	var body encoder
	types := ""
	for _, a := range args {
		t := signatureOf(a)
		if t == "" {
			return nil, fmt.Errorf("a %T cannot be sent", a)
		}
		types += t
		body.value(a)
	}
	e := encoder{[]byte{'l', methodCall, 0, 1}}
	e.u32(uint32(len(body.b)))
	e.u32(serial)
	field := func(code byte, kind, text string) {
		if text == "" {
			return
		}
		e.align(8)
		e.b = append(e.b, code)
		e.sig(kind)
		if kind == "g" {
			e.sig(text)
		} else {
			e.str(text)
		}
	}
	e.array(8, func() {
		field(fieldPath, "o", string(path))
		field(fieldInterface, "s", iface)
		field(fieldMember, "s", member)
		field(fieldDestination, "s", destination)
		field(fieldSignature, "g", types)
	})
	e.align(8)
	return append(e.b, body.b...), nil
}

var errMessage = errors.New("the peer's message is not as D-Bus has it")

// decoder reads values. What is beyond the end is zero, and said by bad.
type decoder struct {
	order binary.ByteOrder
	b     []byte
	at    int
	bad   bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b)-d.at {
		d.bad = true
		return make([]byte, 8)[:min(max(n, 0), 8)]
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) align(n int) {
	if over := d.at % n; over > 0 {
		d.take(n - over)
	}
}

func (d *decoder) u32() uint32 {
	d.align(4)
	return d.order.Uint32(d.take(4))
}

func (d *decoder) str() string {
	n := int(d.u32())
	s := string(d.take(n))
	d.take(1)
	if d.bad {
		return ""
	}
	return s
}

func (d *decoder) sig() string {
	n := int(d.take(1)[0])
	s := string(d.take(n))
	d.take(1)
	if d.bad {
		return ""
	}
	return s
}

// lengths reads from a message's first 16 bytes how long it is.
func lengths(head []byte) (order binary.ByteOrder, fields, body int, err error) {
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return nil, 0, 0, errMessage
	}
	n, m := order.Uint32(head[12:]), order.Uint32(head[4:])
	if head[3] != 1 || n > 1<<26 || m > maxMessage {
		return nil, 0, 0, errMessage
	}
	return order, (int(n) + 7) &^ 7, int(m), nil
}

// decode reads a message of which lengths has told the parts.
func decode(head, rest []byte, order binary.ByteOrder, fields int) (*message, error) {
	m := &message{kind: head[1], body: rest[fields:]}
	d := &decoder{order: order, b: rest[:min(fields, int(order.Uint32(head[12:])))]}
	for d.at < len(d.b) && !d.bad {
		d.align(8)
		code := d.take(1)[0]
		switch kind := d.sig(); kind {
		case "s", "o":
			text := d.str()
			switch code {
			case fieldPath:
				m.path = text
			case fieldInterface:
				m.iface = text
			case fieldMember:
				m.member = text
			case fieldError:
				m.failure = text
			}
		case "g":
			m.signature = d.sig()
		case "u":
			if n := d.u32(); code == fieldReplySerial {
				m.replyTo = n
			}
		default:
			return nil, errMessage
		}
	}
	if d.bad {
		return nil, errMessage
	}
	return m, nil
}
