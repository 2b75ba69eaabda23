package container

import (
	"encoding/csv"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// mounts is the flag --mount: comma-separated fields, with CSV's quotes.
type mounts []client.Mount

func (m *mounts) String() string { return "" }
func (m *mounts) Type() string   { return "mount" }

func (m *mounts) Set(s string) error {
	fields, err := csv.NewReader(strings.NewReader(strings.TrimSpace(s))).Read()
	if err != nil {
		return err
	}
	mount := client.Mount{Type: "volume"}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if key != strings.TrimSpace(key) {
			return fault.New(fault.Invalid, "invalid option '%s' in '%s': option should not have whitespace", key, field)
		}
		if key = strings.ToLower(key); !ok {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "bind-create":
				value = "true"
			case "idmap":
			default:
				return fault.New(fault.Invalid, "invalid field '%s' must be a key=value pair", field)
			}
		}
		if err := setMountField(&mount, key, value, field); err != nil {
			return err
		}
	}
	if err := checkMount(&mount); err != nil {
		return err
	}
	*m = append(*m, mount)
	return nil
}

func setMountField(m *client.Mount, key, value, field string) (err error) {
	boolean := func(to *bool) {
		if *to, err = strconv.ParseBool(value); err != nil {
			err = fault.New(fault.Invalid, "invalid value for %s: %s", key, value)
		}
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." {
			if abs, aerr := filepath.Abs(value); aerr == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		boolean(&m.ReadOnly)
	case "consistency", "idmap":
		err = setConsistency(m, key, strings.ToLower(value))
	case "bind-propagation":
		bindOptions(m).Propagation = strings.ToLower(value)
	case "bind-nonrecursive":
		boolean(&bindOptions(m).NonRecursive)
	case "bind-create-src", "bind-create":
		boolean(&bindOptions(m).CreateMountpoint)
	case "bind-recursive":
		err = bindRecursive(m, value)
	case "volume-nocopy":
		boolean(&volumeOptions(m).NoCopy)
	case "volume-subpath":
		volumeOptions(m).Subpath = value
	case "volume-label":
		setValue(&volumeOptions(m).Labels, value)
	case "volume-driver":
		volumeDriver(m).Name = value
	case "volume-opt":
		setValue(&volumeDriver(m).Options, value)
	case "image-subpath":
		m.ImageOptions = &client.ImageOptions{Subpath: value}
	case "tmpfs-size":
		if tmpfsOptions(m).SizeBytes, err = option.ParseBytes(value); err != nil {
			err = fault.New(fault.Invalid, "invalid value for %s: %s", key, value)
		}
	case "tmpfs-mode":
		mode, perr := strconv.ParseUint(value, 8, 32)
		if perr != nil {
			err = fault.New(fault.Invalid, "invalid value for %s: %s", key, value)
		}
		tmpfsOptions(m).Mode = uint32(mode)
	default:
		err = fault.New(fault.Invalid, "unexpected key '%s' in '%s'", key, field)
	}
	return err
}

// setConsistency sets the one field of a mount that is a word of the client's. What
// hosts with virtual machines have in it means nothing to the daemon, which finds
// id maps there: so Docker's own clients can ask for them.
func setConsistency(m *client.Mount, key, value string) error {
	if m.Consistency != "" {
		return fault.New(fault.Invalid, "a mount has either consistency or idmap, and one of it")
	}
	if m.Consistency = value; key == "idmap" {
		m.Consistency = strings.TrimSuffix("idmap="+value, "=")
	}
	return nil
}

func checkMount(m *client.Mount) error {
	only := func(set bool, kind string) error {
		if set && m.Type != kind {
			return fault.New(fault.Invalid, "cannot mix '%s-*' options with mount type '%s'", kind, m.Type)
		}
		return nil
	}
	switch {
	case m.Type == "":
		return fault.New(fault.Invalid, "type is required")
	case m.Target == "":
		return fault.New(fault.Invalid, "target is required")
	}
	for _, o := range []struct {
		set  bool
		kind string
	}{{m.BindOptions != nil, "bind"}, {m.VolumeOptions != nil, "volume"}, {m.ImageOptions != nil, "image"}, {m.TmpfsOptions != nil, "tmpfs"}} {
		if err := only(o.set, o.kind); err != nil {
			return err
		}
	}
	if b := m.BindOptions; b != nil {
		if b.ReadOnlyNonRecursive && !m.ReadOnly {
			return fault.New(fault.Invalid, "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if b.ReadOnlyForceRecursive && (!m.ReadOnly || b.Propagation != "rprivate") {
			return fault.New(fault.Invalid, "option 'bind-recursive=readonly' requires 'readonly' and 'bind-propagation=rprivate' to be specified in conjunction")
		}
	}
	return nil
}

func bindRecursive(m *client.Mount, value string) error {
	o := bindOptions(m)
	switch value {
	case "enabled":
	case "disabled":
		o.NonRecursive = true
	case "writable":
		o.ReadOnlyNonRecursive = true
	case "readonly":
		o.ReadOnlyForceRecursive = true
	default:
		return fault.New(fault.Invalid, "invalid value for bind-recursive: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", value)
	}
	return nil
}

func bindOptions(m *client.Mount) *client.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &client.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *client.Mount) *client.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &client.VolumeOptions{}
	}
	return m.VolumeOptions
}

func volumeDriver(m *client.Mount) *client.VolumeDriver {
	o := volumeOptions(m)
	if o.DriverConfig == nil {
		o.DriverConfig = &client.VolumeDriver{}
	}
	return o.DriverConfig
}

func tmpfsOptions(m *client.Mount) *client.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &client.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

func setValue(to *map[string]string, pair string) {
	if *to == nil {
		*to = map[string]string{}
	}
	key, value, _ := strings.Cut(pair, "=")
	(*to)[key] = value
}
