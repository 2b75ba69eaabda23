package keeper

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// unmarshal is json.Unmarshal without the tables that encoding/json keeps of
// each type it has met: those of the OCI specification alone take a quarter of
// a megabyte, in each container's process, and half a millisecond to make.
// Names of fields must match exactly. What has no field is passed over.
func unmarshal(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	return assign(reflect.ValueOf(into).Elem(), v)
}

// assign stores a decoded JSON value; null leaves dst as it is.
func assign(dst reflect.Value, src any) error {
	if src == nil {
		return nil
	}
	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		return assign(dst.Elem(), src)
	}
	ok := false
	switch src := src.(type) {
	case bool:
		if ok = dst.Kind() == reflect.Bool; ok {
			dst.SetBool(src)
		}
	case string:
		return assignString(dst, src)
	case json.Number:
		return assignNumber(dst, src.String())
	case []any:
		return assignList(dst, src)
	case map[string]any:
		switch dst.Kind() {
		case reflect.Struct:
			return assignFields(dst, src)
		case reflect.Map:
			return assignMap(dst, src)
		}
	}
	if !ok {
		return mismatch(dst, src)
	}
	return nil
}

func mismatch(dst reflect.Value, src any) error {
	return fmt.Errorf("a %T stands where a %s belongs", src, dst.Type())
}

func assignString(dst reflect.Value, s string) error {
	switch t, isTime := dst.Addr().Interface().(*time.Time); {
	case isTime:
		return t.UnmarshalText([]byte(s))
	case dst.Kind() == reflect.String:
		dst.SetString(s)
	case dst.Kind() == reflect.Slice && dst.Type().Elem().Kind() == reflect.Uint8:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return err
		}
		dst.SetBytes(b)
	default:
		return mismatch(dst, s)
	}
	return nil
}

func assignNumber(dst reflect.Value, s string) error {
	bits := 64
	if dst.CanInt() || dst.CanUint() || dst.CanFloat() {
		bits = dst.Type().Bits()
	}
	switch {
	case dst.CanInt():
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			return err
		}
		dst.SetInt(n)
	case dst.CanUint():
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			return err
		}
		dst.SetUint(n)
	case dst.CanFloat():
		n, err := strconv.ParseFloat(s, bits)
		if err != nil {
			return err
		}
		dst.SetFloat(n)
	default:
		return mismatch(dst, s)
	}
	return nil
}

func assignList(dst reflect.Value, src []any) error {
	switch dst.Kind() {
	case reflect.Slice:
		dst.Set(reflect.MakeSlice(dst.Type(), len(src), len(src)))
	case reflect.Array:
		src = src[:min(len(src), dst.Len())]
	default:
		return mismatch(dst, src)
	}
	for i, v := range src {
		if err := assign(dst.Index(i), v); err != nil {
			return err
		}
	}
	return nil
}

func assignMap(dst reflect.Value, src map[string]any) error {
	t := dst.Type()
	if t.Key().Kind() != reflect.String {
		return mismatch(dst, src)
	}
	dst.Set(reflect.MakeMapWithSize(t, len(src)))
	for name, v := range src {
		elem := reflect.New(t.Elem()).Elem()
		if err := assign(elem, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		dst.SetMapIndex(reflect.ValueOf(name).Convert(t.Key()), elem)
	}
	return nil
}

func assignFields(dst reflect.Value, src map[string]any) error {
	t := dst.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			if err := assignFields(dst.Field(i), src); err != nil {
				return err
			}
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if err := assign(dst.Field(i), src[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
