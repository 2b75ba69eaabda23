package inventory

import (
	"context"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/internal/label"
	"github.com/tarehq/tare/reference"
)

// Filter chooses names and images of a list.
type Filter struct {
	patterns      []string // of names, one must match
	dangling      *bool
	labels        []string // all must hold
	noLabels      []string // none may hold
	before, since time.Time
	until         time.Time
}

// NewFilter reads the values of Docker's filters, each of which is on or off.
func NewFilter(ctx context.Context, images *catalog.Catalog, given map[string]map[string]bool) (*Filter, error) {
	f := &Filter{}
	for key, values := range given {
		for value, on := range values {
			if !on {
				continue
			}
			if err := f.add(ctx, images, key, value); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (f *Filter) add(ctx context.Context, images *catalog.Catalog, key, value string) error {
	var err error
	switch key {
	case "reference":
		f.patterns = append(f.patterns, value) // one that cannot be read finds nothing, as in Docker
	case "label":
		f.labels = append(f.labels, value)
	case "label!":
		f.noLabels = append(f.noLabels, value)
	case "dangling":
		b, err := strconv.ParseBool(value)
		if err != nil || f.dangling != nil && *f.dangling != b {
			return fault.New(fault.Invalid, "invalid filter 'dangling=[%s]'", value)
		}
		f.dangling = &b
	case "before":
		f.before, err = created(ctx, images, value)
	case "since":
		f.since, err = created(ctx, images, value)
	case "until":
		f.until, err = ParseTime(value)
	default:
		return fault.New(fault.Invalid, "invalid filter '%s'", key)
	}
	return err
}

func created(ctx context.Context, images *catalog.Catalog, ref string) (time.Time, error) {
	_, m, err := images.Chosen(ctx, ref, "")
	if err != nil || m.Detail.Config.Created == nil {
		return time.Time{}, err
	}
	return *m.Detail.Config.Created, nil
}

// ParseTime reads a moment of a filter: seconds since 1970, a date, or how long ago.
func ParseTime(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(int64(sec), int64((sec-float64(int64(sec)))*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "failed to parse value as time or duration: %q", s)
}

func (f *Filter) name(canonical string) bool {
	if f.dangling != nil && *f.dangling != (canonical == "") {
		return false
	}
	if len(f.patterns) == 0 {
		return true
	}
	r, err := reference.ParseBare(canonical)
	if canonical == "" || err != nil {
		return false
	}
	for _, p := range f.patterns {
		whole, _ := path.Match(p, r.Familiar())
		bare, _ := path.Match(p, r.FamiliarRepository())
		if whole || bare {
			return true
		}
	}
	return false
}

// Image tells whether an image may be among those that are wanted, whatever its
// names. best is its catalog.Representative.
func (f *Filter) Image(best *catalog.Member, members []catalog.Member) bool {
	return f.created(best) && f.anyLabels(members)
}

func (f *Filter) created(m *catalog.Member) bool {
	var created time.Time
	if m != nil && m.Detail.Config.Created != nil {
		created = *m.Detail.Config.Created
	}
	return (f.before.IsZero() || created.Before(f.before)) && (f.since.IsZero() || created.After(f.since)) &&
		(f.until.IsZero() || created.Before(f.until))
}

// anyLabels tells whether one platform of the image has the labels, and lacks
// those that it must not have.
func (f *Filter) anyLabels(members []catalog.Member) bool {
	if len(f.labels)+len(f.noLabels) == 0 {
		return true
	}
	return slices.ContainsFunc(members, func(m catalog.Member) bool {
		if m.Detail == nil {
			return false
		}
		has := func(want string) bool { return label.Has(m.Detail.Config.Config.Labels, want) }
		lacks := func(want string) bool { return !has(want) }
		return !slices.ContainsFunc(f.labels, lacks) && !slices.ContainsFunc(f.noLabels, has)
	})
}
