package container

import (
	"encoding/json"
	"errors"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// FuzzCreate checks requests of any kind: each is accepted, or refused as the
// client's own mistake.
func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		`{"Image":"x","HostConfig":{"Memory":8388608,"Binds":["/a:/b:ro"],"Links":["a:b"],"DeviceCgroupRules":["c 1:3 rwm"],"Ulimits":[{"Name":"nofile"}]}}`,
		`{"Image":"x","Env":["A=1"],"StopSignal":"USR1","HostConfig":{"Tmpfs":{"/t":"size=1m"},"SecurityOpt":["label:disable","seccomp={}"],"IpcMode":"container:x"}}`,
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["exec"]]}}],"BlkioWeightDevice":[{"Path":"/dev/null"},null]}}`,
		`{"Image":"x","ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80-81/tcp":[{"HostPort":"8000-8001"}]},"PublishAllPorts":true}}`,
		`{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{},"Aliases":["a"]},"x":null}}}`,
		`{"HostConfig":{"Sysctls":{"a.b":"c"},"CapAdd":["all"],"StorageOpt":{"size":"-1"},"DeviceRequests":[{"Count":-1}],"RestartPolicy":{"Name":"always"}}}`,
	} {
		f.Add([]byte(seed))
	}
	st, err := record.Open(f.TempDir(), nil)
	if err != nil {
		f.Fatal(err)
	}
	s, err := assemble(checkerConfig(f.TempDir()), st, host{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b struct {
			*wire.Config
			HostConfig       *wire.HostConfig
			NetworkingConfig *wirenet.NetworkingConfig
		}
		if json.Unmarshal(body, &b) != nil {
			return
		}
		r := create.Request{Config: b.Config, HostConfig: b.HostConfig, NetworkingConfig: b.NetworkingConfig}
		if r.HostConfig != nil {
			r.HostConfig.Devices, r.HostConfig.Runtime = nil, "" // whole trees would be walked
		}
		if r.Config != nil && r.Config.Image == "" {
			r.Config.Image = "x"
		}
		err := r.Settle(new(create.Settings))
		if err == nil {
			err = (&creation{containers: s, req: &r}).check()
		}
		if err != nil && !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotImplemented) {
			t.Errorf("%s: %v (%v)", body, err, fault.KindOf(err))
		}
	})
}
