package format

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 90 * time.Second: "About a minute",
		5 * time.Minute: "5 minutes", 80 * time.Minute: "About an hour", 90 * time.Minute: "2 hours", 47 * time.Hour: "47 hours", 49 * time.Hour: "2 days",
		14 * 24 * time.Hour: "2 weeks", 60 * 24 * time.Hour: "2 months", 800 * 24 * time.Hour: "2 years"} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[float64]string{0: "0B", 999: "999B", 1000: "1kB", 1982000: "1.98MB", 1.5e9: "1.5GB", 123456: "123kB"} {
		if got := Size(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
	if got := BinarySize(25276000000); got != "23.54GiB" {
		t.Error(got)
	}
}

func TestFunctions(t *testing.T) {
	for text, want := range map[string]string{
		`{{upper .}}`: "HELLO WORLD", `{{title .}}`: "Hello World", `{{index (split . " ") 1}}`: "world", `{{truncate . 4}}`: "hell",
		`{{pad . 1 2}}|`: " hello world  |", `{{json .}}`: `"hello world"`, `{{join (split . " ") ","}}`: "hello,world", `a\tb`: "a\tb", `json`: `"hello world"`,
	} {
		if got, err := Execute(text, "hello world"); got != want || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"{{", "{{.Foo}}", "{{join . 1}}"} {
		if got, err := Execute(text, "x"); err == nil {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestEllipsis(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "exactly ten": "exactly t…", "äöüäöüäöüäöü": "äöüäöüäöü…"} {
		if got := Ellipsis(in, 10); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := ShortID("sha256:0123456789abcdef"); got != "0123456789ab" {
		t.Error(got)
	}
}
