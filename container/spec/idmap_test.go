package spec

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
)

func TestIDMap(t *testing.T) {
	both := func(r ...IDRange) *IDMap { return &IDMap{r, r} }
	for text, want := range map[string]*IDMap{
		"idmap":                                 {},
		"idmap=uids=0-100000-65536":             both(IDRange{0, 100000, 65536}),
		"idmap=uids=0-1-10#10-11-10;gids=0-5-1": {[]IDRange{{0, 1, 10}, {10, 11, 10}}, []IDRange{{0, 5, 1}}},
		"idmap=gids=0-5-1;uids=1000-0-1":        {[]IDRange{{1000, 0, 1}}, []IDRange{{0, 5, 1}}},
		"idmap=uids=4294967294-0-1":             both(IDRange{4294967294, 0, 1}),
		"idmap=":                                nil,
		"idmap=gids=0-1-1":                      nil,
		"idmap=uids=0-1":                        nil,
		"idmap=uids=0-1-0":                      nil,
		"idmap=uids=0-1-x":                      nil,
		"idmap=uids=0--1-1":                     nil,
		"idmap=uids=4294967295-0-1":             nil,
		"idmap=uids=0-4294967295-1":             nil,
		"idmap=uids=0-1-10#5-20-1":              nil,
		"idmap=uids=0-1-10#20-5-1":              nil,
		"idmap=uids=0-1-1;uids=0-1-1":           nil,
		"idmap=users=0-1-1":                     nil,
		"idmap=uids=" + strings.Repeat("1-2-3#", 400) + "1-2-3": nil,
	} {
		got, err := parseIDMap(text)
		if want == nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%.60s: %+v, %v", text, got, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// One owner becomes one user, and nobody else either of the two.
func TestIDsFor(t *testing.T) {
	for _, c := range []struct {
		owner, user uint32
		want        []IDRange
	}{
		{1000, 0, []IDRange{{1000, 0, 1}, {1, 1, 999}, {1001, 1001, lastID - 1001}}},
		{0, 33, []IDRange{{0, 33, 1}, {1, 1, 32}, {34, 34, lastID - 34}}},
		{5, 6, []IDRange{{5, 6, 1}, {0, 0, 5}, {7, 7, lastID - 7}}},
		{lastID - 1, 0, []IDRange{{lastID - 1, 0, 1}, {1, 1, lastID - 2}}},
	} {
		if got := idsFor(c.owner, c.user); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d as %d: %v", c.owner, c.user, got)
		}
	}
}

// A map of a mount in a user namespace names the IDs outside of it, and none that the
// namespace does not have.
func TestMapWithinUsers(t *testing.T) {
	users := []userns.Range{{ID: 0, Host: 1000, Count: 10}, {ID: 10, Host: 5000, Count: 10}}
	for _, c := range []struct{ list, want []IDRange }{
		{[]IDRange{{Disk: 50, Shown: 0, Count: 1}}, []IDRange{{50, 1000, 1}}},
		{[]IDRange{{Disk: 50, Shown: 5, Count: 10}}, []IDRange{{50, 1005, 5}, {55, 5000, 5}}},
		{[]IDRange{{Disk: 0, Shown: 15, Count: 100}}, []IDRange{{0, 5005, 5}}},
		{[]IDRange{{Disk: 0, Shown: 20, Count: 100}}, nil},
		{idsFor(7, 0), []IDRange{{7, 1000, 1}, {1, 1001, 6}, {8, 1008, 2}, {10, 5000, 10}}},
	} {
		if got := within(c.list, users); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.list, got, c.want)
		}
	}
}
