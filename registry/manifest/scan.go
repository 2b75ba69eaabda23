package manifest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tarehq/tare/fault"
)

// maxDepth is how deep objects and arrays may lie in each other.
const maxDepth = 32

// scanner goes through a document that is known to be JSON, and refuses what
// readers disagree about: a name twice in an object, a known name in other
// letters (Go's decoder takes it, others do not), text that is no Unicode.
type scanner struct {
	dec   *json.Decoder
	ahead json.Token // a token that null has looked at
	depth int
}

func scan(data []byte) (*scanner, error) {
	switch {
	case !utf8.Valid(data):
		return nil, fault.New(fault.Invalid, "the manifest is not UTF-8")
	case !json.Valid(data):
		return nil, fault.New(fault.Invalid, "the manifest is not one JSON document")
	case loneSurrogate(data):
		return nil, fault.New(fault.Invalid, "the manifest has half of a character in a \\u escape")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return &scanner{dec: dec}, nil
}

// loneSurrogate tells whether a valid document has an escape for half of a
// character: what it stands for depends on the reader.
func loneSurrogate(data []byte) bool {
	for {
		i := bytes.IndexByte(data, '\\')
		if i < 0 {
			return false
		}
		if data = data[i:]; data[1] != 'u' {
			data = data[2:]
			continue
		}
		unit := escaped(data)
		data = data[6:]
		switch {
		case unit < 0xD800 || unit > 0xDFFF:
		case unit >= 0xDC00 || len(data) < 6 || data[0] != '\\' || data[1] != 'u':
			return true
		default:
			if low := escaped(data); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			data = data[6:]
		}
	}
}

// escaped is the code unit of the \uXXXX that data begins with.
func escaped(data []byte) uint64 {
	unit, _ := strconv.ParseUint(string(data[2:6]), 16, 16)
	return unit
}

func (s *scanner) token() (json.Token, error) {
	if t := s.ahead; t != nil {
		s.ahead = nil
		return t, nil
	}
	t, err := s.dec.Token()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the manifest is not one JSON document: %w", err)
	}
	return t, nil
}

// null takes the next value if it is null.
func (s *scanner) null() bool {
	t, err := s.dec.Token()
	if err == nil && t == nil {
		return true
	}
	s.ahead = t
	return false
}

// object reads an object; member is called for each name and reads its value.
func (s *scanner) object(where string, known []string, member func(name string) error) error {
	if t, err := s.token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fault.New(fault.Invalid, "%s is not an object", where)
	}
	return s.members(where, known, member)
}

// members reads what follows the opening of an object.
func (s *scanner) members(where string, known []string, member func(name string) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for s.dec.More() {
		t, err := s.token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if seen[name] {
			return fault.New(fault.Invalid, "%s has %.200q twice", where, name)
		}
		seen[name] = true
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return fault.New(fault.Invalid, "%s has %.200q, which some read as %q: write it so", where, name, k)
			}
		}
		if err := member(name); err != nil {
			return err
		}
	}
	return s.leave()
}

// array reads an array, or null as an empty one; element is called for each
// and reads it.
func (s *scanner) array(where string, element func(i int) error) error {
	if s.null() {
		return nil
	}
	if t, err := s.token(); err != nil {
		return err
	} else if t != json.Delim('[') {
		return fault.New(fault.Invalid, "%s is not an array", where)
	}
	return s.elements(element)
}

func (s *scanner) elements(element func(i int) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	for i := 0; s.dec.More(); i++ {
		if err := element(i); err != nil {
			return err
		}
	}
	return s.leave()
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return fault.New(fault.Invalid, "the manifest is more than %d levels deep", maxDepth)
	}
	return nil
}

func (s *scanner) leave() error {
	s.depth--
	_, err := s.token()
	return err
}

// skip reads a value that nobody wants, with the same care.
func (s *scanner) skip() error {
	t, err := s.token()
	switch {
	case err != nil:
		return err
	case t == json.Delim('{'):
		return s.members("an object of the manifest", nil, func(string) error { return s.skip() })
	case t == json.Delim('['):
		return s.elements(func(int) error { return s.skip() })
	}
	return nil
}

func (s *scanner) text(where string) (string, error) {
	t, err := s.token()
	if err != nil {
		return "", err
	}
	text, ok := t.(string)
	if !ok {
		return "", fault.New(fault.Invalid, "%s is not a string", where)
	}
	return text, nil
}

func (s *scanner) integer(where string) (int64, error) {
	t, err := s.token()
	if err != nil {
		return 0, err
	}
	number, _ := t.(json.Number)
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s is not a whole number", where)
	}
	return n, nil
}

// texts reads a map of strings, or null as none.
func (s *scanner) texts(where string) (map[string]string, error) {
	if s.null() {
		return nil, nil
	}
	texts := make(map[string]string)
	err := s.object(where, nil, func(name string) (err error) {
		texts[name], err = s.text(where)
		return err
	})
	return texts, err
}
