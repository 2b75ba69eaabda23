package keep

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
)

func TestRules(t *testing.T) {
	for text, want := range map[string][]Rule{
		`{"gc":{"enabled":false}}`: nil,
		`{"gc":{"policy":[{"keepStorage":"512MB","filter":["unused-for=48h","type=exec.cachemount","shared=false"]},{"all":true,"reservedSpace":"1GB","maxUsedSpace":"2GB","minFreeSpace":"3GB"}]}}`: {
			{Filter: []string{"type=exec.cachemount,shared=false"}, Unused: 48 * time.Hour, Reserved: 512 << 20},
			{All: true, Reserved: 1 << 30, Max: 2 << 30, MinFree: 3 << 30}},
		`{"gc":{"enabled":true,"defaultKeepStorage":"20GB"}}`: {
			{Filter: Temporary, Unused: 48 * time.Hour, Max: 512e6}, {Unused: 60 * 24 * time.Hour, Reserved: 20 << 30}, {Reserved: 20 << 30}, {All: true, Reserved: 20 << 30}},
	} {
		var c Config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		got, err := c.Rules(t.TempDir())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	usual, err := Config{}.Rules(t.TempDir())
	if err != nil || len(usual) != 4 || usual[3].Reserved <= 0 || usual[3].Max < usual[3].Reserved || usual[3].MinFree <= 0 || !usual[3].All {
		t.Errorf("without a configuration: %+v, %v", usual, err)
	}
	for text, want := range map[string]error{
		`{"gc":{"policy":[{"keepStorage":"much"}]}}`: fault.Invalid, `{"gc":{"policy":[{"filter":["unused-for=soon"]}]}}`: fault.Invalid,
		`{"gc":{"defaultMaxUsedSpace":"-1"}}`: fault.Invalid,
	} {
		var c Config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Rules("/"); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestGrants(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                       "network.host",
		`{"entitlements":null}`:    "network.host",
		`{"entitlements":{"x":1}}`: "network.host",
		`{"entitlements":{"network-host":true,"security-insecure":false}}`: "network.host",
		`{"entitlements":{"network-host":false}}`:                          "",
		`{"entitlements":{"security-insecure":true,"device":true}}`:        "network.host security.insecure device",
		`{"entitlements":{"security-insecure":true,"network-host":false}}`: "security.insecure",
	} {
		var c Config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.Grants(); strings.Join(got, " ") != want {
			t.Errorf("%s: %q; want %q", text, got, want)
		}
	}
}
