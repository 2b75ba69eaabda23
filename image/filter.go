package image

import (
	"context"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/label"
	"github.com/tarehq/tare/reference"
)

// filter chooses names and images of a list.
type filter struct {
	patterns      []string // of names, one must match
	dangling      *bool
	labels        []string // all must hold
	noLabels      []string // none may hold
	before, since time.Time
	until         time.Time
}

func (s *Service) filters(ctx context.Context, given map[string]map[string]bool) (*filter, error) {
	f := &filter{}
	for key, values := range given {
		for value, on := range values {
			if !on {
				continue
			}
			if err := s.addFilter(ctx, f, key, value); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (s *Service) addFilter(ctx context.Context, f *filter, key, value string) error {
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
		f.before, err = s.created(ctx, value)
	case "since":
		f.since, err = s.created(ctx, value)
	case "until":
		f.until, err = ParseTime(value)
	default:
		return fault.New(fault.Invalid, "invalid filter '%s'", key)
	}
	return err
}

func (s *Service) created(ctx context.Context, ref string) (time.Time, error) {
	_, m, err := s.chosen(ctx, ref, "")
	if err != nil || m.detail.config.Created == nil {
		return time.Time{}, err
	}
	return *m.detail.config.Created, nil
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

func (f *filter) name(canonical string) bool {
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

func (f *filter) created(m *member) bool {
	var created time.Time
	if m != nil && m.detail.config.Created != nil {
		created = *m.detail.config.Created
	}
	return (f.before.IsZero() || created.Before(f.before)) && (f.since.IsZero() || created.After(f.since)) &&
		(f.until.IsZero() || created.Before(f.until))
}

// anyLabels tells whether one platform of the image has the labels, and lacks
// those that it must not have.
func (f *filter) anyLabels(members []member) bool {
	if len(f.labels)+len(f.noLabels) == 0 {
		return true
	}
	return slices.ContainsFunc(members, func(m member) bool {
		if m.detail == nil {
			return false
		}
		has := func(want string) bool { return label.Has(m.detail.config.Config.Labels, want) }
		lacks := func(want string) bool { return !has(want) }
		return !slices.ContainsFunc(f.labels, lacks) && !slices.ContainsFunc(f.noLabels, has)
	})
}
