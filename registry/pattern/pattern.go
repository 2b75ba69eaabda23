// Package pattern matches the names of repositories and tags.
//
//	team/app      this one
//	team/*        those right below team: * is any text without a slash, ? any
//	              character but a slash, [a-c] one of those
//	team/**       those anywhere below team; ** is any number of components,
//	              at the end at least one
package pattern

import (
	"path"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Pattern is a pattern that has been read. The zero value matches nothing.
type Pattern struct {
	text  string
	parts []string // by component
}

// maxLength bounds a pattern; a name has at most 255 bytes.
const maxLength = 512

// Parse reads a pattern.
func Parse(text string) (Pattern, error) {
	p := Pattern{text: text, parts: strings.Split(text, "/")}
	if len(text) > maxLength {
		return Pattern{}, fault.New(fault.Invalid, "a pattern has at most %d characters", maxLength)
	}
	for _, part := range p.parts {
		_, err := path.Match(part, "")
		switch {
		case part == "":
			return Pattern{}, fault.New(fault.Invalid, "%q has an empty component: want a pattern such as team/**", text)
		case err != nil:
			return Pattern{}, fault.New(fault.Invalid, "%q has a [ without its end, or a \\ at the end", text)
		case part != "**" && strings.Contains(part, "**"):
			return Pattern{}, fault.New(fault.Invalid, "%q has ** beside other characters: between slashes it stands alone", text)
		}
	}
	if last := len(p.parts) - 1; p.parts[last] == "**" {
		p.parts = append(p.parts[:last], "*", "**")
	}
	return p, nil
}

// MustParse is Parse for patterns that a program has in it.
func MustParse(text string) Pattern {
	p, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return p
}

func (p Pattern) String() string { return p.text }

// UnmarshalText is Parse.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = Parse(string(text))
	return err
}

// Match tells whether the pattern is about the name. It takes a time in
// proportion to the product of their lengths at most.
func (p Pattern) Match(name string) bool {
	if len(p.parts) == 0 {
		return false
	}
	names := strings.Split(name, "/")
	i, j := 0, 0         // the next component of the name, of the pattern
	again, star := 0, -1 // where the last ** goes on if what follows it fails
	for i < len(names) {
		switch {
		case j < len(p.parts) && p.parts[j] == "**":
			again, star = i, j
			j++
		case j < len(p.parts) && component(p.parts[j], names[i]):
			i++
			j++
		case star >= 0:
			again++
			i, j = again, star+1
		default:
			return false
		}
	}
	for j < len(p.parts) && p.parts[j] == "**" {
		j++
	}
	return j == len(p.parts)
}

func component(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// List is several patterns.
type List []Pattern

// Match tells whether one of them is about the name.
func (l List) Match(name string) bool {
	for _, p := range l {
		if p.Match(name) {
			return true
		}
	}
	return false
}
