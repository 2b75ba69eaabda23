package archive

import (
	"archive/tar"
	"encoding/binary"

	"github.com/tarehq/tare/internal/userns"
)

// settle has an entry's owners be those outside of the user namespace.
func (x *extractor) settle(hdr *tar.Header) {
	hdr.Uid, hdr.Gid = int(orRoot(x.Users.UIDs, uint32(hdr.Uid))), int(orRoot(x.Users.GIDs, uint32(hdr.Gid)))
}

// orRoot is what an ID is outside, or root for one that the namespace does not have.
func orRoot(ranges []userns.Range, id uint32) uint32 {
	host, ok := userns.Outside(ranges, id)
	if !ok {
		host, _ = userns.Outside(ranges, 0)
	}
	return host
}

func orNobody(ranges []userns.Range, host uint32) uint32 {
	id, _ := userns.Inside(ranges, host)
	return id
}

// The attributes that name IDs beside the owners: linux/capability.h, struct vfs_ns_cap_data, and
// linux/posix_acl_xattr.h. A file's capabilities count where the root is theirs.
const (
	capabilities = "security.capability"

	capMask     = 0xff000000
	capVersion2 = 0x02000000 // 20 bytes, of the host's root
	capVersion3 = 0x03000000 // 24, of a root that is named last
	capSize     = 20

	aclHead, aclSize  = 4, 8
	aclUser, aclGroup = 2, 8
)

// outward changes an attribute with a user namespace's IDs to one with those outside.
func outward(m *userns.Map, name string, value []byte) []byte {
	switch {
	case m == nil:
	case name == capabilities && len(value) == capSize:
		root, _ := m.Root()
		return reversion(value, capVersion3, binary.LittleEndian.AppendUint32(nil, root))
	case name == aclAccess || name == aclDefault:
		return mapACL(value, m, orRoot)
	}
	return value
}

// inward does the opposite.
func inward(m *userns.Map, name string, value string) string {
	switch {
	case m == nil:
	case name == capabilities && len(value) == capSize+4:
		if root, _ := m.Root(); binary.LittleEndian.Uint32([]byte(value[capSize:])) == root {
			return string(reversion([]byte(value[:capSize]), capVersion2, nil))
		}
	case name == aclAccess || name == aclDefault:
		return string(mapACL([]byte(value), m, orNobody))
	}
	return value
}

// reversion gives capabilities another version, and what that has at its end.
func reversion(value []byte, version uint32, root []byte) []byte {
	out := append([]byte{}, value...)
	head := binary.LittleEndian.Uint32(out)
	binary.LittleEndian.PutUint32(out, head&^uint32(capMask)|version)
	return append(out, root...)
}

// mapACL changes the users and groups that an access list names.
func mapACL(value []byte, m *userns.Map, to func([]userns.Range, uint32) uint32) []byte {
	out := append([]byte{}, value...)
	for at := aclHead; at+aclSize <= len(out); at += aclSize {
		id := out[at+4 : at+8]
		var ranges []userns.Range
		switch binary.LittleEndian.Uint16(out[at:]) {
		case aclUser:
			ranges = m.UIDs
		case aclGroup:
			ranges = m.GIDs
		default:
			continue
		}
		binary.LittleEndian.PutUint32(id, to(ranges, binary.LittleEndian.Uint32(id)))
	}
	return out
}
