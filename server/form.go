package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
)

// maxBody bounds the JSON bodies that the server reads into memory.
const maxBody = 16 << 20

// form parses the query, and a body of form type as Docker does. An unknown
// content type is no error: a POST with only a query may carry any.
func (r *request) form() error {
	if err := r.ParseForm(); err != nil && !strings.HasPrefix(err.Error(), "mime:") {
		return fault.New(fault.Invalid, "%w", err)
	}
	return nil
}

// query takes the parameters from the query alone and leaves the body, which is
// an archive whatever type the client gave it.
func (r *request) query() { r.Form = r.URL.Query() }

// flag is a form value as a boolean: empty, 0, no, false and none are false.
func (r *request) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.Form.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// integer is a form value as a number, nil when it is absent or empty.
func (r *request) integer(key string) (*int, error) {
	value := r.Form.Get(key)
	if value == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	return &n, nil
}

// size is one dimension of a terminal, of which there must be a value. What is more
// than a terminal has is as much as it has.
func (r *request) size(key, what string) (uint16, error) {
	value := r.Form.Get(key)
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "-"), 10, 32)
	if err == nil && strings.HasPrefix(value, "-") {
		err = strconv.ErrRange
	}
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return 0, fault.New(fault.Invalid, "invalid resize %s %q: %w", what, value, err)
	}
	return uint16(min(n, math.MaxUint16)), nil
}

// filters decodes the parameter filters: {"name":{"value":true}}, or the form
// of the oldest clients, {"name":["value"]}.
func (r *request) filters() (map[string]map[string]bool, error) {
	text := r.Form.Get("filters")
	if text == "" {
		return map[string]map[string]bool{}, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(text), &lists); err == nil {
		out := make(map[string]map[string]bool, len(lists))
		if _, nameless := lists[""]; nameless {
			return nil, fault.New(fault.Invalid, "invalid filter")
		}
		for key, values := range lists {
			for _, v := range values {
				addFilter(out, key, v)
			}
		}
		return out, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &sets); err != nil {
		return nil, fault.New(fault.Invalid, "invalid filter")
	}
	out := make(map[string]map[string]bool, len(sets))
	if _, nameless := sets[""]; nameless {
		return nil, fault.New(fault.Invalid, "invalid filter")
	}
	for key, values := range sets {
		for v := range values { // a value counts by being there, even when false
			addFilter(out, key, v)
		}
	}
	return out, nil
}

func addFilter(filters map[string]map[string]bool, key, value string) {
	if filters[key] == nil {
		filters[key] = map[string]bool{}
	}
	filters[key][value] = true
}

// moment is a form value as a point in time: Unix seconds with an optional
// fraction, or RFC 3339. Absent gives the zero time.
func (r *request) moment(key string) (time.Time, error) {
	value := r.Form.Get(key)
	if value == "" {
		return time.Time{}, nil
	}
	seconds, fraction, _ := strings.Cut(value, ".")
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
			return t, nil
		}
		return time.Time{}, fault.New(fault.Invalid, "%w", err)
	}
	var nsec int64
	if fraction != "" {
		digits := (fraction + "000000000")[:9]
		if nsec, err = strconv.ParseInt(digits, 10, 64); err != nil || nsec < 0 {
			return time.Time{}, fault.New(fault.Invalid, "invalid value %q for %s: want seconds since 1970 or an RFC 3339 time", value, key)
		}
	}
	return time.Unix(sec, nsec), nil
}

// json decodes the body into out, and asks the authorization plugins about what
// it has become. No body at all is allowed and changes nothing; fields that out does
// not know are skipped, as Docker does.
func (r *request) json(out any) error {
	err := r.decode(out)
	if err != nil && !errors.Is(err, errNoBody) {
		return err
	}
	body := out
	if err != nil || r.Body == nil || r.ContentLength == 0 {
		body = nil
	}
	if err := r.hearing.request(r.Context(), body); err != nil {
		return err
	}
	return err
}

func (r *request) decode(out any) error {
	if err := r.wantJSON(); err != nil {
		return err
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	body := http.MaxBytesReader(nil, r.Body, maxBody)
	defer body.Close()
	dec := json.NewDecoder(body)
	if err := dec.Decode(out); err != nil {
		if errors.Is(err, io.EOF) {
			return errNoBody
		}
		return fault.New(fault.Invalid, "invalid JSON: %w", inBody(out, err))
	}
	if dec.More() {
		return fault.New(fault.Invalid, "unexpected content after JSON")
	}
	return nil
}

// dockersName is what Docker calls the body of a request that the wire types call
// by the key.
var dockersName = map[string]string{
	"*container.ExecCreateRequest": "ExecOptions", "*container.ExecStartRequest": "ExecStartOptions", "*volume.CreateRequest": "CreateOptions",
	"*server.updateBody": "UpdateConfig",
}

// inBody names the field of a wrong type by its place in the body, as newer
// decoders do, and not by the Go types that embed it.
func inBody(out any, err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	field := strings.TrimPrefix(strings.TrimPrefix(wrong.Field, "CreateRequest."), "Config.")
	field = strings.TrimPrefix(strings.TrimPrefix(strings.Replace(field, ".Resources.", ".", 1), "UpdateConfig."), "Resources.")
	root := strings.NewReplacer("CreateBody", "CreateRequest", "updateBody", "UpdateConfig", "server.", "container.", "version.", "container.", "words", "string").Replace(wrong.Type.String())
	if field == "" {
		return fmt.Errorf("json: cannot unmarshal %s into Go value of type %s", wrong.Value, root)
	}
	return fmt.Errorf("json: cannot unmarshal %s into Go struct field %s.%s of type %s", wrong.Value, dockersName[reflect.TypeOf(out).String()], field, wrong.Type)
}

var errNoBody = fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")

// wantJSON refuses a body of another type than JSON.
func (r *request) wantJSON() error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && (r.Body == nil || r.ContentLength == 0) {
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return fault.New(fault.Invalid, "malformed Content-Type header (%s): %w", ct, err)
	}
	if mediaType != "application/json" {
		return fault.New(fault.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// platform decodes one {"os":…,"architecture":…} of the form, as the newer
// endpoints take it, into os/arch[/variant]; "" when absent.
func (r *request) platform(key string) (string, error) {
	values := r.Form[key]
	if len(values) > 1 {
		return "", fault.New(fault.Invalid, "multiple platform parameters not supported")
	}
	if len(values) == 0 || values[0] == "" {
		return "", nil
	}
	return parsePlatform(values[0])
}

// platforms decodes any number of them.
func (r *request) platforms(key string) (list []string, err error) {
	for _, value := range r.Form[key] {
		if value == "" {
			continue
		}
		p, err := parsePlatform(value)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func parsePlatform(value string) (string, error) {
	var p struct {
		OS           string   `json:"os"`
		Architecture string   `json:"architecture"`
		Variant      string   `json:"variant"`
		OSVersion    string   `json:"os.version"`
		OSFeatures   []string `json:"os.features"`
	}
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return "", fault.New(fault.Invalid, "failed to parse platform: %w", err)
	}
	if p.OSVersion != "" || len(p.OSFeatures) > 0 {
		return "", fault.New(fault.NotImplemented, "choosing a platform by os.version or os.features is not supported yet")
	}
	if p.OS == "" || p.Architecture == "" {
		if p.OS == "" && p.Architecture == "" && p.Variant != "" {
			return "", fault.New(fault.Invalid, "optional platform fields provided, but OS and Architecture are missing")
		}
		return "", fault.New(fault.Invalid, "both OS and Architecture must be provided")
	}
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text, nil
}

// loadPlatforms are those that loading and saving are about. The parameter came
// with 1.48, and several with 1.52.
func (r *request) loadPlatforms() ([]string, error) {
	if r.version.Before(48) {
		return nil, nil
	}
	if r.version.Before(52) {
		if _, err := r.platform("platform"); err != nil {
			return nil, err
		}
	}
	return r.platforms("platform")
}
