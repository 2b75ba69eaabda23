package config

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Duration is a time such as "90s", "24h" or "30d".
type Duration time.Duration

func (d *Duration) fromTOML(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("this is %s: want a time such as \"90s\", \"24h\" or \"30d\"", kindOf(v))
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no time: want one such as \"90s\", \"24h\" or \"30d\"", text)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	parsed, err := time.ParseDuration(text)
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is no time: want one such as \"90s\", \"24h\" or \"30d\"", text)
	}
	*d = Duration(parsed)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes, such as 4096 or "10GiB".
type Size int64

var units = map[string]float64{
	"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

func (s *Size) fromTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return errors.New("a size is not negative")
		}
		*s = Size(v)
		return nil
	case string:
		number := strings.TrimRight(v, "BKMGTibkmgt ")
		unit, ok := units[strings.ToUpper(strings.TrimSpace(v[len(number):]))]
		n, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
			return fmt.Errorf("%q is no size: want one such as \"10GiB\", \"500MB\" or 4096", v)
		}
		*s = Size(n * unit)
		return nil
	}
	return fmt.Errorf("this is %s: want a size such as \"10GiB\", \"500MB\" or 4096", kindOf(v))
}

// Network is addresses: "10.0.0.0/8", or a single one.
type Network struct{ netip.Prefix }

func (n *Network) fromTOML(v any) error {
	text, _ := v.(string)
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%q is no network: want one such as \"10.0.0.0/8\", or an address", text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	n.Prefix = p.Masked()
	return nil
}

// Secret is a text that nobody is shown: { file = "…" }, { env = "…" }, or the
// text itself.
type Secret struct{ text, file, env string }

func (s *Secret) fromTOML(v any) error {
	const want = `want { file = "PATH" }, { env = "NAME" } or a string`
	if text, ok := v.(string); ok {
		s.text = text
		return nil
	}
	table, ok := v.(map[string]any)
	if !ok || len(table) != 1 {
		return errors.New(want)
	}
	for key, v := range table {
		text, ok := v.(string)
		switch {
		case !ok || text == "":
			return errors.New(want)
		case key == "file":
			s.file = text
		case key == "env":
			s.env = text
		default:
			return errors.New(want)
		}
	}
	return nil
}

// maxSecret bounds a file that holds a secret.
const maxSecret = 64 << 10

// Set tells whether the configuration has the secret.
func (s Secret) Set() bool { return s != Secret{} }

// String hides it.
func (s Secret) String() string {
	switch {
	case s.file != "":
		return "in file " + s.file
	case s.env != "":
		return "in variable " + s.env
	case s.text != "":
		return "hidden"
	}
	return "not set"
}

// GoString hides it from %#v too.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// Read gives the secret as it is now. A file's last line end is not part of it.
func (s Secret) Read() (string, error) {
	switch {
	case s.file != "":
		f, err := os.Open(s.file)
		if err != nil {
			return "", fmt.Errorf("cannot read the secret: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
		switch {
		case err != nil:
			return "", fmt.Errorf("cannot read the secret: %w", err)
		case len(data) > maxSecret:
			return "", fmt.Errorf("the secret in %s has more than %d bytes", s.file, maxSecret)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
	case s.env != "":
		text, ok := os.LookupEnv(s.env)
		if !ok {
			return "", fmt.Errorf("the environment has no variable %s, which the configuration takes a secret from", s.env)
		}
		return text, nil
	}
	return s.text, nil
}
