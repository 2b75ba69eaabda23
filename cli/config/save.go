package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// change rewrites the auths of config.json.
func (f *File) change(edit func(auths map[string]json.RawMessage)) error {
	return f.rewrite(func(fields map[string]json.RawMessage) (err error) {
		auths := map[string]json.RawMessage{}
		if raw := fields["auths"]; len(raw) > 0 && string(raw) != "null" {
			if err := json.Unmarshal(raw, &auths); err != nil {
				return fault.New(fault.Invalid, "%s: auths: %w", f.path, err)
			}
		}
		edit(auths)
		fields["auths"], err = marshal(auths, "")
		return err
	})
}

// Use makes a context the current one; "" goes back to the default.
func (f *File) Use(context string) error {
	if context == f.CurrentContext {
		return nil
	}
	f.CurrentContext = context
	return f.rewrite(func(fields map[string]json.RawMessage) (err error) {
		if context == "" {
			delete(fields, "currentContext")
			return nil
		}
		fields["currentContext"], err = marshal(context, "")
		return err
	})
}

// rewrite changes members of config.json as it is on the disk now; all others,
// known or not, stay as they are. Nobody else can read the new file.
func (f *File) rewrite(edit func(fields map[string]json.RawMessage) error) error {
	fields := map[string]json.RawMessage{}
	text, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &fields); err != nil {
			return fault.New(fault.Invalid, "%s: %w", f.path, err)
		}
	}
	if err := edit(fields); err != nil {
		return err
	}
	out, err := marshal(fields, "\t")
	if err != nil {
		return err
	}
	return f.replace(out)
}

// marshal keeps <, > and & as they are.
func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// replace writes the file whole. A symbolic link stays one, and the owner of
// an existing file stays its owner.
func (f *File) replace(text []byte) error {
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	} else if target, err := os.Readlink(path); err == nil {
		// It leads to a file that is yet to be made.
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	before, statErr := os.Stat(path)
	if err := atomicfile.WriteSync(path, text, 0o600); err != nil {
		return err
	}
	if statErr != nil {
		return nil
	}
	if st, ok := before.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		// Only root can, and only then it matters: sudo tare login.
		os.Lchown(path, int(st.Uid), int(st.Gid))
	}
	return nil
}
