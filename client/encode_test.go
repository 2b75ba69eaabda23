package client

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestEncode(t *testing.T) {
	full := &CreateRequest{}
	fill(reflect.ValueOf(full).Elem(), "")
	seconds := 0
	for _, v := range []any{full, &CreateRequest{}, &CreateRequest{Config: Config{StopTimeout: &seconds, Cmd: []string{"a\"<b>\\\n", "ü\x80", ""}},
		HostConfig: &HostConfig{MaskedPaths: []string{}}}, &ExecRequest{}, ExecStartRequest{ConsoleSize: &[2]uint{1, 2}}} {
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := encode(v)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s, %v\nwant\n%s", got, err, want)
		}
	}
}
