package keeper

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/supervise"
)

// warm does, while nobody waits for this process, what costs at its first
// time only: encoding/json looks at each type once, and code and heap come in
// page by page.
func warm() {
	var spec specs.Spec
	unmarshal([]byte(sampleSpec), &spec)
	var r supervise.CreateRequest
	unmarshal([]byte(`{"ID":"x","Rootfs":{"Lower":["a"]},"Log":{},"Runtime":{},"ConsoleSize":[1,1],"NetNS":true}`), &r)
	b, _ := json.Marshal(supervise.Started{})
	json.Marshal(supervise.Message{ID: 1, Method: "x", Body: b})
	json.Marshal(supervise.Exit{})
	var m supervise.Message
	json.Unmarshal([]byte(`{"id":1,"method":"x","body":{}}`), &m)
}

// sampleSpec touches the types that a config.json usually has.
const sampleSpec = `{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[1]},"args":["sh"],"env":["A=b"],"cwd":"/",
"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":1}],"oomScoreAdj":0},
"root":{"path":"rootfs"},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],"annotations":{"a":"b"},
"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1},"cpu":{"shares":1},"pids":{"limit":1},"blockIO":{"weight":1}},"cgroupsPath":"/x",
"namespaces":[{"type":"pid"}],"devices":[{"path":"/dev/x","type":"c","major":1,"minor":1}],"sysctl":{"a":"b"},
"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]},
"maskedPaths":["/proc/acpi"],"readonlyPaths":["/proc/bus"]}}`
