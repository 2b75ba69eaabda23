package hosts

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
)

func TestParse(t *testing.T) {
	f, err := Parse([]byte(strings.Join([]string{
		`server = "registry.example"`, `capabilities = ["pull"]`,
		`[host."https://b"]`, `skip_verify = true`, `override_path = true`, `dial_timeout = "3s"`, `client = ["x", "y"]`,
		`[host."https://b".header]`, `a = "1"`,
		`[host."http://a/prefix"]`, `ca = ["1", "2"]`, `[host."http://a/prefix".rewrite]`, `"x" = "1"`, `"^long" = "2"`,
		`[host.plain]`,
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(f.Order, " ") != "https://b http://a/prefix plain" {
		t.Errorf("order %q", f.Order)
	}
	b, _ := f.Host["https://b"].Settings()
	if !b.SkipVerify || !b.Override || b.Dial.Seconds() != 3 || len(b.pairs) != 2 || b.Header.Get("a") != "1" || b.Can != Pull|Push|Resolve {
		t.Errorf("%+v", b)
	}
	a, _ := f.Host["http://a/prefix"].Settings()
	if len(a.ca) != 2 || len(a.Rewrites) != 2 || a.Rewrites.Apply("longx") != "2x" {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{
		`host = 1`: `line 1: `,
		`[host."https://a"]` + "\n" + `capabilities = ["fly"]`:    `host "https://a": unknown capability "fly": want pull, resolve or push`,
		`[host."https://u:p@a"]`:                                  `"a" has a user`,
		`[host."https://a?sig=1"]`:                                `"https://a" has a user, a query`,
		`[host.""]`:                                               `"" is not the URL of a host`,
		`dial_timeout = "fast"`:                                   `invalid dial_timeout "fast"`,
		`ca = 1`:                                                  `ca: want a string or a list of strings`,
		`client = [["a", "b", "c"]]`:                              `client: want a file`,
		"[header]\n" + `"a b" = "c"`:                              `header "a b": this is no name of a header`,
		"[header]\n" + `a = "b\u0001"`:                            `header a: its value has a control character`,
		"[rewrite]\n" + `"(" = "x"`:                               `rewrite "(": `,
		`server = `:                                               `line 1: `,
		`[host."https://a"]` + "\n\n" + `overide_path = true`:     `line 3: unknown key host.https://a.overide_path`,
		`[[host."https://a"]]`:                                    `line 1: `,
		`[host."https://a"]` + "\n" + `[host."https://a"]` + "\n": ``,
	} {
		_, err := Parse([]byte(text))
		if err == nil || !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestListsThatCannotBe(t *testing.T) {
	for _, bad := range []string{"a/b", "", "a b", "http://", "-x", "user@host", "ftp://x"} {
		if _, err := ReadInsecure([]string{bad}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"a", "ftp://a", "https://", "https://a?b", "https://a#b", "https://u:secret@a", ":"} {
		if _, err := ParseMirror(bad); !errors.Is(err, fault.Invalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// No name of a registry leads out of the directory.
func TestDirs(t *testing.T) {
	for _, host := range []string{"..", ".", "a/../b", ""} {
		if dirs := Dirs(os.TempDir(), host); len(dirs) != 0 {
			t.Errorf("%q is looked for in %v", host, dirs)
		}
	}
	if dirs := Dirs("/d", "a.test:5000"); strings.Join(dirs, " ") != "/d/a.test_5000_ /d/a.test:5000 /d/_default" {
		t.Errorf("%q", dirs)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"server = \"https://a\"\n[host.\"https://b\"]\ncapabilities = [\"pull\"]\n", "host = {a = {ca = [\"x\"]}, b = {}}", "[host]\na.skip_verify = true\n",
		"[host.\"a\".rewrite]\n\"^x(.*)\" = \"y$1\"\n", "client = [[\"a\",\"b\"]]", "[header]\nx = [\"1\"]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		if len(file.Order) != len(file.Host) {
			t.Errorf("%q: %d of %d hosts have a place", data, len(file.Order), len(file.Host))
		}
		for _, h := range append(file.Order, file.Server) {
			if u, err := Address(h); h != "" && (err != nil || u.Host == "") {
				t.Errorf("%q: the address %q was accepted", data, h)
			}
		}
	})
}
