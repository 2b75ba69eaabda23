package record

import "testing"

func TestParseLink(t *testing.T) {
	for text, want := range map[string]string{"db": "db db", "db:x": "db x", "/db:/web/x": "db x", "": "", ":x": "", "db:": "", "db:/web/": "", "db:a b": "", "db:a\nb": ""} {
		name, alias, err := ParseLink(text)
		if (err != nil) != (want == "") || err == nil && name+" "+alias != want {
			t.Errorf("%q: %s %s %v, want %q", text, name, alias, err, want)
		}
	}
}
