package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// runcFlags are the flags of runc 1.0 to 1.4, with "=" where a value follows.
var runcFlags = map[string]string{
	"create":     "bundle= b= console-socket= pidfd-socket= pid-file= no-pivot no-new-keyring preserve-fds=",
	"run":        "bundle= b= console-socket= pidfd-socket= detach d keep pid-file= no-subreaper no-pivot no-new-keyring preserve-fds=",
	"start":      "",
	"exec":       "console-socket= pidfd-socket= cwd= env= e= tty t user= u= additional-gids= g= process= p= detach d pid-file= process-label= apparmor= no-new-privs cap= c= preserve-fds= cgroup= ignore-paused",
	"kill":       "all a",
	"delete":     "force f",
	"state":      "",
	"list":       "format= f= quiet q",
	"ps":         "format= f=",
	"events":     "interval= stats",
	"pause":      "",
	"resume":     "",
	"update":     "resources= r= blkio-weight= cpu-period= cpu-quota= cpu-burst= cpu-share= cpu-rt-period= cpu-rt-runtime= cpuset-cpus= cpuset-mems= kernel-memory= kernel-memory-tcp= memory= memory-reservation= memory-swap= pids-limit= l3-cache-schema= mem-bw-schema= cpu-idle=",
	"spec":       "bundle= b= rootless",
	"features":   "",
	"checkpoint": "image-path= work-path= parent-path= leave-running tcp-established tcp-skip-in-flight ext-unix-sk shell-job lazy-pages status-fd= page-server= file-locks pre-dump manage-cgroups-mode= empty-ns= auto-dedup link-remap",
	"restore":    "console-socket= image-path= work-path= tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode= bundle= b= detach d pid-file= no-subreaper no-pivot empty-ns= auto-dedup lazy-pages lsm-profile= lsm-mount-context=",
	"":           "debug log= log-format= root= systemd-cgroup rootless= version v",
}

// own runs tarerun without a bundle.
func own(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = t.TempDir() // where spec, or a log, is written
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// takes tells whether a command knows a flag: what it does not know comes next.
func takes(t *testing.T, command, name string, value bool) (bool, string) {
	t.Helper()
	args := []string{"--" + name}
	if len(name) == 1 {
		args[0] = "-" + name
	}
	if command != "" {
		args = append([]string{command}, args...)
	}
	if name == "version" || name == "v" {
		out := own(t, args...)
		return strings.HasPrefix(out, "tarerun version"), out
	}
	if value {
		of := map[string]string{"interval": "1s", "log-format": "text", "rootless": "auto"}[name]
		if of == "" {
			of = "1"
		}
		args = append(args, of)
	}
	out := own(t, append(args, "--no-such-flag")...)
	return strings.Contains(out, "flag provided but not defined: -no-such-flag"), out
}

// TestFlagsOfRunc: each flag of runc's is known, and takes a value as there.
func TestFlagsOfRunc(t *testing.T) {
	for command, flags := range runcFlags {
		if strings.Contains(own(t, command), "is not supported yet") {
			t.Logf("%s is not there yet", command)
			continue
		}
		for _, f := range strings.Fields(flags) {
			name, value := strings.CutSuffix(f, "=")
			if ok, out := takes(t, command, name, value); !ok {
				t.Errorf("%s --%s: %s", command, name, out)
			}
		}
	}
}

// TestHelpTells: each flag of each command has its text, help COMMAND is the
// command's, and no text is for a flag that is none.
func TestHelpTells(t *testing.T) {
	line := regexp.MustCompile(`(?m)^ {3}(--?[a-z0-9-]+)(?: value)?(?:, --?[a-z0-9-]+(?: value)?)* *(.*)$`)
	named := map[string]bool{}
	names := []string{""}
	for _, c := range commands {
		names = append(names, c.name)
	}
	for _, command := range names {
		help := own(t, strings.Fields(command+" --help")...)
		if command != "" && own(t, "help", command) != help {
			t.Errorf("help %s is not %s --help", command, command)
		}
		_, options, _ := strings.Cut(help, "OPTIONS:\n")
		for _, m := range line.FindAllStringSubmatch(options, -1) {
			name := strings.TrimLeft(m[1], "-")
			named[name], named[command+"/"+name] = true, true
			if m[2] == "" {
				t.Errorf("%s --help says nothing of %s", command, m[1])
			}
		}
	}
	for name := range usages {
		if !named[name] {
			t.Errorf("there is no flag %s", name)
		}
	}
}

// TestHelpOfRunc: the table above has all that the runc of this machine tells of,
// and so has our own help.
func TestHelpOfRunc(t *testing.T) {
	option := regexp.MustCompile(`(?m)^ +--?[a-z0-9-]+.*$`)
	name := regexp.MustCompile(`(?:^ +|, )--?([a-z0-9-]+)( value)?`)
	listed := func(help string) (out []string) {
		for _, line := range option.FindAllString(help[max(strings.Index(help, "OPTIONS:"), 0):], -1) {
			for _, m := range name.FindAllStringSubmatch(line, -1) {
				if m[2] != "" {
					m[1] += "="
				}
				out = append(out, m[1])
			}
		}
		return out
	}
	for command, flags := range runcFlags {
		ours := own(t, strings.Fields(command+" --help")...)
		if !strings.HasPrefix(ours, "NAME:\n") {
			t.Errorf("%s --help: %s", command, ours)
		}
		for _, f := range strings.Fields(flags) {
			if !slices.Contains(listed(ours), f) && !strings.Contains(own(t, command), "is not supported yet") {
				t.Errorf("the help of %s does not name %s", command, f)
			}
		}
		args := strings.Fields(command + " --help")
		help, err := exec.Command("runc", args...).Output()
		if err != nil {
			continue // no runc, or an older one
		}
		for _, f := range listed(string(help)) {
			if f != "help" && f != "h" && f != "criu=" && !slices.Contains(strings.Fields(flags), f) {
				t.Errorf("runc %s has the flag %s", command, f)
			}
		}
	}
}
