package userns

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The files of subuid(5) and subgid(5): what IDs users may give away.
const (
	SubUIDs = "/etc/subuid"
	SubGIDs = "/etc/subgid"
)

// Span is some IDs of the host.
type Span struct{ First, Count uint32 }

// Subordinate reads the ranges of a user, in the file's order. A line names the user or
// the number; a user has none without a file. Lines that cannot be read are passed
// over, as the programs do that read this file.
func Subordinate(file string, names ...string) ([]Span, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return subordinate(f, names)
}

func subordinate(r io.Reader, names []string) ([]Span, error) {
	var spans []Span
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		word := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(word) != 3 || !slices.Contains(names, word[0]) || word[0] == "" {
			continue
		}
		first, err := strconv.ParseUint(word[1], 10, 32)
		count, err2 := strconv.ParseUint(word[2], 10, 32)
		// The last ID is none, and nobody may give root away.
		if err != nil || err2 != nil || count == 0 || first == 0 || first >= lastID {
			continue
		}
		spans = append(spans, Span{uint32(first), uint32(min(count, lastID-first))})
	}
	return spans, lines.Err()
}

const lastID = 1<<32 - 1

// Whole maps all of the spans, in their order, to a namespace's IDs from 0 on.
func Whole(spans []Span) (ranges []Range) {
	next := uint32(0)
	for _, s := range spans {
		ranges = append(ranges, Range{ID: next, Host: s.First, Count: s.Count})
		next += s.Count
	}
	return ranges
}

// Free finds n IDs in a row of the spans that none of the taken ranges has, as
// high up as can be.
func Free(spans []Span, taken []Range, n uint32) (first uint32, ok bool) {
	byEnd := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return compare(b.end(), a.end()) })
	down := slices.SortedFunc(slices.Values(taken), func(a, b Range) int { return compare(uint64(b.Host), uint64(a.Host)) })
	for _, s := range byEnd {
		end := s.end()
		for _, t := range down {
			if uint64(t.Host)+uint64(t.Count)+uint64(n) <= end { // there is room above it
				break
			}
			if uint64(t.Host) < end {
				end = uint64(t.Host)
			}
		}
		if end >= uint64(s.First)+uint64(n) {
			return uint32(end - uint64(n)), true
		}
	}
	return 0, false
}

func (s Span) end() uint64 { return uint64(s.First) + uint64(s.Count) }

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Unclaimed finds n IDs behind all that the file gives to somebody, from 100000 on,
// where login.defs(5) begins to give them.
func Unclaimed(file string, n uint32) (first uint32, err error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	next := uint64(100000)
	for line := range strings.Lines(string(text)) {
		if word := strings.Split(strings.TrimSpace(line), ":"); len(word) == 3 {
			spans, _ := subordinate(strings.NewReader(line), word[:1])
			for _, s := range spans {
				next = max(next, s.end())
			}
		}
	}
	if next+uint64(n) > lastID {
		return 0, errors.New("no IDs are left behind those of " + file)
	}
	return uint32(next), nil
}
