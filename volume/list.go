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
	found, warnings, err := s.fitting(ctx, wanted)
	list = make([]wire.Volume, len(found))
	for i, v := range found {
		list[i] = s.wire(v.Record, v.told)
	}
	return list, warnings, err
}

// Brief is what a list of names shows of a volume.
type Brief struct{ Driver, Name string }

// Brief is List for who wants no more.
func (s *Service) Brief(ctx context.Context, wanted map[string]map[string]bool) (list []Brief, warnings []string, err error) {
	found, warnings, err := s.fitting(ctx, wanted)
	list = make([]Brief, len(found))
	for i, v := range found {
		list[i] = Brief{v.Driver, v.Name}
	}
	return list, warnings, err
}

// fitting are the volumes that fit, by their names.
func (s *Service) fitting(ctx context.Context, wanted map[string]map[string]bool) (list []*known, warnings []string, err error) {
	f := filters(wanted)
	if err := f.check("dangling", "driver", "label", "name"); err != nil {
		return nil, nil, err
	}
	dangling, either, err := f.boolean("dangling")
	if err != nil {
		return nil, nil, err
	}
	var users map[string][]string
	if !either {
		users = s.usersOf()
	}
	list, warnings = s.everything(ctx)
	list = slices.DeleteFunc(list, func(v *known) bool {
		return !f.fit(v.Name, v.Driver, v.Labels) || !either && dangling != (len(users[v.Name]) == 0)
	})
	slices.SortFunc(list, func(a, b *known) int { return cmp.Compare(a.Name, b.Name) })
	return list, warnings, nil
}

// known is a volume with what its plugin told of it, nil if nothing.
type known struct {
	Record
	told *external
}

// everything is all volumes: those with a record, and what plugins have beside
// them. One that its plugin has no more is left out.
func (s *Service) everything(ctx context.Context) ([]*known, []string) {
	answers, warnings := s.listExternal(ctx)
	told := map[string]*listed{}
	for i := range answers {
		if answers[i].err == nil {
			told[answers[i].driver] = &answers[i]
		}
	}
	all := s.all()
	list, recorded := make([]*known, 0, len(all)), make(map[string]bool, len(all))
	for i := range all {
		r := known{Record: all[i]}
		recorded[r.Name] = true
		if plugin := told[r.Driver]; r.Driver != Local && plugin != nil {
			if r.told = plugin.volumes[r.Name]; r.told == nil {
				continue
			}
		}
		list = append(list, &r)
	}
	for _, plugin := range told {
		for name, v := range plugin.volumes {
			if !recorded[name] {
				recorded[name] = true
				list = append(list, &known{Record{Name: name, Driver: v.driver}, v})
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
	if err != nil && key == "all" {
		return false, false, fault.New(fault.Invalid, "invalid filter 'all': %w", err)
	}
	if err != nil || len(words) > 1 {
		return false, false, fault.New(fault.Invalid, "invalid filter '%s=[%s]'", key, strings.Join(words, " "))
	}
	return value, false, nil
}

// fit tells whether a volume is what is looked for by name, driver and labels. All
// labels have to be there, of the rest one.
func (f filters) fit(volume, driver string, labels map[string]string) bool {
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
		if !label.Has(labels, condition) {
			return false
		}
	}
	for condition := range f["label!"] {
		if label.Has(labels, condition) {
			return false
		}
	}
	return any("name", func(pattern string) bool {
		matches, err := regexp.MatchString(pattern, volume)
		return matches && err == nil
	}) &&
		any("driver", func(value string) bool { return driver == value })
}
