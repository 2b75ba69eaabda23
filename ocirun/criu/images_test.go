package criu

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// message makes a protocol buffer of fields: a number and an int or bytes each.
func message(fields ...any) (out []byte) {
	for i := 0; i < len(fields); i += 2 {
		number := uint64(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			out = binary.AppendUvarint(binary.AppendUvarint(out, number<<3), uint64(v))
		case string:
			out = append(binary.AppendUvarint(binary.AppendUvarint(out, number<<3|2), uint64(len(v))), v...)
		case []byte:
			out = append(binary.AppendUvarint(binary.AppendUvarint(out, number<<3|2), uint64(len(v))), v...)
		}
	}
	return out
}

// image is a file with one message.
func image(entry []byte) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte("12345678"), uint32(len(entry))), entry...)
}

func TestTidyGroups(t *testing.T) {
	dir := func(name string, rest ...any) []byte { return message(append([]any{1, name}, rest...)...) }
	property := func(name string) []byte { return message(1, name, 2, "1") }
	controller := func(name string, dirs ...any) []byte { return message(append([]any{1, name}, dirs...)...) }
	set := message(1, 7, 2, message(1, "", 2, "/"), 2, message(1, "freezer", 2, "/box", 3, 4))
	inner := message(1, 8, 2, message(1, "", 2, "/"), 2, message(1, "freezer", 2, "/box/init", 3, 4))
	host := controller("", 2, dir("", 2, dir("somebody", 3, property("cgroup.freeze"))))
	ours := controller("freezer", 2, dir("box/init", 2, dir("x", 3, property("x"))), 2, dir("box", 3, property("freezer.state"), 3, property("notify_on_release")),
		2, dir("other"), 2, dir("boxer"), 2, dir("box/free"))
	path := filepath.Join(t.TempDir(), "cgroup.img")
	if err := os.WriteFile(path, image(message(1, set, 1, inner, 2, host, 2, ours)), 0o600); err != nil {
		t.Fatal(err)
	}
	if noted, err := NotesGroups(path); !noted || err != nil {
		t.Errorf("it notes groups, and is taken for one that does not (%v)", err)
	}
	none := filepath.Join(t.TempDir(), "cgroup.img")
	if err := os.WriteFile(none, image(message(1, set, 2, controller(""), 2, controller("freezer"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if noted, err := NotesGroups(none); noted || err != nil {
		t.Errorf("it notes no groups, and is taken for one that does (%v)", err)
	}
	tidy := func() []byte {
		t.Helper()
		if err := TidyGroups(path, func(c string) bool { return c == "freezer" }); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := image(message(1, set, 1, inner, 2, controller("", 2, dir("")),
		2, controller("freezer", 2, dir("box", 3, property("notify_on_release"), 2, dir("init", 2, dir("x", 3, property("x"))), 2, dir("free")))))
	if got := tidy(); !bytes.Equal(got, want) {
		t.Errorf("%q\n%q", got, want)
	}
	if got := tidy(); !bytes.Equal(got, want) {
		t.Errorf("the second time %q", got)
	}
	if err := TidyGroups(path+".not", nil); err != nil {
		t.Error(err)
	}
	deep := dir("x")
	for range 200 {
		deep = dir("x", 2, deep)
	}
	for name, bad := range map[string][]byte{"short": []byte("12345678"), "cut": want[:len(want)-1], "deep": image(message(2, controller("freezer", 2, deep))),
		"group elsewhere":     image(message(2, controller("freezer", 2, dir("/box", 2, dir("../../../made"))))),
		"top elsewhere":       image(message(2, controller("memory", 2, dir("/..")))),
		"file elsewhere":      image(message(2, controller("freezer", 2, dir("/box", 3, property("../../core_pattern"))))),
		"hierarchy elsewhere": image(message(2, controller("../made"))),
		"member elsewhere":    image(message(1, message(1, 7, 2, message(1, "freezer", 2, "/../x")))),
		"twice":               image(message(2, controller("freezer"), 2, controller("freezer"))),
		"option":              image(message(2, controller("freezer,noprefix"))),
		"half a name":         image(message(1, message(1, 7, 2, message(1, "freezer", 2, "/boxer", 3, 4)))),
		"a longer namespace":  image(message(1, message(1, 7, 2, message(1, "freezer", 2, "/box", 3, 5)))),
		"two namespaces": image(message(1, message(1, 7, 2, message(1, "freezer", 2, "/box", 3, 4)), 1, message(1, 8, 2, message(1, "freezer", 2, "/other", 3, 6)),
			2, controller("freezer"))),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := TidyGroups(path, func(string) bool { return true }); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestReadCore(t *testing.T) {
	creds := message(1, 0, 9, 1, 9, 0, 10, 2, 10, 1, 11, 4, 11, 0, 12, 8, 12, 0, 18, 1, 19, 16, 19, 0)
	core := func(thread ...any) []byte { return image(message(1, 1, 5, message(thread...))) }
	c, err := readCore(core(10, creds, 11, 2))
	if err != nil || c.Capabilities != 1|2|4|8|16|1<<32 || !c.NoNewPrivileges || !c.Filtered {
		t.Errorf("%+v, %v", c, err)
	}
	packed := message(12, []byte{0x80, 0x01, 0x03})
	if c, err = readCore(core(10, packed)); err != nil || c.Capabilities != 128|3<<32 || c.NoNewPrivileges || c.Filtered {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = readCore(image(message(1, 1, 3, message(1, 2, 2, 0)))); err != nil || c.Capabilities != 0 || !c.NoNewPrivileges || !c.Filtered {
		t.Errorf("one that has ended: %+v, %v", c, err)
	}
	for name, bad := range map[string][]byte{
		"one that runs":   image(message(1, 1, 3, message(1, 1))),
		"two states":      image(message(1, 1, 3, message(1, 2, 1, 1))),
		"no thread":       image(message(1, 1)),
		"two threads":     image(message(5, message(10, creds), 5, message(10, creds))),
		"no credentials":  core(11, 2),
		"two credentials": core(10, creds, 10, creds),
		"two modes":       core(10, creds, 11, 2, 11, 0),
		"three words":     core(10, message(12, 1, 12, 1, 12, 1)),
		"cut":             core(10, creds, 11, 2)[:30],
		"short":           []byte("1234"),
	} {
		if c, err := readCore(bad); err == nil {
			t.Errorf("%s is taken: %+v", name, c)
		}
	}
}

func TestSetFilter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "seccomp.img")
	if err := os.WriteFile(path, image(message(1, message(1, "old", 3, 1), 1, message(1, "added", 2, 0))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SetFilter(dir, []byte("new one")); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(path)
	if want := image(message(1, message(1, "new one", 3, 1), 1, message(1, "added", 2, 0))); !bytes.Equal(got, want) {
		t.Errorf("%q\n%q", got, want)
	}
	if err := SetFilter(t.TempDir(), nil); err == nil {
		t.Error("none is taken for one")
	}
}

// Whatever an image holds, it is read or refused.
func FuzzImages(f *testing.F) {
	f.Add(image(message(1, 1, 5, message(10, message(9, 1), 11, 2))))
	f.Add(image(message(2, message(1, "freezer", 2, message(1, "/")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = readCore(b)
		dir := t.TempDir()
		for _, name := range []string{"cgroup.img", "seccomp.img"} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if TidyGroups(filepath.Join(dir, "cgroup.img"), func(string) bool { return false }) == nil {
			if err := TidyGroups(filepath.Join(dir, "cgroup.img"), func(string) bool { return false }); err != nil {
				t.Error(err)
			}
		}
		_ = SetFilter(dir, []byte("x"))
	})
}
