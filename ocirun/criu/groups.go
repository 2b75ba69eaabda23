package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// TidyGroups makes of a checkpoint's cgroup.img one that names, in each hierarchy, the
// group that all its processes are in or below, and what is below that where the
// hierarchy is the container's own. CRIU puts that group's new name in the place of
// its old one; any other that it finds there it would make on the host as it is called.
// A process that is in the root of a hierarchy, as all are that nobody moved, has it
// note every group of the host. It also takes out who is frozen: CRIU itself may be in
// the group by then. A name that leads out of the hierarchies is refused.
func TidyGroups(file string, own func(controller string) bool) error {
	image, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil // not managed
	}
	if err != nil {
		return fault.New(fault.Internal, "read the checkpoint: %w", err)
	}
	const head = 12 // two magic numbers and the size of the only entry
	if len(image) < head || int(binary.LittleEndian.Uint32(image[8:])) != len(image)-head {
		return fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew", file)
	}
	noted, err := NotesGroups(file)
	if err != nil {
		return err
	}
	var homes []home
	entry, err := rewrite(image[head:], func(number int, value []byte) ([]byte, bool, error) {
		if number != 1 { // CgroupEntry.sets
			return value, true, nil
		}
		return value, true, readSet(value, &homes)
	})
	if err == nil {
		var known []string
		entry, err = rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
			if number != 2 { // controllers
				return value, true, nil
			}
			names, err := controllersOf(value)
			if err != nil {
				return nil, false, err
			}
			for _, name := range names {
				if slices.Contains(known, name) { // CRIU renames groups once
					return nil, false, fault.New(fault.Invalid, "it has the control groups of %q twice", name)
				}
				known = append(known, name)
			}
			value, err = tidyController(value, names, slices.ContainsFunc(names, own), homes, noted)
			return value, true, err
		})
	}
	if err != nil {
		return fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew: %w", file, err)
	}
	if bytes.Equal(entry, image[head:]) {
		return nil
	}
	tidy := binary.LittleEndian.AppendUint32(append([]byte(nil), image[:8]...), uint32(len(entry)))
	return atomicfile.Write(file, append(tidy, entry...), 0o600)
}

// NotesGroups tells whether a checkpoint's cgroup.img says which groups there were,
// which one does not that was made in CRIU's mode "ignore".
func NotesGroups(file string) (noted bool, err error) {
	image, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fault.New(fault.Internal, "read the checkpoint: %w", err)
	}
	entry, err := firstEntry(image)
	var inner error
	if err == nil {
		err = walk(entry, func(number int, _ uint64, value []byte) {
			if number == 2 { // CgroupEntry.controllers
				inner = errors.Join(inner, walk(value, func(number int, _ uint64, _ []byte) { noted = noted || number == 2 })) // dirs
			}
		})
	}
	if err = errors.Join(err, inner); err != nil {
		return false, fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew: %w", file, err)
	}
	return noted, nil
}

// within refuses the name of a group, or of a file of one, that is not below it.
func within(name []byte, group bool) error {
	text := string(name)
	if slices.Contains(strings.Split(text, "/"), "..") || !group && strings.Contains(text, "/") {
		return fault.New(fault.Invalid, "the control group's name %q leads elsewhere", text)
	}
	return nil
}

// controllersOf are the names of a CgControllerEntry.
func controllersOf(entry []byte) (names []string, err error) {
	var inner error
	err = walk(entry, func(number int, _ uint64, value []byte) {
		if number == 1 { // cnames
			names = append(names, string(value))
			inner = errors.Join(inner, within(value, false))
			if bytes.ContainsRune(value, ',') { // an option of the mount
				inner = errors.Join(inner, fault.New(fault.Invalid, "%q is no controller", value))
			}
		}
	})
	return names, errors.Join(err, inner)
}

// tidyController is about one CgControllerEntry, of an image that notes groups or not.
func tidyController(entry []byte, names []string, ours bool, homes []home, noted bool) ([]byte, error) {
	top, err := topOf(homes, names, ours)
	if err != nil {
		return nil, err
	}
	var fields, below []byte // of the one group that is kept
	out, err := rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number != 2 { // dirs
			return value, true, nil
		}
		value, err := tidyDir(value, ours, 0)
		if err != nil {
			return nil, false, err
		}
		name, rest, err := takeName(value)
		inner, inside := strings.CutPrefix(name, top+"/")
		switch {
		case name == top:
			fields = append(fields, rest...)
		case ours && inside && top != "/":
			below = appendField(below, 2, append(appendField(nil, 1, []byte(inner)), rest...)) // children
		}
		return nil, false, err
	})
	if err != nil || !noted || top == "" || ours && top == "/" {
		return out, err
	}
	only := append(appendField(nil, 1, []byte(top[1:])), fields...)
	return appendField(out, 2, append(only, below...)), nil
}

// takeName parts a CgroupDirEntry from its name, which it gives as a path.
func takeName(entry []byte) (name string, rest []byte, err error) {
	rest, err = rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number == 1 { // dir_name
			name = string(value)
		}
		return value, number != 1, nil
	})
	return path.Clean("/" + name), rest, err
}

// appendField appends a field of bytes to a protocol buffer.
func appendField(message []byte, number int, value []byte) []byte {
	message = binary.AppendUvarint(message, uint64(number)<<3|2)
	return append(binary.AppendUvarint(message, uint64(len(value))), value...)
}

// tidyDir is about one CgroupDirEntry.
func tidyDir(entry []byte, ours bool, depth int) ([]byte, error) {
	if depth > 100 {
		return nil, fault.New(fault.Invalid, "control groups are nested too deeply")
	}
	return rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		switch {
		case number == 1: // dir_name
			return value, true, within(value, true)
		case number != 2 && number != 3:
			return value, true, nil
		case !ours:
			return nil, false, nil
		case number == 2: // children
			value, err := tidyDir(value, ours, depth+1)
			return value, true, err
		}
		frozen := false // properties
		_, err := rewrite(value, func(number int, value []byte) ([]byte, bool, error) {
			if number != 1 { // of CgroupPropEntry, whose name it is
				return value, true, nil
			}
			frozen = frozen || string(value) == "freezer.state" || string(value) == "cgroup.freeze"
			return value, true, within(value, false)
		})
		return value, !frozen, err
	})
}

// rewrite copies a protocol buffer, https://protobuf.dev/programming-guides/encoding,
// with each field of bytes as f gives it, or without it.
func rewrite(message []byte, f func(number int, value []byte) (now []byte, keep bool, err error)) ([]byte, error) {
	errCut := fault.New(fault.Invalid, "it ends in the middle")
	out := make([]byte, 0, len(message))
	for len(message) > 0 {
		key, n := binary.Uvarint(message)
		if n <= 0 {
			return nil, errCut
		}
		size := 0
		switch key & 7 {
		case 0: // a number
			_, size = binary.Uvarint(message[n:])
			if size <= 0 {
				return nil, errCut
			}
		case 1:
			size = 8
		case 5:
			size = 4
		case 2: // bytes
			length, m := binary.Uvarint(message[n:])
			if m <= 0 || length > uint64(len(message)-n-m) {
				return nil, errCut
			}
			end := n + m + int(length)
			now, keep, err := f(int(key>>3), message[n+m:end])
			if err != nil {
				return nil, err
			}
			if keep {
				out = append(out, message[:n]...)
				out = append(binary.AppendUvarint(out, uint64(len(now))), now...)
			}
			message = message[end:]
			continue
		default:
			return nil, fault.New(fault.Invalid, "it has a field of an unknown kind")
		}
		if n+size > len(message) {
			return nil, errCut
		}
		out = append(out, message[:n+size]...)
		message = message[n+size:]
	}
	return out, nil
}
