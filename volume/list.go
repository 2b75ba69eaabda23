package volume

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/label"
)

// filters are Docker's: each key with values of which one has to fit.
type filters map[string]map[string]bool

// List tells of the volumes that fit the filters dangling, driver, label and name,
// and what is wrong with plugins that might have more.
func (s *Service) List(ctx context.Context, wanted map[string]map[string]bool) (list []wire.Volume, warnings []string, err error) {
	f := filters(wanted)
	if err := f.check("dangling", "driver", "label", "name"); err != nil {
		return nil, nil, err
	}
	dangling, either, err := f.boolean("dangling")
	if err != nil {
		return nil, nil, err
	}
	list = []wire.Volume{}
	var users map[string][]string
	if !either {
		users = s.usersOf()
	}
	found, warnings := s.everything(ctx)
	for _, v := range found {
		if f.fit(&v) && (either || dangling == (len(users[v.Name]) == 0)) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b wire.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return list, warnings, nil
}

// everything is all volumes: those with a record, and what plugins have beside
// them. One that its plugin has no more is left out.
func (s *Service) everything(ctx context.Context) ([]wire.Volume, []string) {
	answers, warnings := s.listExternal(ctx)
	told := map[string]*listed{}
	for i := range answers {
		if answers[i].err == nil {
			told[answers[i].driver] = &answers[i]
		}
	}
	records := s.all()
	list := make([]wire.Volume, 0, len(records))
	known := make(map[string]bool, len(records))
	for _, r := range records {
		known[r.Name] = true
		plugin := told[r.Driver]
		if r.Driver == Local || plugin == nil {
			list = append(list, s.wire(r, nil))
		} else if v := plugin.volumes[r.Name]; v != nil {
			list = append(list, s.wire(r, v))
		}
	}
	for _, plugin := range told {
		for name, v := range plugin.volumes {
			if !known[name] {
				known[name] = true
				list = append(list, s.wire(Record{Name: name, Driver: v.driver}, v))
			}
		}
	}
	return list, warnings
}

// check refuses filters that are not there, in Docker's words.
func (f filters) check(accepted ...string) error {
	for key := range f {
		if !slices.Contains(accepted, key) {
			return fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// boolean reads a filter that is true or false; either if it is not there.
func (f filters) boolean(key string) (value, either bool, err error) {
	values := f[key]
	if len(values) == 0 {
		return false, true, nil
	}
	var words []string
	for v := range values {
		words = append(words, v)
	}
	slices.Sort(words)
	value, err = strconv.ParseBool(words[0])
	if err != nil || len(words) > 1 {
		return false, false, fault.New(fault.Invalid, "invalid filter '%s=[%s]'", key, strings.Join(words, " "))
	}
	return value, false, nil
}

// fit tells whether a volume is what is looked for by name, driver and labels. All
// labels have to be there, of the rest one.
func (f filters) fit(v *wire.Volume) bool {
	any := func(key string, fits func(string) bool) bool {
		if len(f[key]) == 0 {
			return true
		}
		for value := range f[key] {
			if fits(value) {
				return true
			}
		}
		return false
	}
	for condition := range f["label"] {
		if !label.Has(v.Labels, condition) {
			return false
		}
	}
	for condition := range f["label!"] {
		if label.Has(v.Labels, condition) {
			return false
		}
	}
	return any("name", func(pattern string) bool {
		matches, err := regexp.MatchString(pattern, v.Name)
		return matches && err == nil
	}) &&
		any("driver", func(value string) bool { return v.Driver == value })
}
