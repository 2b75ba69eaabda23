package keeper

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/supervise"
)

const fullSpec = `{"ociVersion":"1.2.0","process":{"terminal":true,"consoleSize":{"height":1,"width":2},"user":{"uid":4294967295,"gid":1,"umask":18,"additionalGids":[1,2]},
"args":["a","\u263a\n"],"env":[],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1}],"noNewPrivileges":true,"oomScoreAdj":-1,"apparmorProfile":""},
"root":{"path":"rootfs","readonly":true},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","uidMappings":[{"containerID":1,"hostID":2,"size":3}]},{"destination":"/x"}],
"annotations":{"a":"b","c":""},"hooks":{"prestart":[{"path":"/x","timeout":3}]},"unknown":{"x":[1,{}]},
"linux":{"uidMappings":null,"sysctl":{"a":"b"},"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":-1,"access":"rwm"}],"memory":{"limit":9007199254740993,"swap":-1},
"cpu":{"shares":2,"quota":-1,"cpus":"0-1"},"pids":{"limit":5},"blockIO":{"weight":1,"weightDevice":[{"major":8,"minor":1,"weight":100,"leafWeight":7}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":18446744073709551615}]},
"hugepageLimits":[{"pageSize":"2MB","limit":1}],"unified":{"memory.high":"1"}},"namespaces":[{"type":"pid"},{"type":"network","path":"/x"}],
"devices":[{"path":"/dev/x","type":"c","major":1,"minor":2,"fileMode":438,"uid":0}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],
"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":18446744073709551615,"valueTwo":0,"op":"SCMP_CMP_EQ"}]}]},"maskedPaths":["/a"],"personality":{"domain":"LINUX"},
"timeOffsets":{"monotonic":{"secs":-5,"nanosecs":7}}}}`

func TestUnmarshalAsEncodingJSON(t *testing.T) {
	same := func(data string, got, want any) {
		t.Helper()
		if err := json.Unmarshal([]byte(data), want); err != nil {
			t.Fatal(err)
		}
		if err := unmarshal([]byte(data), got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	same(fullSpec, &specs.Spec{}, &specs.Spec{})
	same(sampleSpec, &specs.Spec{}, &specs.Spec{})
	for _, v := range []any{
		supervise.CreateRequest{NetNS: true, Config: supervise.Config{ID: "x", Rootfs: supervise.Rootfs{Lower: []string{"a"}}, ConsoleSize: [2]uint16{1, 65535}, TTY: true}},
		supervise.AttachOptions{Stdin: true, Buffered: []byte{0, 255, 10}, NoStream: true},
		supervise.ExecConfig{ID: "x", Process: specs.Process{Args: []string{"a"}}, Attach: supervise.AttachOptions{DetachKeys: []byte{16, 17}}},
		supervise.ResizeRequest{ExecID: "x", Height: 1, Width: 2},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		switch v.(type) {
		case supervise.CreateRequest:
			same(string(data), &supervise.CreateRequest{}, &supervise.CreateRequest{})
		case supervise.AttachOptions:
			same(string(data), &supervise.AttachOptions{}, &supervise.AttachOptions{})
		case supervise.ExecConfig:
			same(string(data), &supervise.ExecConfig{}, &supervise.ExecConfig{})
		case supervise.ResizeRequest:
			same(string(data), &supervise.ResizeRequest{}, &supervise.ResizeRequest{})
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, data := range []string{`{"root":"x"}`, `{"process":{"args":{}}}`, `{"process":{"user":{"uid":-1}}}`, `{"hostname":1}`, `{"mounts":{"a":1}}`, `[]`, `{`} {
		if err := unmarshal([]byte(data), &specs.Spec{}); err == nil {
			t.Errorf("%s was accepted", data)
		}
	}
}

func TestDetachKeysFilter(t *testing.T) {
	for _, c := range []struct {
		in     []string
		out    string
		detach bool
	}{
		{[]string{"abc"}, "abc", false},
		{[]string{"\x10\x11"}, "", true},
		{[]string{"a\x10", "\x11b"}, "a", true},
		{[]string{"\x10", "x"}, "\x10x", false},
		{[]string{"\x10\x10\x11"}, "\x10", true}, // the second key is a new beginning
		{[]string{"\x10x\x10\x11"}, "\x10x", true},
	} {
		d := detachKeys{keys: []byte{16, 17}}
		var out []byte
		detach := false
		for _, p := range c.in {
			var got []byte
			if got, detach = d.filter([]byte(p)); true {
				out = append(out, got...)
			}
		}
		if string(out) != c.out || detach != c.detach {
			t.Errorf("%q: %q, %v", c.in, out, detach)
		}
	}
}

func BenchmarkUnmarshalSpec(b *testing.B) {
	for range b.N {
		var s specs.Spec
		if err := unmarshal([]byte(fullSpec), &s); err != nil {
			b.Fatal(err)
		}
	}
}

// sampleSpec touches the types that a config.json usually has.
const sampleSpec = `{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[1]},"args":["sh"],"env":["A=b"],"cwd":"/",
"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":1}],"oomScoreAdj":0},
"root":{"path":"rootfs"},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],"annotations":{"a":"b"},
"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1},"cpu":{"shares":1},"pids":{"limit":1},"blockIO":{"weight":1}},"cgroupsPath":"/x",
"namespaces":[{"type":"pid"}],"devices":[{"path":"/dev/x","type":"c","major":1,"minor":1}],"sysctl":{"a":"b"},
"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]},
"maskedPaths":["/proc/acpi"],"readonlyPaths":["/proc/bus"]}}`
