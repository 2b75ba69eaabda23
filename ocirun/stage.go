package ocirun

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// staged tells whether init enters a mount namespace that is empty already
// (Options.Stage), instead of a copy of this process's, whose mounts it would have
// to let go of. It opens first what the container gets of the host. Not so where
// more is needed of the host's tree, where the user namespace must own the mounts,
// and where init, or a process that is executed in the container with more
// capabilities than init, could change what lies below the root and is others' too.
func (b *builder) staged() bool {
	if b.stage == 0 || b.noPivot || b.userNamespace() || sharesMounts(b.spec) || b.atPath() || mayMount(b.spec.Process) || !refusesMounting(b.spec.Linux.Seccomp) {
		return false
	}
	switch b.spec.Linux.RootfsPropagation {
	case "", "rslave", "rprivate": // sources are clones of this process's mounts, which are tied to the host's at most
		return true
	}
	return false
}

// mayMount tells whether a process has CAP_SYS_ADMIN, or could get it.
func mayMount(p *specs.Process) bool {
	c := p.Capabilities
	if c == nil {
		return true
	}
	for _, set := range [...][]string{c.Bounding, c.Permitted, c.Effective, c.Inheritable, c.Ambient} {
		if contains(set, "CAP_SYS_ADMIN") {
			return true
		}
	}
	return false
}

// refusesMounting tells whether a filter, which all processes in the container have,
// keeps them from making a mount or a file system writable, whatever they may.
func refusesMounting(s *specs.LinuxSeccomp) bool {
	if s == nil || !refuses(s.DefaultAction) {
		return false
	}
	for i := range s.Syscalls {
		rule := &s.Syscalls[i]
		if refuses(rule.Action) {
			continue
		}
		for _, name := range rule.Names {
			switch name {
			case "mount", "mount_setattr", "open_tree_attr", "fsconfig":
				return false
			}
		}
	}
	return true
}

// refuses tells whether a call does not come to be by the action.
func refuses(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActErrno, specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap:
		return true
	}
	return false
}

// takeStage has the child find the stage at a number that no file of the user's gets.
func (a *attempt) takeStage(o *Options) error {
	if o.Stage == nil {
		return nil
	}
	fd, err := a.above(int(o.Stage.Fd()), 3+len(o.ExtraFiles))
	a.forget(int(o.Stage.Fd())) // which stays the caller's
	a.b.stage = fd
	return err
}

// attachStaged lays a clone of the root file system over the "/" of a stage.
func (b *builder) attachStaged() error {
	tree := b.openRoot() // first, as mounts are listed in the order of their making
	if err := b.openSources(); err != nil {
		return err
	}
	b.openGroupTrees()
	b.do("join the stage", "", unix.SYS_SETNS, num(b.stage), num(unix.CLONE_NEWNS))
	b.do("make the mount namespace", "", unix.SYS_UNSHARE, num(unix.CLONE_NEWNS))
	b.mountRoot(tree, b.str("/"))
	return nil
}

// openGroupTrees clones the directories that mountGroupsV1 mounts.
func (b *builder) openGroupTrees() {
	b.groupTrees = map[string][]value{}
	for i := range b.spec.Mounts {
		if b.spec.Mounts[i].Type != "cgroup" || b.group.Unified {
			continue
		}
		for _, member := range b.group.Members {
			if member.Controllers != nil {
				b.groupTrees[member.Dir] = append(b.groupTrees[member.Dir], b.openGroup(member.Dir))
			}
		}
	}
}

// groupTree is the next clone of a directory, made now if there is none.
func (b *builder) groupTree(dir string) value {
	made := b.groupTrees[dir]
	if len(made) == 0 {
		return b.openGroup(dir)
	}
	b.groupTrees[dir] = made[1:]
	return made[0]
}

func (b *builder) openGroup(dir string) value {
	tree := b.slot()
	b.do("open the control group", dir, unix.SYS_OPEN_TREE, cwd, b.str(dir), num(cloneFlags(false))).into(tree)
	return tree
}
