// Package ps lists a container's processes as ps(1) of the host does, or where that is
// missing as it would.
package ps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
)

// defaultPS are the arguments of ps(1) that nobody needs to give.
const defaultPS = "-ef"

// List shows the processes by the host's ps with the arguments, which are divided at
// spaces. Without the program the default columns are read from proc(5) alone. pids
// is in order.
func List(ctx context.Context, arguments string, pids []int) (wire.TopResponse, error) {
	program, err := exec.LookPath("ps")
	if err != nil && (arguments == "" || arguments == defaultPS) {
		return table(pids), nil
	}
	if err != nil {
		return wire.TopResponse{}, fmt.Errorf("ps: %w", err)
	}
	if arguments == "" {
		arguments = defaultPS
	}
	args := strings.Split(arguments, " ")
	extra := choosesColumns(args)
	if extra { // who chooses columns may leave out the one that is needed
		args = append([]string{"-opid"}, args...)
	}
	// Some options do not go with the quick choice of processes: then all of the
	// host's are listed.
	out, err := runPS(ctx, program, append(slices.Clone(args), "-q"+joinPids(pids)))
	if err != nil {
		out, err = runPS(ctx, program, args)
	}
	if err != nil {
		return wire.TopResponse{}, err
	}
	return parsePS(string(out), pids, extra)
}

func joinPids(pids []int) string {
	words := make([]string, len(pids))
	for i, pid := range pids {
		words[i] = strconv.Itoa(pid)
	}
	return strings.Join(words, ",")
}

// runPS gives what the program lists, or the first line of its complaint.
func runPS(ctx context.Context, program string, args []string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		if line, _, _ := bytes.Cut(failed.Stderr, []byte("\n")); len(line) > 0 {
			return nil, fmt.Errorf("ps: %s", line)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	return out, nil
}

// parsePS reads ps's table and keeps the lines of the processes, and of their
// threads, which follow with - for a PID. With extra the first column is one
// that was not asked for. The last column takes what is left of a line.
func parsePS(text string, pids []int, extra bool) (wire.TopResponse, error) {
	head, rest, _ := strings.Cut(text, "\n")
	titles := strings.Fields(head)
	column := slices.Index(titles, "PID")
	if column < 0 || extra && column != 0 {
		return wire.TopResponse{}, errors.New("Couldn't find PID field in ps output") //nolint:staticcheck // Docker's words
	}
	first := 0
	if extra {
		first = 1
	}
	top := wire.TopResponse{Titles: titles[first:]}
	ours := false
	for line := range strings.Lines(rest) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) <= column {
			return top, fmt.Errorf("Unexpected line in ps output: %q", strings.TrimSpace(line)) //nolint:staticcheck // as the others
		}
		if f[column] != "-" {
			pid, err := strconv.Atoi(f[column])
			if err != nil {
				return top, fmt.Errorf("Unexpected pid '%s': %w", f[column], err) //nolint:staticcheck // Docker's words
			}
			_, ours = slices.BinarySearch(pids, pid)
		}
		if ours {
			top.Processes = append(top.Processes, fit(f[first:], len(top.Titles)))
		}
	}
	return top, nil
}

// fit makes a line as long as the head.
func fit(f []string, columns int) []string {
	if columns == 0 {
		return []string{}
	}
	if len(f) <= columns {
		return append(f, make([]string, columns-len(f))...)
	}
	return append(f[:columns-1:columns-1], strings.Join(f[columns-1:], " "))
}

// valued are ps's options with a value, by their ways of being written: long,
// after a dash, and without one.
const (
	longValued = " cols columns Group group lines pid ppid quick-pid rows sid sort tty User user width "
	dashValued = "CGgOpqstuU"
	bareValued = "pqtUOkN"
)

// choosesColumns tells whether the arguments of ps have the option o, -o or
// --format, which may stand behind others in one word, and not in the value of
// another option.
func choosesColumns(args []string) bool {
	isValue := false
	for _, arg := range args {
		if isValue {
			isValue = false
			continue
		}
		if long, ok := strings.CutPrefix(arg, "--"); ok {
			name, _, given := strings.Cut(long, "=")
			if name == "format" {
				return true
			}
			isValue = !given && strings.Contains(longValued, " "+name+" ")
			continue
		}
		options, valued := arg, bareValued
		if dashed, ok := strings.CutPrefix(arg, "-"); ok {
			options, valued = dashed, dashValued
		}
		for i, c := range options {
			if c == 'o' {
				return true
			}
			if strings.ContainsRune(valued, c) {
				isValue = i == len(options)-1 // else the rest of the word is
				break
			}
		}
	}
	return false
}
