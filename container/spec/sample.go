package spec

import (
	wire "github.com/moby/moby/api/types/container"
)

// Sample is the config.json of an ordinary container, for processes that
// rehearse while they wait for theirs.
func Sample(cgroupParent string) ([]byte, error) {
	s, err := Build(Input{
		ID: "sample", Config: &wire.Config{}, Path: "sh", Rootfs: "rootfs", UTSName: "sample",
		HostConfig:   &wire.HostConfig{ShmSize: 64 << 20, IpcMode: wire.IPCModePrivate, CgroupnsMode: wire.CgroupnsModePrivate},
		CgroupParent: cgroupParent,
		Hosts:        "/hosts", Hostname: "/hostname", ResolvConf: "/resolv.conf",
	})
	if err != nil {
		return nil, err
	}
	return Encode(s)
}
