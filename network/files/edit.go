package files

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
)

// maxHosts bounds a hosts file, which the container may write, in bytes.
const maxHosts = 1 << 20

// Edit changes a file of a container that runs. It is mounted in the container,
// so it is the same file that has to change.
func Edit(path string, change func(old []byte) []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err != nil {
		return err
	}
	if len(old) > maxHosts {
		return fault.New(fault.Invalid, "%s is longer than %d bytes", path, maxHosts)
	}
	text := change(slices.Clone(old))
	if bytes.Equal(old, text) {
		return nil
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// Readdress changes the address of a name in a hosts file, and takes its line out when there
// is none any more.
func Readdress(path, name string, addr netip.Addr) error {
	return EditLines(path, func(fields [][]byte) (line string, keep bool) {
		if !slices.ContainsFunc(fields[1:], func(f []byte) bool { return string(f) == name }) {
			return "", true
		}
		if !addr.IsValid() {
			return "", false
		}
		return addr.String() + "\t" + string(bytes.Join(fields[1:], []byte(" "))) + "\n", true
	})
}

// EditLines is Edit by lines of an address and its names: each is kept, replaced
// or left out. Comments and what is none of these stay.
func EditLines(path string, change func(fields [][]byte) (line string, keep bool)) error {
	return Edit(path, func(old []byte) []byte {
		var text bytes.Buffer
		for line := range bytes.Lines(old) {
			fields := bytes.Fields(line)
			if len(fields) > 1 && fields[0][0] != '#' {
				other, keep := change(fields)
				if !keep {
					continue
				}
				if other != "" {
					line = []byte(other)
				}
			}
			text.Write(line)
		}
		return text.Bytes()
	})
}
