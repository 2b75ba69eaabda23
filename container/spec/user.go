package spec

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

// Identity is whom a process runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Home     string   // from the image's passwd file, "/" without an entry
}

// process has the user's own group among the supplementary ones too, or a
// set-group-ID program could shed it where a group is granted less than others
// (CVE-2022-36109).
func (u Identity) process() specs.User {
	groups := []uint32{u.GID}
	for _, g := range u.Groups {
		if g != u.GID {
			groups = append(groups, g)
		}
	}
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: groups}
}

// maxID is the largest ID that Docker takes.
const maxID = 1<<31 - 1

type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// User resolves "user", "user:group" or the numbers of either against the
// image's passwd and group files, with the supplementary groups that the
// group file gives to the user and those of extra (--group-add). Lines that
// are not well-formed are passed over; the files are the image's and may hold
// anything.
func User(who string, passwd, group []byte, extra []string) (Identity, error) {
	userPart, groupPart, hasGroup := strings.Cut(who, ":")
	if userPart == "" {
		userPart = "0"
	}
	id := Identity{Home: "/"}
	users, groups := parsePasswd(passwd), parseGroup(group)

	number, numeric := parseID(userPart)
	i := slices.IndexFunc(users, func(u passwdEntry) bool { return u.name == userPart })
	if i < 0 && numeric {
		i = slices.IndexFunc(users, func(u passwdEntry) bool { return u.uid == number })
	}
	name := ""
	switch {
	case i >= 0:
		u := users[i]
		id.UID, id.GID, name = u.uid, u.gid, u.name
		if u.home != "" {
			id.Home = u.home
		}
	case numeric:
		id.UID = number
	case isNumber(userPart):
		return id, outOfRange()
	default:
		return id, fault.New(fault.Invalid, "unable to find user %s: no matching entries in passwd file", userPart)
	}

	if hasGroup && groupPart != "" {
		gid, err := groupID(groupPart, groups)
		if err != nil {
			return id, err
		}
		id.GID = gid
	} else if name != "" {
		for _, g := range groups {
			if slices.Contains(g.members, name) && !slices.Contains(id.Groups, g.gid) {
				id.Groups = append(id.Groups, g.gid)
			}
		}
	}
	for _, e := range extra {
		gid, err := groupID(e, groups)
		if err != nil {
			return id, err
		}
		if !slices.Contains(id.Groups, gid) {
			id.Groups = append(id.Groups, gid)
		}
	}
	return id, nil
}

func groupID(s string, groups []groupEntry) (uint32, error) {
	for _, g := range groups {
		if g.name == s {
			return g.gid, nil
		}
	}
	if gid, ok := parseID(s); ok {
		return gid, nil
	}
	if isNumber(s) {
		return 0, outOfRange()
	}
	return 0, fault.New(fault.Invalid, "unable to find group %s: no matching entries in group file", s)
}

// isNumber tells of a number of any size, signed or not.
func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

func outOfRange() error {
	return fault.New(fault.Invalid, "uids and gids must be in range 0-%d", maxID)
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.Atoi(s) // which takes a sign
	return uint32(n), err == nil && n >= 0 && n <= maxID
}

// lines yields the fields of each line of a passwd-like file, passwd(5).
func lines(data []byte, fields int, yield func([]string)) {
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if f := strings.Split(line, ":"); len(f) >= fields {
			yield(f)
		}
	}
}

func parsePasswd(data []byte) (list []passwdEntry) {
	lines(data, 4, func(f []string) {
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			return
		}
		e := passwdEntry{name: f[0], uid: uid, gid: gid}
		if len(f) > 5 {
			e.home = f[5]
		}
		list = append(list, e)
	})
	return list
}

func parseGroup(data []byte) (list []groupEntry) {
	lines(data, 3, func(f []string) {
		gid, ok := parseID(f[2])
		if !ok {
			return
		}
		e := groupEntry{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			e.members = strings.Split(f[3], ",")
		}
		list = append(list, e)
	})
	return list
}
