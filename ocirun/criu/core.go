package criu

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// Credentials are what a thread of a checkpoint may do when it is restored.
type Credentials struct {
	Name            string // of the image
	Capabilities    uint64 // of all five sets together
	NoNewPrivileges bool
	Filtered        bool // there is a seccomp filter
}

// ReadCredentials reads those of all threads, from CRIU's core-ID.img.
func ReadCredentials(images string) ([]Credentials, error) {
	names, err := filepath.Glob(filepath.Join(images, "core-*.img"))
	if err != nil {
		return nil, fault.New(fault.Internal, "list the checkpoint: %w", err)
	}
	var list []Credentials
	for _, name := range names {
		image, err := os.ReadFile(name)
		if err != nil {
			return nil, fault.New(fault.Internal, "read the checkpoint: %w", err)
		}
		c, err := readCore(image)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s of the checkpoint cannot be read: %w", filepath.Base(name), err)
		}
		c.Name = filepath.Base(name)
		list = append(list, c)
	}
	return list, nil
}

var errUnsure = fault.New(fault.Invalid, "it does not say once what the thread may do")

// readCore reads a CoreEntry. What occurs twice in a protocol buffer is merged by
// rules that readers differ in, so it must not.
func readCore(image []byte) (c Credentials, err error) {
	entry, err := firstEntry(image)
	if err != nil {
		return c, err
	}
	var task, thread, creds []byte
	tasks, threads, modes, credentials := 0, 0, 0, 0
	err = walk(entry, func(number int, _ uint64, value []byte) {
		switch number {
		case 3: // tc
			task = value
			tasks++
		case 5: // thread_core
			thread = value
			threads++
		}
	})
	if err == nil && threads == 0 && tasks == 1 && ended(task) {
		return Credentials{NoNewPrivileges: true, Filtered: true}, nil
	}
	if err != nil || threads != 1 {
		return c, errUnsure
	}
	err = walk(thread, func(number int, n uint64, value []byte) {
		switch number {
		case 10:
			creds = value
			credentials++
		case 11: // seccomp_mode
			c.Filtered = n == 2
			modes++
		}
	})
	if err != nil || credentials != 1 || modes > 1 {
		return c, errUnsure
	}
	words := map[int]int{}
	add := func(number int, n uint64) {
		c.Capabilities |= (n & 0xffffffff) << (32 * min(words[number], 1))
		words[number]++
	}
	err = walk(creds, func(number int, n uint64, value []byte) {
		switch {
		case number == 18:
			c.NoNewPrivileges = n != 0
		case number < 9 || number > 12 && number != 19:
		case value == nil:
			add(number, n)
		default: // packed
			for len(value) > 0 {
				n, size := binary.Uvarint(value)
				if size <= 0 {
					words[number] = 3
					return
				}
				add(number, n)
				value = value[size:]
			}
		}
	})
	if err != nil {
		return c, err
	}
	for _, n := range words {
		if n > 2 {
			return c, errUnsure
		}
	}
	return c, nil
}

// ended tells whether a TaskCoreEntry is one of a process that waits for its parent
// to collect it: it will run nothing.
func ended(task []byte) bool {
	states, dead := 0, false
	err := walk(task, func(number int, n uint64, _ []byte) {
		if number == 1 { // task_state
			states++
			dead = n == 2 || n == 6
		}
	})
	return err == nil && states == 1 && dead
}

// firstEntry is the first message of an image: two magic numbers, then a size
// before each.
func firstEntry(image []byte) ([]byte, error) {
	if len(image) < 12 || uint64(binary.LittleEndian.Uint32(image[8:])) > uint64(len(image)-12) {
		return nil, fault.New(fault.Invalid, "it ends in the middle")
	}
	return image[12 : 12+binary.LittleEndian.Uint32(image[8:])], nil
}

// SetFilter makes the first filter of each chain in a checkpoint's seccomp.img,
// the one that the container began with, this one. What processes have put on top
// of it stays.
func SetFilter(images string, filter []byte) error {
	path := filepath.Join(images, "seccomp.img")
	image, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.Invalid, "the checkpoint has no seccomp filters: %w", err)
	}
	entry, err := firstEntry(image)
	if err != nil {
		return fault.New(fault.Invalid, "seccomp.img of the checkpoint cannot be read: %w", err)
	}
	now, err := rewrite(entry, func(number int, value []byte) ([]byte, bool, error) {
		if number != 1 {
			return value, true, nil
		}
		first := true
		if err := walk(value, func(number int, _ uint64, _ []byte) { first = first && number != 2 }); err != nil || !first {
			return value, true, err
		}
		value, err := rewrite(value, func(number int, value []byte) ([]byte, bool, error) {
			if number == 1 {
				return filter, true, nil
			}
			return value, true, nil
		})
		return value, true, err
	})
	if err != nil {
		return fault.New(fault.Invalid, "seccomp.img of the checkpoint cannot be read: %w", err)
	}
	if bytes.Equal(now, entry) {
		return nil
	}
	out := binary.LittleEndian.AppendUint32(append([]byte(nil), image[:8]...), uint32(len(now)))
	return atomicfile.Write(path, append(out, now...), 0o600)
}

// walk tells of each field of a protocol buffer: a number, or bytes, which are
// not nil.
func walk(message []byte, f func(number int, n uint64, value []byte)) error {
	for len(message) > 0 {
		key, size := binary.Uvarint(message)
		if size <= 0 {
			return fault.New(fault.Invalid, "it ends in the middle")
		}
		number, kind := int(key>>3), key&7
		message = message[size:]
		n, length := uint64(0), 0
		switch kind {
		case 0, 2:
			if n, length = binary.Uvarint(message); length <= 0 {
				return fault.New(fault.Invalid, "it ends in the middle")
			}
		case 1:
			length = 8
		case 5:
			length = 4
		default:
			return fault.New(fault.Invalid, "it has a field of an unknown kind")
		}
		if length > len(message) || kind == 2 && n > uint64(len(message)-length) {
			return fault.New(fault.Invalid, "it ends in the middle")
		}
		message = message[length:]
		if kind != 2 {
			f(number, n, nil)
			continue
		}
		f(number, 0, append([]byte{}, message[:n]...))
		message = message[n:]
	}
	return nil
}
