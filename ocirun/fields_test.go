package ocirun

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seen names for each field of a specification the test of this package, or of
// one below it, that shows its effect or its refusal, and after it words of that
// test by which the field is seen.
var seen = map[string]string{
	"Version":                       "TestOtherVersion: Version",
	"Hostname":                      "TestRun: Hostname",
	"Domainname":                    "TestDomainname: Domainname",
	"Annotations":                   "TestState: Annotations",
	"Root.Path":                     "TestRun: shell(t",
	"Root.Readonly":                 "TestMasksAndReadonly: Root.Readonly",
	"Process.Terminal":              "TestTerminal: Terminal",
	"Process.ConsoleSize.Height":    "TestTerminal: Height",
	"Process.ConsoleSize.Width":     "TestTerminal: Width",
	"Process.User.UID":              "TestUserAndCapabilities: UID",
	"Process.User.GID":              "TestUserAndCapabilities: GID",
	"Process.User.Umask":            "TestUserAndCapabilities: Umask",
	"Process.User.AdditionalGids":   "TestUserAndCapabilities: AdditionalGids",
	"Process.Args":                  "TestExec: Args",
	"Process.Env":                   "TestInnerHooks: Env",
	"Process.Cwd":                   "TestUserAndCapabilities: Cwd",
	"Process.Capabilities.Bounding": "TestUserAndCapabilities: Bounding", "Process.Capabilities.Effective": "TestEffectiveCapabilities: Effective",
	"Process.Capabilities.Inheritable": "TestUserAndCapabilities: Inheritable", "Process.Capabilities.Permitted": "TestUserAndCapabilities: Permitted",
	"Process.Capabilities.Ambient": "TestUserAndCapabilities: Ambient",
	"Process.Rlimits.Type":         "TestRlimits: RLIMIT_CORE", "Process.Rlimits.Hard": "TestRlimits: Hard", "Process.Rlimits.Soft": "TestRlimits: Soft",
	"Process.NoNewPrivileges": "TestUserAndCapabilities: NoNewPrivs",
	"Process.ApparmorProfile": "TestLabels: ApparmorProfile", "Process.SelinuxLabel": "TestLabels: SelinuxLabel",
	"Process.OOMScoreAdj":      "TestOOMScore: OOMScoreAdj",
	"Process.Scheduler.Policy": "TestSchedulers: Policy", "Process.Scheduler.Nice": "TestSchedulers: Nice: -3",
	"Process.Scheduler.Priority": "TestSchedulers: Priority", "Process.Scheduler.Flags": "TestSchedulers: Flags",
	"Process.Scheduler.Runtime": "TestSchedulers: Runtime", "Process.Scheduler.Deadline": "TestSchedulers: Deadline", "Process.Scheduler.Period": "TestSchedulers: Period",
	"Process.IOPriority.Class": "TestTaskAttributes: IOPRIO_CLASS_IDLE", "Process.IOPriority.Priority": "TestSchedulers: IOPriority",
	"Process.ExecCPUAffinity.Initial": "TestExecAffinity: Initial", "Process.ExecCPUAffinity.Final": "TestExecAffinity: Final",
	"Mounts.Destination": "TestMountOptions: Destination", "Mounts.Type": "TestMountOptions: Type", "Mounts.Source": "TestMountOptions: Source",
	"Mounts.Options":             "TestEveryMountOption: Options",
	"Mounts.UIDMappings":         "TestMappedMount: UIDMappings",
	"Mounts.GIDMappings":         "TestMappedMount: GIDMappings",
	"Hooks.Prestart":             "TestHooks: Prestart",
	"Hooks.CreateRuntime":        "TestHooks: CreateRuntime",
	"Hooks.CreateContainer":      "TestInnerHooks: CreateContainer",
	"Hooks.StartContainer":       "TestInnerHooks: StartContainer",
	"Hooks.Poststart":            "TestHooks: Poststart",
	"Hooks.Poststop":             "TestHooks: Poststop",
	"Linux.UIDMappings":          "TestUserNamespace: UIDMappings",
	"Linux.GIDMappings":          "TestUserNamespace: GIDMappings",
	"Linux.Sysctl":               "TestSysctl: Sysctl",
	"Linux.CgroupsPath":          "TestCgroupsPath: CgroupsPath",
	"Linux.Namespaces.Type":      "TestSharedMounts: Type",
	"Linux.Namespaces.Path":      "TestJoinUserNamespace: Path",
	"Linux.Devices.Path":         "TestDevices: Path",
	"Linux.Devices.Type":         "TestDevices: Type",
	"Linux.Devices.Major":        "TestDevices: Major",
	"Linux.Devices.Minor":        "TestDevices: Minor",
	"Linux.Devices.FileMode":     "TestDevices: FileMode",
	"Linux.Devices.UID":          "TestDevices: UID",
	"Linux.Devices.GID":          "TestDevices: GID",
	"Linux.NetDevices.Name":      "/cmd/tarerun.TestNetDevices: inner",
	"Linux.RootfsPropagation":    "TestRootPropagation: RootfsPropagation",
	"Linux.MaskedPaths":          "TestMasksAndReadonly: MaskedPaths",
	"Linux.ReadonlyPaths":        "TestReadonlyPaths: ReadonlyPaths",
	"Linux.MountLabel":           "TestLabels: MountLabel",
	"Linux.MemoryPolicy.Mode":    "TestTaskAttributes: MpolBind",
	"Linux.MemoryPolicy.Nodes":   "TestTaskAttributes: Nodes",
	"Linux.MemoryPolicy.Flags":   "TestSchedulers: MpolFStaticNodes",
	"Linux.Personality.Domain":   "TestTaskAttributes: PerLinux32",
	"Linux.Personality.Flags":    "TestRefusals: linux.personality.flags",
	"Linux.TimeOffsets.Secs":     "TestTimeNamespace: Secs",
	"Linux.TimeOffsets.Nanosecs": "TestTimeNamespace: 500000000",

	"Linux.IntelRdt.ClosID": "TestRdtFiles: ClosID", "Linux.IntelRdt.Schemata": "TestRdtFiles: MB:1=70",
	"Linux.IntelRdt.L3CacheSchema": "TestRdtFiles: L3CacheSchema", "Linux.IntelRdt.MemBwSchema": "TestRdtFiles: MB:0=30",
	"Linux.IntelRdt.EnableMonitoring": "TestRdtFiles: EnableMonitoring",

	"Linux.Seccomp.DefaultAction":    "seccomp.TestAgainstLibseccomp: DefaultAction",
	"Linux.Seccomp.DefaultErrnoRet":  "seccomp.TestAgainstLibseccomp: DefaultErrnoRet",
	"Linux.Seccomp.Architectures":    "seccomp.TestAgainstLibseccomp: Architectures",
	"Linux.Seccomp.Flags":            "seccomp.TestFlags: Flags",
	"Linux.Seccomp.ListenerPath":     "TestSeccompAgent: ListenerPath",
	"Linux.Seccomp.ListenerMetadata": "TestSeccompAgent: ListenerMetadata",
	"Linux.Seccomp.Syscalls.Names":   "TestSeccomp: Names", "Linux.Seccomp.Syscalls.Action": "TestSeccomp: Action",
	"Linux.Seccomp.Syscalls.ErrnoRet": "TestSeccomp: ErrnoRet",
	"Linux.Seccomp.Syscalls.Args":     "seccomp.TestAgainstLibseccomp: Args",

	"Linux.Resources.Devices": "TestDeviceRules: Access",
}

// parts are fields of which a row above or a limit shows the whole.
var parts = []string{"Linux.Resources.Devices.", "Linux.Resources.BlockIO.Weight", "Linux.Resources.BlockIO.Throttle", "Linux.Resources.HugepageLimits.",
	"Linux.Resources.Network.Priorities.", "Linux.Seccomp.Syscalls.Args.", "Hooks.", "Mounts.UIDMappings.", "Mounts.GIDMappings.", "Linux.UIDMappings.", "Linux.GIDMappings."}

// foreign are fields of other systems and of other programs.
var foreign = map[string]string{
	"Process.CommandLine": "Windows", "Process.User.Username": "Windows", "Solaris": "", "Windows": "", "VM": "", "ZOS": "", "FreeBSD": "",
	"Linux.Resources.Memory.CheckBeforeUpdate": "asked of update: cgroup.checkUsage",
}

// fieldPaths calls add for each leaf below a type.
func fieldPaths(t reflect.Type, path string, add func(string)) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if _, other := foreign[path]; t.Kind() != reflect.Struct || other {
		add(path)
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		next := strings.TrimPrefix(path+"."+f.Name, ".")
		if f.Anonymous {
			next = path
		}
		fieldPaths(f.Type, next, add)
	}
}

// TestEveryFieldIsSeen: a field that a new version of the specification brings
// has no row, and is not forgotten.
func TestEveryFieldIsSeen(t *testing.T) {
	tests := testTexts(t, ".", "seccomp", "../cmd/tarerun")
	limits := map[string]bool{}
	for _, l := range everyLimit(1, 1) {
		word, rest, _ := strings.Cut(l.field, ", ")
		limits["Linux.Resources."+word] = true
		if rest != "" { // of the same map
			limits["Linux.Resources."+word[:strings.LastIndexByte(word, '.')+1]+rest] = true
		}
	}
	var all []string
	fieldPaths(reflect.TypeFor[specs.Spec](), "", func(path string) { all = append(all, path) })
	for _, path := range all {
		row, ok := seen[path]
		for whole := range seen {
			if !ok && strings.HasPrefix(path, whole+".") && slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(path, p) }) {
				row, ok = seen[whole], true
			}
		}
		for whole := range limits {
			ok = ok || path == whole || strings.HasPrefix(path, whole+".") && slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(path, p) })
		}
		if _, other := foreign[path]; !ok && !other {
			t.Errorf("%s has no row: give it an effect and a test, or refuse it by its name", path)
		}
		if row == "" {
			continue
		}
		name, words, _ := strings.Cut(row, ": ")
		if text, ok := tests[name]; !ok {
			t.Errorf("%s: there is no test %s", path, name)
		} else if !strings.Contains(text, words) {
			t.Errorf("%s: %s does not say %q", path, name, words)
		}
	}
	for path := range seen {
		if !slices.ContainsFunc(all, func(p string) bool { return p == path || strings.HasPrefix(p, path+".") }) {
			t.Errorf("%s is no field any more", path)
		}
	}
}

// testTexts gives the texts of tests, by name here and by directory.name
// elsewhere.
func testTexts(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
					out[strings.TrimPrefix(dir+"."+f.Name.Name, "..")] = string(text[f.Pos()-file.FileStart : f.End()-file.FileStart])
				}
			}
		}
	}
	return out
}
