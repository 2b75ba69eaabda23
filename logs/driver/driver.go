// Package driver knows the log drivers by name: which options each takes, what
// of a container's log lies on this machine, and how the receivers of the
// remote ones are spoken to. The words of its refusals are Docker's.
//
// Whatever the driver, the process beside the container writes the local log
// alone, in the format of package logs. A remote driver's receiver is fed from
// that by package forward.
package driver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/tarehq/tare/fault"
)

// The drivers that keep a log on this machine alone, and the one that keeps
// none.
const (
	JSONFile = "json-file"
	Local    = "local"
	None     = "none"
)

// attributeKeys are the options that every driver takes.
var attributeKeys = []string{"env", "env-regex", "labels", "labels-regex", "tag"}

// kind is one driver.
type kind struct {
	keys    []string // beside attributeKeys
	unknown string   // refuses another key; has the key for an argument
	check   func(opts map[string]string) error
	remote  func(opts map[string]string, info Info) (*Receiver, error) // nil: it keeps the log here
}

var kinds = map[string]kind{
	JSONFile:   {keys: []string{"max-file", "max-size", "compress"}, unknown: "unknown log opt '%s' for json-file log driver", check: checkRotation},
	Local:      {keys: []string{"max-file", "max-size", "compress"}, unknown: "unknown log opt '%s' for log driver local", check: checkLocal},
	"syslog":   {keys: syslogKeys, unknown: "unknown log opt '%s' for syslog log driver", check: checkSyslog, remote: newSyslog},
	"fluentd":  {keys: fluentdKeys, unknown: "unknown log opt '%s' for fluentd log driver", check: checkFluentd, remote: newFluentd},
	"journald": {unknown: "unknown log opt '%s' for journald log driver", remote: newJournald},
	"gelf":     {keys: gelfKeys, unknown: "unknown log opt %q for gelf log driver", check: checkGELF, remote: newGELF},
}

// Names lists the drivers as GET /info does: without none.
func Names() []string { return slices.Sorted(maps.Keys(kinds)) }

// Remote tells whether the driver sends the log elsewhere.
func Remote(name string) bool { return kinds[name].remote != nil }

// Check refuses a driver that there is not, options that it does not take and
// values that mean nothing.
func Check(name string, opts map[string]string) error {
	if name == None {
		return nil
	}
	if err := checkCommon(opts); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	k, ok := kinds[name]
	if !ok {
		return fault.New(fault.Invalid, "error looking up logging plugin %s: plugin %q not found", name, name)
	}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		if !common(key) && !slices.Contains(attributeKeys, key) && !slices.Contains(k.keys, key) {
			return fault.New(fault.Invalid, k.unknown, key)
		}
	}
	if k.check != nil {
		if err := k.check(opts); err != nil {
			return fault.New(fault.Invalid, "%w", err)
		}
	}
	if err := checkAttributes(opts); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	return nil
}

// cachePrefix marks the options of the local log of a remote driver.
const cachePrefix = "cache-"

// common tells whether a key is an option of every driver's.
func common(key string) bool {
	rest, cache := strings.CutPrefix(key, cachePrefix)
	return key == "mode" || key == "max-buffer-size" ||
		cache && (rest == "disabled" || slices.Contains([]string{"max-file", "max-size", "compress"}, rest) || slices.Contains(attributeKeys, rest))
}

func checkCommon(opts map[string]string) error {
	switch opts["mode"] {
	case "", "blocking", "non-blocking":
	default:
		return fmt.Errorf("logger: logging mode not supported: %s", opts["mode"])
	}
	if size, ok := opts["max-buffer-size"]; ok {
		if opts["mode"] != "non-blocking" {
			return fmt.Errorf("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if _, err := units.RAMInBytes(size); err != nil {
			return fmt.Errorf("error parsing option max-buffer-size: %w", err)
		}
	}
	if v := opts["cache-disabled"]; v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("invalid value for option cache-disabled: %s", v)
		}
	}
	_, err := rotationOf(cacheOptions(opts), true)
	return err
}

// cacheOptions are the options of the local log of a remote driver.
func cacheOptions(opts map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range opts {
		if rest, ok := strings.CutPrefix(key, cachePrefix); ok {
			out[rest] = value
		}
	}
	return out
}

// Merge gives a request the daemon's driver where it names none, the daemon's
// options where it has the daemon's driver, and those of the local log in any
// case.
func Merge(name string, opts map[string]string, daemon string, defaults map[string]string) (string, map[string]string) {
	if name == "" {
		name = daemon
	}
	merged := map[string]string{}
	for key, value := range defaults {
		if name == daemon || strings.HasPrefix(key, cachePrefix) {
			merged[key] = value
		}
	}
	maps.Copy(merged, opts)
	return name, merged
}

// Storage is how the log is kept on this machine.
type Storage struct {
	MaxSize  int64 // bytes of one file; 0 for no bound
	MaxFiles int
	Compress bool  // files that were rotated
	Buffer   int64 // bytes that may wait for the disk; 0: the container waits
	Hidden   bool  // not to be read: it is the remote driver's alone
}

// A log is bounded unless its options say otherwise.
const (
	defaultMaxSize  = 20 << 20
	defaultMaxFiles = 5
	defaultBuffer   = 1 << 20 // Docker's, of mode=non-blocking
)

// StorageOf reads options that have passed Check.
func StorageOf(name string, opts map[string]string) (Storage, error) {
	rotation, compressed := opts, name != JSONFile
	if Remote(name) {
		rotation = cacheOptions(opts)
	}
	s, err := rotationOf(rotation, compressed)
	if err != nil {
		return s, fault.New(fault.Invalid, "%w", err)
	}
	if Remote(name) {
		s.Hidden, _ = strconv.ParseBool(opts["cache-disabled"])
	}
	if opts["mode"] == "non-blocking" {
		s.Buffer = defaultBuffer
		if n, err := units.RAMInBytes(opts["max-buffer-size"]); err == nil && n > 0 {
			s.Buffer = n
		}
	}
	return s, nil
}

func checkRotation(opts map[string]string) error {
	_, err := rotationOf(opts, false)
	return err
}

// checkLocal is checkRotation for files that are always bounded.
func checkLocal(opts map[string]string) error {
	if opts["max-size"] == "-1" {
		return fmt.Errorf("invalid value for max-size: -1: invalid size: '-1'")
	}
	return checkRotation(opts)
}

// rotationOf reads max-size, max-file and compress. With a size and no number
// there is one file, as with Docker.
func rotationOf(opts map[string]string, compress bool) (Storage, error) {
	s := Storage{MaxSize: defaultMaxSize, MaxFiles: defaultMaxFiles}
	if v, ok := opts["max-size"]; ok {
		s.MaxFiles = 1
		if s.MaxSize = 0; v != "-1" {
			n, err := units.FromHumanSize(v)
			if err != nil {
				return s, fmt.Errorf("invalid value for max-size: %s: %w", v, err)
			}
			if n <= 0 {
				return s, fmt.Errorf("max-size must be a positive number, or -1 for no bound")
			}
			s.MaxSize = n
		}
	}
	if v, ok := opts["max-file"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return s, fmt.Errorf("invalid value for max-file: %s: %w", v, err)
		}
		if n < 1 {
			return s, fmt.Errorf("max-file cannot be less than 1")
		}
		s.MaxFiles = n
	}
	rotates := s.MaxSize > 0 && s.MaxFiles > 1
	s.Compress = compress && rotates
	if v, ok := opts["compress"]; ok {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return s, fmt.Errorf("invalid boolean value for compress: %w", err)
		}
		if on && !rotates {
			return s, fmt.Errorf("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		s.Compress = on
	}
	return s, nil
}
