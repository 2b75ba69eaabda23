package spec

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Encode writes a specification of Build's as config.json. The built-in seccomp
// profile, nine tenths of the text, is put in ready-made.
func Encode(s *specs.Spec) ([]byte, error) {
	if s.Linux.Seccomp == nil || s.Linux.Seccomp != builtin.profile {
		return json.Marshal(s)
	}
	outer, inner := *s, *s.Linux
	outer.Linux, inner.Seccomp = nil, nil
	linux, err := json.Marshal(&inner)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(&outer)
	if err != nil {
		return nil, err
	}
	text = add(text, "linux", linux)
	return append(add(text, "seccomp", builtin.text), "}}"...), nil
}

// add puts one more member into text, which ends in an object with members, and
// leaves that object open behind it.
func add(text []byte, name string, value []byte) []byte {
	text = append(text[:len(text)-1], `,"`+name+`":`...)
	return append(text, value...)
}
