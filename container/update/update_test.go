package update

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// Every field of the API's Resources is changed, or refused by its name unless
// it is what the container has.
func TestEveryResource(t *testing.T) {
	for f := range reflect.TypeFor[wire.Resources]().Fields() {
		var u wire.UpdateConfig
		v := reflect.ValueOf(&u.Resources).Elem().FieldByName(f.Name)
		switch v.Kind() {
		case reflect.String:
			v.SetString("0")
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		case reflect.Int64:
			v.SetInt(20 << 20)
		default:
			v.SetUint(20)
		}
		now := &wire.HostConfig{}
		err := fixed(&u.Resources, &now.Resources)
		if !movable[f.Name] {
			if err == nil || !strings.HasPrefix(err.Error(), f.Name+" ") {
				t.Errorf("%s is not refused: %v", f.Name, err)
			}
			if err := fixed(&u.Resources, &u.Resources); err != nil {
				t.Errorf("%s as it is: %v", f.Name, err)
			}
			continue
		}
		u.MemorySwap = 40 << 20
		to, err := Apply(now, u)
		if err != nil || reflect.ValueOf(to.Resources).FieldByName(f.Name).IsZero() {
			t.Errorf("%s is not changed: %+v, %v", f.Name, to, err)
		}
		v.SetZero()
		if again, err := Apply(to, u); err != nil || reflect.ValueOf(again.Resources).FieldByName(f.Name).IsZero() {
			t.Errorf("%s is lost: %v", f.Name, err)
		}
	}
}

func TestMergedConflicts(t *testing.T) {
	nano, cfs := &wire.HostConfig{Resources: wire.Resources{NanoCPUs: 1}}, &wire.HostConfig{Resources: wire.Resources{CPUPeriod: 2, CPUQuota: 3}}
	for want, test := range map[string]struct {
		now *wire.HostConfig
		u   wire.UpdateConfig
	}{
		"CPU Period cannot be updated": {nano, wire.UpdateConfig{Resources: wire.Resources{CPUPeriod: 5}}},
		"CPU Quota cannot be updated":  {nano, wire.UpdateConfig{Resources: wire.Resources{CPUQuota: 5}}},
		"Nano CPUs cannot be updated":  {cfs, wire.UpdateConfig{Resources: wire.Resources{NanoCPUs: 5}}},
		"already set memoryswap":       {&wire.HostConfig{Resources: wire.Resources{MemorySwap: 4}}, wire.UpdateConfig{Resources: wire.Resources{Memory: 5}}},
		"AutoRemove is enabled":        {&wire.HostConfig{AutoRemove: true}, wire.UpdateConfig{RestartPolicy: wire.RestartPolicy{Name: "always"}}},
	} {
		if _, err := Apply(test.now, test.u); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	endless := &wire.HostConfig{Resources: wire.Resources{MemorySwap: -1}}
	if to, err := Apply(endless, wire.UpdateConfig{Resources: wire.Resources{CPUShares: 5}}); err != nil || to.CPUShares != 5 {
		t.Errorf("beside swap without a limit: %v", err)
	}
	to, err := Apply(cfs, wire.UpdateConfig{RestartPolicy: wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}})
	if err != nil || to.RestartPolicy.MaximumRetryCount != 2 || to == cfs || to.CPUPeriod != 2 {
		t.Errorf("%+v, %v", to, err)
	}
}
