package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// TidyGroups takes from a checkpoint's cgroup.img all groups below those of the
// processes, and all limits, of hierarchies that are not the container's own. A
// process that is in the root of one, as all are that nobody moved, has CRIU note
// every group of the host there, and make it again. It also takes out who is
// frozen: CRIU itself may be in the group by then. A name that leads out of the
// hierarchies is refused: CRIU would make, and write to, any file of the host.
func TidyGroups(path string, own func(controller string) bool) error {
	image, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil // not managed
	}
	if err != nil {
		return fault.New(fault.Internal, "read the checkpoint: %w", err)
	}
	const head = 12 // two magic numbers and the size of the only entry
	if len(image) < head || int(binary.LittleEndian.Uint32(image[8:])) != len(image)-head {
		return fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew", path)
	}
	var homes []string
	entry, err := rewrite(image[head:], func(number int, value []byte) ([]byte, bool, error) {
		if number != 1 { // CgroupEntry.sets
			return value, true, nil
		}
		return value, true, checkSet(value, &homes)
	})
	if err == nil {
		entry, err = rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
			if number != 2 { // controllers
				return value, true, nil
			}
			value, err := tidyController(value, own, homes)
			return value, true, err
		})
	}
	if err != nil {
		return fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew: %w", path, err)
	}
	if bytes.Equal(entry, image[head:]) {
		return nil
	}
	tidy := binary.LittleEndian.AppendUint32(append([]byte(nil), image[:8]...), uint32(len(entry)))
	return atomicfile.Write(path, append(tidy, entry...), 0o600)
}

// NotesGroups tells whether a checkpoint's cgroup.img says which groups there were,
// which one does not that was made in CRIU's mode "ignore".
func NotesGroups(path string) (noted bool, err error) {
	image, err := os.ReadFile(path)
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
		return false, fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew: %w", path, err)
	}
	return noted, nil
}

// checkSet is about one CgSetEntry, where processes are. It adds the groups to homes.
func checkSet(entry []byte, homes *[]string) error {
	_, err := rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number != 2 { // ctls
			return value, true, nil
		}
		_, err := rewrite(value, func(number int, value []byte) ([]byte, bool, error) {
			if number == 2 { // CgMemberEntry.path
				*homes = append(*homes, string(value))
			}
			return value, true, within(value, number == 2)
		})
		return value, true, err
	})
	return err
}

// within refuses the name of a group, or of a file of one, that is not below it.
func within(name []byte, group bool) error {
	path := string(name)
	if slices.Contains(strings.Split(path, "/"), "..") || !group && strings.Contains(path, "/") {
		return fault.New(fault.Invalid, "the control group's name %q leads elsewhere", path)
	}
	return nil
}

// tidyController is about one CgControllerEntry. A group in which no process is, nor
// in one above it, is somebody else's.
func tidyController(entry []byte, own func(string) bool, homes []string) ([]byte, error) {
	ours := false
	_, err := rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number != 1 { // cnames
			return value, true, nil
		}
		ours = ours || own(string(value))
		return value, true, within(value, false)
	})
	if err != nil {
		return nil, err
	}
	return rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number != 2 { // dirs
			return value, true, nil
		}
		value, err := tidyDir(value, ours, 0)
		return value, err != nil || !ours || inhabited(value, homes), err
	})
}

// inhabited tells whether a CgroupDirEntry is one of homes, or below one that is not
// the root.
func inhabited(entry []byte, homes []string) (found bool) {
	_ = walk(entry, func(number int, _ uint64, name []byte) {
		found = found || number == 1 && slices.ContainsFunc(homes, func(home string) bool { // dir_name
			return home != "/" && (string(name) == home || strings.HasPrefix(string(name), home+"/"))
		})
	})
	return found
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
