package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/tarehq/tare/container/users"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
)

const (
	// defaultAuto is podman's name, which need be no user's.
	defaultAuto = "containers"
	// remapUser is dockerd's user of --userns-remap=default.
	remapUser = "dockremap"
	// remapSize is how many IDs that user is given.
	remapSize = 1 << 16
)

// checkUsers refuses what no user can be called.
func (c *containerOptions) checkUsers() error {
	if strings.Count(c.UsernsRemap, ":") > 1 || strings.HasPrefix(c.UsernsRemap, ":") {
		return fault.New(fault.Invalid, "invalid user/group specification in --userns-remap: %q: want USER[:GROUP] or default", c.UsernsRemap)
	}
	if c.UsernsAuto == "" {
		c.UsernsAuto = defaultAuto
	}
	if strings.ContainsAny(c.UsernsAuto, ": \t\n") {
		return fault.New(fault.Invalid, "invalid --userns-auto %q: want the name of a line in %s", c.UsernsAuto, userns.SubUIDs)
	}
	c.ids = users.IDs{Auto: c.UsernsAuto, SubUIDs: userns.SubUIDs, SubGIDs: userns.SubGIDs}
	return nil
}

// remap finds what IDs containers have outside, and makes the user of "default".
func (c *containerOptions) remap(log *slog.Logger) error {
	who := c.UsernsRemap
	switch who {
	case "":
		return nil
	case "default":
		who = remapUser
		if err := makeRemapUser(); err != nil {
			return err
		}
	}
	owner, group, err := lookUpRemap(who)
	if err != nil {
		return err
	}
	if owner.Uid == "0" {
		log.Warn("user namespaces: root cannot be remapped with itself; user namespaces are OFF")
		return nil
	}
	m := &userns.Map{}
	for _, kind := range []struct {
		file  string
		names []string
		to    *[]userns.Range
	}{
		{userns.SubUIDs, []string{owner.Username, owner.Uid}, &m.UIDs},
		{userns.SubGIDs, []string{group.Name, owner.Username, owner.Uid}, &m.GIDs},
	} {
		spans, err := userns.Subordinate(kind.file, kind.names...)
		if err != nil {
			return err
		}
		if len(spans) == 0 {
			return fault.New(fault.Invalid, "can't create ID mappings: no ranges found for user %q in %s: add a line %s:100000:65536, or of other IDs that nobody has", owner.Username, kind.file, owner.Username)
		}
		*kind.to = userns.Whole(spans)
	}
	c.ids.Remap = m
	return nil
}

// lookUpRemap reads USER[:GROUP], by name or number. Without a group it is the one of
// the user's name or, for a number, of the same number.
func lookUpRemap(who string) (*user.User, *user.Group, error) {
	name, groupName, hasGroup := strings.Cut(who, ":")
	owner, err := lookUp(name, user.LookupId, user.Lookup)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "error during uid lookup for %q: %w", name, err)
	}
	if !hasGroup {
		groupName = name
	}
	group, err := lookUp(groupName, user.LookupGroupId, user.LookupGroup)
	if err != nil && !hasGroup {
		group, err = user.LookupGroupId(owner.Gid)
	}
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "error during gid lookup for %q: %w", groupName, err)
	}
	return owner, group, nil
}

func lookUp[T any](who string, byID, byName func(string) (T, error)) (T, error) {
	if _, err := strconv.ParseUint(who, 10, 32); err == nil {
		return byID(who)
	}
	return byName(who)
}

// makeRemapUser makes the user and the group dockremap and gives them IDs, if they
// are not there.
func makeRemapUser() error {
	var unknown user.UnknownUserError
	if _, err := user.Lookup(remapUser); errors.As(err, &unknown) {
		if err := shadow("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", remapUser); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	for file, flag := range map[string]string{userns.SubUIDs: "--add-subuids", userns.SubGIDs: "--add-subgids"} {
		spans, err := userns.Subordinate(file, remapUser)
		if err != nil {
			return err
		}
		if len(spans) > 0 {
			continue
		}
		first, err := userns.Unclaimed(file, remapSize)
		if err != nil {
			return err
		}
		if err := shadow("usermod", flag, fmt.Sprintf("%d-%d", first, first+remapSize-1), remapUser); err != nil {
			return err
		}
	}
	return nil
}

// shadow runs a program of shadow(5)'s.
func shadow(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if said == "" {
		said = err.Error()
	}
	return fault.New(fault.Unavailable, "--userns-remap=default makes the user %s, and %s failed: %s: make the user and its lines in %s and %s yourself",
		remapUser, program, said, userns.SubUIDs, userns.SubGIDs)
}
