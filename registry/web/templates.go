package web

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	units "github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
)

var (
	//go:embed pages.html
	pages string
	//go:embed style.css
	style string
	//go:embed copy.js
	script string
	//go:embed icon.svg
	icon []byte
)

// policy lets pages have their own style and script, and nothing else.
var policy = sync.OnceValue(func() string {
	return "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) +
		"; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
})

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// templates are read when the first page is asked for: a registry that is never
// looked at does not keep them.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"style":  func() template.HTML { return template.HTML("<style>" + style + "</style>") },
		"script": func() template.HTML { return template.HTML("<script>" + script + "</script>") },
		"text":   func(s string) string { return visible(s, 2000) },
		"size":   size,
		"sizes":  func(s sizes) string { return s.String() },
		"short":  func(d digest.Digest) string { return d.Encoded()[:12] },
		"date":   func(t time.Time) string { return t.UTC().Format("2006-01-02") },
		"time":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(pages))
})

func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func (s sizes) String() string {
	least, most := size(s.Least), size(s.Most)
	switch {
	case s.Most == 0:
		return "–"
	case least == most:
		return most
	}
	return least + " – " + most
}

// visible cuts a text, and puts a mark in the place of what would hide or
// reorder the text around it.
func visible(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == most {
			b.WriteString("…")
			break
		}
		n++
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) || r == '\u2028' || r == '\u2029':
			b.WriteRune('\uFFFD')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
