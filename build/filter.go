package build

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Mutable tells whether builds go on changing it.
func (u Usage) Mutable() bool { return u.Type == TypeMount || u.Type == TypeLocal }

// ParseFilters reads filters of the cache as containerd writes them: each is a list of
// conditions which all hold, and one of the filters has to fit.
func ParseFilters(filters []string) (func(Usage) bool, error) {
	var any [][]condition
	for _, f := range filters {
		var all []condition
		for _, text := range strings.Split(f, ",") {
			if text == "" { // buildx writes one even if it has nothing to say
				continue
			}
			c, err := readCondition(text)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
		any = append(any, all)
	}
	return func(u Usage) bool {
		for _, all := range any {
			fits := true
			for _, c := range all {
				fits = fits && c.fits(u)
			}
			if fits {
				return true
			}
		}
		return len(any) == 0
	}, nil
}

type condition struct {
	key, value string
	not        bool
}

func (c condition) fits(u Usage) bool {
	switch c.key {
	case "mutable", "immutable":
		return (u.Mutable() == (c.key == "mutable")) != (c.not || c.value == "false")
	}
	return Fits(u, c.key, c.value) != c.not
}

func readCondition(text string) (condition, error) {
	c := condition{key: text}
	for _, operator := range []string{"~=", "!=", "==", "="} {
		if key, value, found := strings.Cut(text, operator); found {
			c = condition{key, strings.Trim(value, `"`), operator == "!="}
			break
		}
	}
	if c.key == "parents" {
		c.key = "parent"
	}
	switch c.key {
	case "id", "parent", "type", "description", "inuse", "shared", "private", "mutable", "immutable":
		return c, nil
	}
	return c, fault.New(fault.Invalid, "the cache has no filter %q: filter by id, parents, type, description, inuse, shared, private, mutable or immutable", text)
}

// Fits tells whether a filter of the API fits.
func Fits(u Usage, name, value string) bool {
	is, err := strconv.ParseBool(value)
	yes := is || err != nil || value == ""
	switch name {
	case "id":
		return strings.HasPrefix(u.ID, value)
	case "parent":
		return slices.Contains(u.Parents, value)
	case "type":
		return u.Type == value
	case "description":
		return strings.Contains(u.Description, value)
	case "inuse":
		return u.InUse == yes
	case "shared":
		return u.Shared == yes
	case "private":
		return u.Shared != yes
	}
	return name == "label!" // a part of the cache has no labels
}
