package container

import (
	"bufio"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/tarehq/tare/fault"
)

// checkEnv completes a variable without a value from the environment; one that
// is not set there is sent as it is, which takes an image's variable away.
func checkEnv(s string) (string, error) {
	key, _, ok := strings.Cut(s, "=")
	if key == "" {
		return "", fault.New(fault.Invalid, "invalid environment variable: %s", s)
	}
	if value, set := os.LookupEnv(key); !ok && set {
		return key + "=" + value, nil
	}
	return s, nil
}

// environment reads the files and adds the variables given one by one.
func environment(files, single []string) ([]string, error) {
	var env []string
	for _, path := range files {
		lines, err := readLines(path, "env", func(key string) (string, bool) {
			value, ok := os.LookupEnv(key)
			return key + "=" + value, ok
		})
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	return append(env, single...), nil
}

// readLines reads a file of KEY=VALUE lines. Empty lines and those that start
// with # are skipped, space before a key too. bare decides about a key without
// a value.
func readLines(path, kind string, bare func(key string) (string, bool)) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		text := s.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		if !utf8.ValidString(text) {
			return nil, fault.New(fault.Invalid, "invalid %s file (%s): invalid utf8 bytes at line %d: %q", kind, path, n, text)
		}
		text = strings.TrimLeft(text, " \t\n\v\f\r")
		if text == "" || text[0] == '#' {
			continue
		}
		key, _, ok := strings.Cut(text, "=")
		switch {
		case key == "":
			return nil, fault.New(fault.Invalid, "invalid %s file (%s): no variable name on line '%s'", kind, path, text)
		case strings.ContainsAny(key, " \t"):
			return nil, fault.New(fault.Invalid, "invalid %s file (%s): variable '%s' contains whitespaces", kind, path, key)
		}
		if !ok {
			if text, ok = bare(key); !ok {
				continue
			}
		}
		lines = append(lines, text)
	}
	if err := s.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "invalid %s file (%s): %w", kind, path, err)
	}
	return lines, nil
}
