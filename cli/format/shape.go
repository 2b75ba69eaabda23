package format

import "strings"

// shapes has the fields of what is inspected that may be missing in JSON, or
// null, with the kind of their zero value: a template finds them, as it does in
// Docker's own structs, and prints [] and not "no value". A path's * is any key.
var shapes = map[string]map[string]string{
	"container": {
		"":       `ExecIDs=[] GraphDriver=nil ImageManifestDescriptor=nil Mounts=[] SizeRw=nil SizeRootFs=nil Storage=nil`,
		"State":  `Health=nil`,
		"Config": configShape + ` NetworkDisabled=false StopTimeout=nil`,
		"HostConfig": `Annotations={} Binds=[] BlkioDeviceReadBps=[] BlkioDeviceReadIOps=[] BlkioDeviceWriteBps=[] BlkioDeviceWriteIOps=[]` +
			` BlkioWeightDevice=[] CapAdd=[] CapDrop=[] DeviceCgroupRules=[] DeviceRequests=[] Devices=[] Dns=[] DnsOptions=[] DnsSearch=[]` +
			` ExtraHosts=[] GroupAdd=[] Init=nil Links=[] MaskedPaths=[] MemorySwappiness=nil Mounts=[] OomKillDisable=nil PidsLimit=nil` +
			` PortBindings={} ReadonlyPaths=[] Runtime="" SecurityOpt=[] StorageOpt={} Sysctls={} Tmpfs={} Ulimits=[] Umask=nil VolumesFrom=[]`,
		"HostConfig.LogConfig":       `Config={}`,
		"NetworkSettings":            `Networks={} Ports={}`,
		"NetworkSettings.Networks.*": `Aliases=[] DNSNames=[] DriverOpts={} IPAMConfig=nil Links=[]`,
	},
	"image": {
		"":       `Author="" Comment="" Created="" Descriptor=nil GraphDriver=nil Identity=nil Manifests=[] OsVersion="" RepoDigests=[] RepoTags=[] Variant=""`,
		"Config": configShape,
		"RootFS": `Layers=[] Type=""`,
	},
}

const configShape = `ArgsEscaped=false Cmd=[] Entrypoint=[] Env=[] ExposedPorts={} Healthcheck=nil Labels={} OnBuild=[] Shell=[]` +
	` StopSignal="" User="" Volumes={} WorkingDir=""`

// complete adds the fields that are missing in an inspected object.
func complete(v any) {
	object, ok := v.(map[string]any)
	if !ok {
		return
	}
	kind := ""
	if _, is := object["RootFS"]; is {
		kind = "image"
	} else if _, is := object["HostConfig"]; is {
		kind = "container"
	}
	for path, fields := range shapes[kind] {
		for _, o := range at(object, path) {
			for field := range strings.FieldsSeq(fields) {
				name, zero, _ := strings.Cut(field, "=")
				if o[name] == nil {
					o[name] = zeroOf(zero)
				}
			}
		}
	}
}

// at finds the objects that a path leads to.
func at(object map[string]any, path string) []map[string]any {
	if path == "" {
		return []map[string]any{object}
	}
	key, rest, _ := strings.Cut(path, ".")
	var found []map[string]any
	for name, field := range object {
		if inner, ok := field.(map[string]any); ok && (key == "*" || key == name) {
			found = append(found, at(inner, rest)...)
		}
	}
	return found
}

func zeroOf(kind string) any {
	switch kind {
	case "[]":
		return []any(nil)
	case "{}":
		return map[string]any(nil)
	case `""`:
		return ""
	case "false":
		return false
	}
	return (*struct{})(nil)
}
