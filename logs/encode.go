package logs

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plain tells which bytes stand for themselves in a JSON string as
// encoding/json writes it with HTML escaping; 0x80 and above need a look at
// the whole character.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = true
	}
	for _, c := range `"\<>&` {
		t[c] = false
	}
	return t
}()

// recordHead is how every record begins.
const recordHead = `{"log":"`

// appendTail appends what follows the line in a record, and its newline.
func appendTail(b []byte, s Stream, attrs, stamp []byte) []byte {
	b = append(b, `","stream":"`...)
	b = append(b, s.String()...)
	if len(attrs) > 0 {
		b = append(b, `","attrs":`...)
		b = append(b, attrs...)
		b = append(b, `,"time":"`...)
	} else {
		b = append(b, `","time":"`...)
	}
	b = append(b, stamp...)
	return append(b, "\"}\n"...)
}

// plainRun returns how many bytes at the beginning of p stand for themselves,
// eight at a time: of a word that holds another byte the trailing zeros of the
// mask tell the first one.
func plainRun(p []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(p)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		quote := x&^(0x04*ones) ^ 0x22*ones // " and &
		angle := x&^(0x02*ones) ^ 0x3c*ones // < and >
		slash := x ^ 0x5c*ones
		special := (x-0x20*ones)&^x | (quote-ones)&^quote | (angle-ones)&^angle | (slash-ones)&^slash | x
		if special &= tops; special != 0 {
			return n + bits.TrailingZeros64(special)/8
		}
	}
	for n < len(p) && plain[p[n]] {
		n++
	}
	return n
}

// appendEscaped appends p as the inside of a JSON string.
func appendEscaped(b, p []byte) []byte {
	start := 0
	for i := 0; i < len(p); {
		if i += plainRun(p[i:]); i == len(p) {
			break
		}
		c := p[i]
		if c < utf8.RuneSelf {
			b = append(b, p[start:i]...)
			b = appendEscapedByte(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, p[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			b = append(b, p[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&0xF])
			start = i + size
		}
		i += size
	}
	return append(b, p[start:]...)
}

func appendEscapedByte(b []byte, c byte) []byte {
	switch c {
	case '\\', '"':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
}

// unescape appends the content of the JSON string that s begins in the middle
// of, up to the closing quote, and returns what follows the quote. It reports
// false for what only a full decoder may judge.
func unescape(dst, s []byte) (out, rest []byte, ok bool) {
	for {
		i := 0
		for i < len(s) && s[i] != '"' && s[i] != '\\' && s[i] >= 0x20 {
			i++
		}
		dst = append(dst, s[:i]...)
		if i == len(s) || s[i] < 0x20 {
			return dst, nil, false
		}
		if s[i] == '"' {
			return dst, s[i+1:], true
		}
		if dst, s, ok = unescapeOne(dst, s[i+1:]); !ok {
			return dst, nil, false
		}
	}
}

// unescapeOne reads one escape sequence from behind its backslash.
func unescapeOne(dst, s []byte) (out, rest []byte, ok bool) {
	if len(s) == 0 {
		return dst, s, false
	}
	switch s[0] {
	case '"', '\\', '/':
		return append(dst, s[0]), s[1:], true
	case 'n':
		return append(dst, '\n'), s[1:], true
	case 'r':
		return append(dst, '\r'), s[1:], true
	case 't':
		return append(dst, '\t'), s[1:], true
	case 'u':
		if len(s) < 5 {
			return dst, s, false
		}
		var r rune
		for _, c := range s[1:5] {
			d := bytes.IndexByte([]byte(hexDigits), c)
			if d < 0 {
				return dst, s, false
			}
			r = r<<4 | rune(d)
		}
		if r >= 0xD800 && r < 0xE000 { // half of a surrogate pair
			return dst, s, false
		}
		return utf8.AppendRune(dst, r), s[5:], true
	}
	return dst, s, false
}
