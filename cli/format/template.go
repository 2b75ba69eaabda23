// Package format turns what commands list and inspect into text: tables,
// JSON and the Go templates of --format, with Docker's functions, column
// titles and ways to shorten.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
)

// functions returns what a template may call beyond Go's own.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"join":     join,
		"split":    strings.Split,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"title":    title,
		"pad":      pad,
		"truncate": truncate,
	}
}

// Parse parses a template.
func Parse(text string) (*template.Template, error) {
	return template.New("").Funcs(functions()).Parse(text)
}

// unescape replaces what a shell's single quotes leave of tabs and newlines.
func unescape(text string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
}

// toJSON renders a value without the escapes that HTML would need.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

func join(list any, sep string) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", fmt.Errorf("cannot join %T", list)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, sep), nil
}

// title puts the first letter of each word in upper case.
func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		first := !unicode.IsLetter(prev) && !unicode.IsDigit(prev) && prev != '_' && prev != '\''
		if prev = r; first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, length int) string {
	if length >= 0 && len(s) > length {
		return s[:length]
	}
	return s
}

// Execute renders one value by a template that Parse accepts.
func Execute(text string, v any) (string, error) {
	if text == "json" {
		return toJSON(v)
	}
	t, err := Parse(unescape(text))
	if err != nil {
		return "", fmt.Errorf("failed to parse template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", fmt.Errorf("failed to execute template: %w", err)
	}
	return b.String(), nil
}

// Inspector renders inspected objects by one template.
type Inspector struct {
	template *template.Template
	json     bool // one line of JSON; else, without a template, indented
	decoder  decoder
}

// NewInspector parses the template; "" is JSON with indentation and "json"
// JSON on one line.
func NewInspector(text string) (*Inspector, error) {
	i := &Inspector{json: text == "json", decoder: decoder{}}
	if text == "" || i.json {
		return i, nil
	}
	t, err := template.New("").Funcs(functions()).Funcs(template.FuncMap{"json": i.decoder.toJSON}).Parse(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	i.template = t.Option("missingkey=error")
	return i, nil
}

// Render renders the JSON of all the objects, or of those before one that fails.
func (i *Inspector) Render(objects [][]byte) (text string, err error) {
	if i.template == nil {
		list := append([]byte{'['}, bytes.Join(objects, []byte{','})...)
		return i.plain(append(list, ']'))
	}
	var b strings.Builder
	for _, raw := range objects {
		var line string
		if line, err = i.One(raw); err != nil {
			break
		}
		b.WriteString(line)
	}
	if b.Len() == 0 {
		b.WriteByte('\n') // as Docker's client does
	}
	return b.String(), err
}

func (i *Inspector) plain(raw []byte) (string, error) {
	var b bytes.Buffer
	err := error(nil)
	if i.json {
		err = json.Compact(&b, bytes.TrimSpace(raw))
	} else {
		err = json.Indent(&b, bytes.TrimSpace(raw), "", "    ")
	}
	b.WriteByte('\n')
	return b.String(), err
}

// One renders the JSON of one object.
func (i *Inspector) One(raw []byte) (string, error) {
	if i.template == nil {
		return i.plain(raw)
	}
	v, err := i.decoder.decode(raw)
	if err != nil {
		return "", err
	}
	complete(v)
	var b strings.Builder
	if i.template.Execute(&b, v) != nil {
		// The template may name the Go field of Docker's own structs.
		alias(v)
		b.Reset()
		if i.template.Execute(&b, v) != nil {
			return "", i.complaint(raw)
		}
	}
	b.WriteByte('\n')
	return b.String(), nil
}

// complaint is the template's error about the object as the daemon sent it.
func (i *Inspector) complaint(raw []byte) error {
	v, err := i.decoder.decode(raw)
	if err == nil {
		err = i.template.Execute(io.Discard, v)
	}
	if err == nil {
		err = errors.New("a field that is not set has no fields")
	}
	return fmt.Errorf("template parsing error: %w", err)
}

// decoder decodes JSON for templates and remembers, by the address of each
// object and list, its text: so the function json keeps the daemon's order of
// keys. The length tells a list from the beginning of it.
type decoder map[place]json.RawMessage

type place struct {
	address uintptr
	length  int // of a list
}

func placeOf(v any) place {
	p := place{address: reflect.ValueOf(v).Pointer()}
	if list, ok := v.([]any); ok {
		p.length = len(list)
	}
	return p
}

func (d decoder) toJSON(v any) (string, error) {
	switch v.(type) {
	case map[string]any, []any:
		if raw, ok := d[placeOf(v)]; ok {
			var b bytes.Buffer
			err := json.Compact(&b, raw)
			return b.String(), err
		}
	}
	return toJSON(v)
}

// decode gives whole numbers as int64, so that they print and compare as
// numbers do in Go, and objects as maps.
func (d decoder) decode(raw []byte) (any, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, errors.New("the daemon's answer is empty")
	}
	switch raw[0] {
	case '{':
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, err
		}
		o := make(map[string]any, len(fields))
		for name, field := range fields {
			v, err := d.decode(field)
			if err != nil {
				return nil, err
			}
			o[name] = v
		}
		d[placeOf(o)] = raw
		return o, nil
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
		list := make([]any, len(items))
		for i, item := range items {
			var err error
			if list[i], err = d.decode(item); err != nil {
				return nil, err
			}
		}
		if len(list) > 0 {
			d[placeOf(list)] = raw
		}
		return list, nil
	}
	return scalar(raw)
}

func scalar(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	n, ok := v.(json.Number)
	if !ok {
		return v, nil
	}
	if whole, err := n.Int64(); err == nil {
		return whole, nil
	}
	return n.Float64()
}

// aliases are the names of fields in Docker's Go structs that differ from
// those in JSON.
var aliases = [...][2]string{
	{"Id", "ID"}, {"CpuShares", "CPUShares"}, {"NanoCpus", "NanoCPUs"}, {"CpuPeriod", "CPUPeriod"},
	{"CpuQuota", "CPUQuota"}, {"CpuRealtimePeriod", "CPURealtimePeriod"}, {"CpuRealtimeRuntime", "CPURealtimeRuntime"},
	{"CpuCount", "CPUCount"}, {"CpuPercent", "CPUPercent"}, {"Dns", "DNS"}, {"DnsOptions", "DNSOptions"},
	{"DnsSearch", "DNSSearch"}, {"HostIp", "HostIP"}, {"Os", "OS"}, {"CpuCfsPeriod", "CPUCfsPeriod"},
	{"CpuCfsQuota", "CPUCfsQuota"}, {"HttpProxy", "HTTPProxy"}, {"HttpsProxy", "HTTPSProxy"}, {"ApiVersion", "APIVersion"},
}

// alias adds the aliases to every object below v.
func alias(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, a := range aliases {
			if field, ok := v[a[0]]; ok && v[a[1]] == nil {
				v[a[1]] = field
			}
		}
		for _, field := range v {
			alias(field)
		}
	case []any:
		for _, item := range v {
			alias(item)
		}
	}
}
