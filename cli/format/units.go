package format

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size renders bytes in decimal units with three significant digits, "1.98MB".
func Size(bytes float64) string {
	return scaled(bytes, 1000, 3, "B", "kB", "MB", "GB", "TB", "PB", "EB")
}

// SizeFine renders bytes in decimal units with four significant digits.
func SizeFine(bytes float64) string {
	return scaled(bytes, 1000, 4, "B", "kB", "MB", "GB", "TB", "PB", "EB")
}

// BinarySize renders bytes in binary units with four significant digits, "23.54GiB".
func BinarySize(bytes float64) string {
	return scaled(bytes, 1024, 4, "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
}

func scaled(v, base float64, digits int, units ...string) string {
	i := 0
	for v >= base && i < len(units)-1 {
		v /= base
		i++
	}
	return strconv.FormatFloat(v, 'g', digits, 64) + units[i]
}

// Duration renders a span as a person would say it, "About an hour".
func Duration(d time.Duration) string {
	if s := int(d.Seconds()); s < 1 {
		return "Less than a second"
	} else if s == 1 {
		return "1 second"
	} else if s < 60 {
		return strconv.Itoa(s) + " seconds"
	}
	if m := int(d.Minutes()); m == 1 {
		return "About a minute"
	} else if m < 60 {
		return strconv.Itoa(m) + " minutes"
	}
	const day, week, month, year = 24, 24 * 7, 24 * 30, 24 * 365
	switch h := int(d.Hours() + 0.5); {
	case h == 1:
		return "About an hour"
	case h < 2*day:
		return strconv.Itoa(h) + " hours"
	case h < 2*week:
		return strconv.Itoa(h/day) + " days"
	case h < 2*month:
		return strconv.Itoa(h/week) + " weeks"
	case h < 2*year:
		return strconv.Itoa(h/month) + " months"
	}
	return strconv.Itoa(int(d.Hours())/year) + " years"
}

// Ago renders the time since a Unix time.
func Ago(unix int64) string { return Duration(time.Since(time.Unix(unix, 0))) + " ago" }

// Labels renders labels in one line, by name.
func Labels(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for key, value := range m {
		parts = append(parts, key+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// ShortID cuts an ID to 12 characters, without the name of its digest.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	return truncate(id, 12)
}

// Ellipsis cuts a text to width characters, the last one being an ellipsis.
func Ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width <= 1 {
		return string(r[:width])
	}
	return string(r[:width-1]) + "…"
}
