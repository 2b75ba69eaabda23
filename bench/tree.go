package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// treeVariable names a root directory of a newer distribution, as mmdebstrap
// makes one, whose docker is measured in place of the machine's.
const treeVariable = "TARE_BENCH_TREE"

// enterTree makes its first argument the root directory, with the directory of the
// measurement where it is, and waits. Docker's runtime wants a root that is a mount
// point.
const enterTree = `
mount --bind "$0" "$0" && cd "$0" && mkdir -p .old ".$1"
for d in proc sys dev; do mount --rbind /$d $d; done
mount -t tmpfs tmpfs run && mount -t tmpfs tmpfs tmp && mkdir -p ".$1" && mount --rbind "$1" ".$1"
ip link set lo up && pivot_root . .old && echo up && exec sleep infinity`

// world is the command that makes an engine's namespaces, says so and waits.
func (e *engine) world() *exec.Cmd {
	if e.tree == "" {
		return exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity")
	}
	return exec.Command("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", enterTree, e.tree, filepath.Dir(e.dir))
}

// treeEngine is docker of a tree, with its data below dir; nil without a tree.
func treeEngine(dir string) *engine {
	tree := os.Getenv(treeVariable)
	if tree == "" {
		return nil
	}
	at := filepath.Join(dir, "docker-tree")
	socket := "unix://" + filepath.Join(at, "sock")
	return &engine{name: "docker (tree)", tree: tree, dir: at, config: "{}\n", client: []string{"docker", "-H", socket},
		daemon: []string{"dockerd", "-H", socket, "--data-root", filepath.Join(at, "data"), "--exec-root", "/run/docker",
			"--pidfile", filepath.Join(at, "pid"), "--config-file", filepath.Join(at, "daemon.json")},
		rule: "containerd-shim", imported: []string{"import", "-", "busybox"}}
}

// inTree is a command of a tree's programs, in its namespaces.
func (e *engine) inTree(args ...string) *exec.Cmd {
	pid := "/proc/" + strconv.Itoa(e.network.Process.Pid)
	cmd := exec.Command("nsenter", append([]string{"--net=" + pid + "/ns/net", "--mount=" + pid + "/ns/mnt", "--root=" + pid + "/root", "--wd=" + pid + "/root"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME=/root")
	return cmd
}
