package archive

import (
	"archive/tar"
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	paxXattr   = "SCHILY.xattr."
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// hasDefaultACL tells whether what is made in the directory inherits an access
// list, acl(5).
func hasDefaultACL(dir *os.File) bool {
	n, err := unix.Fgetxattr(int(dir.Fd()), aclDefault, nil)
	return err == nil && n > 0
}

// disinherit takes from what was just made the access lists that the directory
// above handed down: an archive says itself what its entries have.
func (x *extractor) disinherit(fd int) error {
	if !x.inherits {
		return nil
	}
	return errors.Join(dropACL(unix.Fremovexattr(fd, aclAccess)), dropACL(unix.Fremovexattr(fd, aclDefault)))
}

// dropACL passes over the errors of a removal that say there was nothing.
func dropACL(err error) error {
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EACCES) { // EACCES: a default list of a file
		return nil
	}
	return err
}

// setXattrs gives an entry the extended attributes of its PAX records. Those
// of overlayfs itself are refused: they would make a layer point elsewhere. A
// file system that knows no extended attributes is an error only where one is
// needed for the file to work as meant: capabilities and access lists.
func (x *extractor) setXattrs(hdr *tar.Header, set func(name string, value []byte) error) error {
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		data := []byte(value)
		if !ok {
			var err error
			if name, data, err = textACL(key, value); err != nil {
				return refuse(hdr.Name, "has an access list that cannot be read: %v", err)
			}
		}
		if name == "" {
			continue
		}
		if x.Whiteouts != Verbatim && isOverlay(name) {
			return refuse(hdr.Name, "has the attribute %s, which belongs to the overlay file system", name)
		}
		if strings.HasPrefix(name, "trusted.tare.") {
			return refuse(hdr.Name, "has the attribute %s, which belongs to the store of images", name)
		}
		x.inherits = x.inherits || name == aclDefault
		err := set(name, outward(x.Users, name, data))
		needed := !x.Mine && (name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_"))
		if !needed && (errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)) {
			continue
		}
		if err != nil {
			return failed(hdr.Name, err)
		}
	}
	return nil
}

// copyXattrs copies all but overlayfs's own attributes of a directory.
func copyXattrs(to, from int) error {
	buf := make([]byte, 65536) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, buf)
	if err != nil || n == 0 {
		return nil // none, or a file system without
	}
	value := make([]byte, 65536)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			continue
		}
		if err := unix.Fsetxattr(to, name, value[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// textACL turns the access lists that GNU tar writes as text (acl_to_text(3))
// into the kernel's form (linux/posix_acl_xattr.h): a version, then tag,
// permissions and ID of each entry.
func textACL(key, text string) (name string, value []byte, err error) {
	switch key {
	case "SCHILY.acl.access":
		name = aclAccess
	case "SCHILY.acl.default":
		name = aclDefault
	default:
		return "", nil, nil
	}
	var entries []aclEntry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := parseACL(strings.Split(line, ":"))
		if err != nil {
			return "", nil, err
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return "", nil, nil
	}
	slices.SortStableFunc(entries, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	value = binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	return name, value, nil
}

// aclEntry is one entry of an access list in the kernel's terms.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// The tags of owner, group, mask and others; those of a named user or group
// are twice the owner's and the group's.
var aclTags = map[string]uint16{"user": 1, "u": 1, "group": 4, "g": 4, "mask": 0x10, "m": 0x10, "other": 0x20, "o": 0x20}

// parseACL reads tag:name:rwx, with the numeric ID as a fourth field where tar
// knew the name.
func parseACL(fields []string) (aclEntry, error) {
	e := aclEntry{id: 0xffffffff, tag: aclTags[fields[0]]}
	if len(fields) < 3 || e.tag == 0 {
		return e, errors.New(strconv.Quote(strings.Join(fields, ":")))
	}
	if qualifier := fields[1]; qualifier != "" && e.tag <= 4 {
		if len(fields) > 3 {
			qualifier = fields[3]
		}
		id, err := strconv.ParseUint(qualifier, 10, 32)
		if err != nil {
			return e, errors.New("no ID for " + strconv.Quote(fields[1]))
		}
		e.tag, e.id = e.tag*2, uint32(id)
	}
	for i, c := range []byte("rwx") {
		if strings.IndexByte(fields[2], c) >= 0 {
			e.perm |= 4 >> i
		}
	}
	return e, nil
}
