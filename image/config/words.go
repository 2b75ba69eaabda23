package config

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// splitWords cuts a line at blanks that stand outside of quotes. The quotes
// and backslashes stay.
func splitWords(line string) ([]string, error) {
	var list []string
	var word strings.Builder
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(line):
			word.WriteByte(c)
			i++
			c = line[i]
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			if word.Len() > 0 {
				list = append(list, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteByte(c)
	}
	if quote != 0 {
		return nil, fault.New(fault.Invalid, "unexpected end of statement while looking for matching %c: %s", quote, line)
	}
	if word.Len() > 0 {
		list = append(list, word.String())
	}
	return list, nil
}

// pairs reads "key=value …", or "key all the rest" where the first word has no
// equals sign.
func pairs(env []string, instruction, rest string) ([][2]string, error) {
	first, after := cutWord(rest)
	if !strings.Contains(first, "=") {
		if after == "" {
			return nil, fault.New(fault.Invalid, "%s must have two arguments", instruction)
		}
		value, err := expand(env, after)
		return [][2]string{{first, value}}, err
	}
	list, err := splitWords(rest)
	if err != nil {
		return nil, err
	}
	var found [][2]string
	for _, word := range list {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fault.New(fault.Invalid, "Syntax error - can't find = in %q. Must be of the form: name=value", word)
		}
		if key, err = expand(env, key); err != nil {
			return nil, err
		}
		if value, err = expand(env, value); err != nil {
			return nil, err
		}
		if key == "" {
			return nil, fault.New(fault.Invalid, "%s names can not be blank", instruction)
		}
		found = append(found, [2]string{key, value})
	}
	return found, nil
}

func expandWords(env []string, rest string) ([]string, error) {
	list, err := splitWords(rest)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i], err = expand(env, list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func single(env []string, instruction, rest string) (string, error) {
	list, err := expandWords(env, rest)
	if err == nil && len(list) != 1 {
		err = fault.New(fault.Invalid, "%s requires exactly one argument", instruction)
	}
	if err != nil {
		return "", err
	}
	return list[0], nil
}

// expand takes quotes and backslashes away and puts in the variables of the
// environment, with the shell's forms $v, ${v}, ${v:-word} and ${v:+word}.
func expand(env []string, word string) (string, error) {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(word); {
		c := word[i]
		switch {
		case quote == '\'' && c != '\'':
			out.WriteByte(c)
			i++
		case c == '\\' && i+1 < len(word):
			if next := word[i+1]; quote == '"' && next != '"' && next != '$' && next != '\\' {
				out.WriteByte(c)
			}
			out.WriteByte(word[i+1])
			i += 2
		case c == quote:
			quote = 0
			i++
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
			i++
		case c == '$':
			value, n, err := variable(env, word[i:])
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += n
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String(), nil
}

func nameEnd(s string) int {
	end := 0
	for end < len(s) && (s[end] == '_' || s[end] >= 'a' && s[end] <= 'z' || s[end] >= 'A' && s[end] <= 'Z' || end > 0 && s[end] >= '0' && s[end] <= '9') {
		end++
	}
	return end
}

func getenv(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// variable reads what begins with the dollar sign of s and tells how long it is.
func variable(env []string, s string) (value string, n int, err error) {
	if !strings.HasPrefix(s, "${") {
		end := nameEnd(s[1:])
		if end == 0 {
			return "$", 1, nil
		}
		return getenv(env, s[1:1+end]), 1 + end, nil
	}
	inner, depth := s[2:], 1
	for n = 0; n < len(inner); n++ {
		if inner[n] == '{' {
			depth++
		} else if inner[n] == '}' {
			if depth--; depth == 0 {
				break
			}
		}
	}
	if depth > 0 {
		return "", 0, fault.New(fault.Invalid, "syntax error: missing '}' in %q", s)
	}
	inner = inner[:n]
	end := nameEnd(inner)
	value, modifier := getenv(env, inner[:end]), inner[end:]
	switch {
	case end == 0:
		return "", 0, fault.New(fault.Invalid, "syntax error: bad substitution in %q", s)
	case modifier == "":
	case strings.HasPrefix(modifier, ":-"):
		if value == "" {
			value, err = expand(env, modifier[2:])
		}
	case strings.HasPrefix(modifier, ":+"):
		if value != "" {
			value, err = expand(env, modifier[2:])
		}
	default:
		return "", 0, fault.New(fault.Invalid, "unsupported modifier (%s) in substitution", modifier)
	}
	return value, n + 3, err
}
