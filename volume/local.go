package volume

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// The options of the local driver, which are mount(8)'s: a file system that is
// mounted on the volume's data while somebody uses them.
const (
	optionType   = "type"
	optionData   = "o"
	optionDevice = "device"
)

// needs are the options that go together.
var needs = map[string][]string{
	optionDevice: {optionType},
	optionType:   {optionDevice},
	optionData:   {optionDevice, optionType},
	sizeOption:   nil,
}

// checkOptions refuses options that the local driver does not have.
func checkOptions(options map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if _, known := needs[name]; !known {
			return fault.New(fault.Invalid, "invalid option: %q", name)
		}
		for _, other := range needs[name] {
			if _, set := options[other]; !set {
				return fault.New(fault.Invalid, "missing required option: %q", other)
			}
		}
		if strings.ContainsRune(options[name], 0) {
			return fault.New(fault.Invalid, "there is a NUL byte in the option %q", name)
		}
	}
	if _, bounded := options[sizeOption]; bounded && options[optionType] != "" {
		return fault.New(fault.Invalid, "the option size bounds what lies on this host's disk, and no mount of type %s: some have bounds of their own, as in o=size=1g of tmpfs", options[optionType])
	}
	if device := options[optionDevice]; options[optionType] == "cifs" && device != "" {
		u, err := url.Parse(device)
		if err != nil {
			return fault.New(fault.Invalid, "error parsing mount device url: %w", err)
		}
		if u.Port() != "" {
			return fault.New(fault.Invalid, "port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	return nil
}

// needsMount tells whether the content of a local volume is mounted on its data.
func needsMount(r *Record) bool {
	return r.Driver == Local && (r.Options[optionDevice] != "" || r.Options[optionType] != "")
}

// isMounted asks the kernel.
func isMounted(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// mountLocal mounts what a volume's options name on its data, if it is not.
func (s *Service) mountLocal(r *Record) error {
	path := s.data(r.Name)
	if is, err := isMounted(path); is || err != nil {
		return err
	}
	m, err := readMount(r.Options, lookupHost)
	if err == nil {
		err = m.on(path)
	}
	if err == nil {
		return nil
	}
	text := err.Error()
	if password := value(r.Options[optionData], "password"); password != "" {
		text = strings.ReplaceAll(text, "password="+password, "password=********")
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		text += fmt.Sprintf(": this kernel does not know the file system %q", m.kind)
	case errors.Is(err, unix.ENOENT) && m.flags&unix.MS_BIND != 0:
		text += ": make the directory first"
	}
	return fault.New(fault.Internal, "error while mounting volume '%s': failed to mount local volume: %s", path, text)
}

// unmountLocal takes it off again. Who has it mounted elsewhere keeps it.
func (s *Service) unmountLocal(r *Record) error {
	path := s.data(r.Name)
	is, err := isMounted(path)
	for is && err == nil { // also what was mounted upon it
		if err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
		is, err = isMounted(path)
	}
	return err
}

// fsMount is what options say, as mount(2) takes it.
type fsMount struct {
	device, kind, data string
	flags, propagation uintptr
}

// readMount resolves options. The names of servers become addresses: the kernel
// knows no names.
func readMount(options map[string]string, lookup func(host string) (string, error)) (fsMount, error) {
	m := fsMount{device: options[optionDevice], kind: options[optionType]}
	if m.device == "" {
		return m, errors.New("missing device in volume options")
	}
	o := options[optionData]
	if m.kind == "nfs" || m.kind == "cifs" {
		if host := value(o, "addr"); host != "" && net.ParseIP(host).To4() == nil {
			address, err := lookup(host)
			if err != nil {
				return m, fmt.Errorf("error resolving passed in network volume address: %w", err)
			}
			o = strings.Replace(o, "addr="+host, "addr="+address, 1)
		} else if m.kind == "cifs" {
			if err := m.resolveDevice(lookup); err != nil {
				return m, err
			}
		}
	}
	m.split(o)
	return m, nil
}

// resolveDevice makes the server of //server/share an address.
func (m *fsMount) resolveDevice(lookup func(string) (string, error)) error {
	u, err := url.Parse(m.device)
	if err != nil {
		return fmt.Errorf("error parsing mount device url: %w", err)
	}
	if u.Host == "" || net.ParseIP(u.Host) != nil {
		return nil
	}
	address, err := lookup(u.Host)
	if err != nil {
		return fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	u.Host = address
	if m.device, err = url.QueryUnescape(u.String()); err != nil {
		return fmt.Errorf("failed to unescape device URL: %q", u)
	}
	return nil
}

func lookupHost(host string) (string, error) {
	address, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return "", err
	}
	return address.String(), nil
}

// value is that of one of the options o.
func value(o, key string) string {
	for word := range strings.SplitSeq(o, ",") {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			return v
		}
	}
	return ""
}

// flagWords are the options that are no file system's own, mount(8).
var flagWords = map[string]struct {
	clear bool
	flag  uintptr
}{
	"defaults": {}, "ro": {false, unix.MS_RDONLY}, "rw": {true, unix.MS_RDONLY}, "suid": {true, unix.MS_NOSUID}, "nosuid": {false, unix.MS_NOSUID},
	"dev": {true, unix.MS_NODEV}, "nodev": {false, unix.MS_NODEV}, "exec": {true, unix.MS_NOEXEC}, "noexec": {false, unix.MS_NOEXEC},
	"sync": {false, unix.MS_SYNCHRONOUS}, "async": {true, unix.MS_SYNCHRONOUS}, "dirsync": {false, unix.MS_DIRSYNC}, "remount": {false, unix.MS_REMOUNT},
	"mand": {false, unix.MS_MANDLOCK}, "nomand": {true, unix.MS_MANDLOCK}, "atime": {true, unix.MS_NOATIME}, "noatime": {false, unix.MS_NOATIME},
	"diratime": {true, unix.MS_NODIRATIME}, "nodiratime": {false, unix.MS_NODIRATIME}, "bind": {false, unix.MS_BIND}, "rbind": {false, unix.MS_BIND | unix.MS_REC},
	"relatime": {false, unix.MS_RELATIME}, "norelatime": {true, unix.MS_RELATIME}, "strictatime": {false, unix.MS_STRICTATIME}, "nostrictatime": {true, unix.MS_STRICTATIME},
}

var propagationWords = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// split takes the flags out of the options and leaves the file system's own.
func (m *fsMount) split(o string) {
	var data []string
	for word := range strings.SplitSeq(o, ",") {
		if f, ok := flagWords[word]; ok {
			if f.clear {
				m.flags &^= f.flag
			} else {
				m.flags |= f.flag
			}
		} else if p, ok := propagationWords[word]; ok {
			m.propagation |= p
		} else if word != "" {
			data = append(data, word)
		}
	}
	m.data = strings.Join(data, ",")
}

// on mounts it. A bind mount is told its flags by a second call.
func (m *fsMount) on(path string) error {
	fail := func(err error) error {
		text := fmt.Sprintf("mount %s:%s", m.device, path)
		if m.flags != 0 {
			text += fmt.Sprintf(", flags: %#x", m.flags)
		}
		if m.data != "" {
			text += ", data: " + m.data
		}
		return fmt.Errorf("%s: %w", text, err)
	}
	if err := unix.Mount(m.device, path, m.kind, m.flags, m.data); err != nil {
		return fail(err)
	}
	var err error
	if rest := m.flags &^ (unix.MS_BIND | unix.MS_REC); m.flags&unix.MS_BIND != 0 && rest != 0 {
		err = unix.Mount("", path, "", m.flags|unix.MS_REMOUNT, "")
	}
	if err == nil && m.propagation != 0 {
		err = unix.Mount("", path, "", m.propagation, "")
	}
	if err != nil {
		return errors.Join(fail(err), unix.Unmount(path, unix.MNT_DETACH))
	}
	return nil
}
