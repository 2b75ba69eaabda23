package ocirun

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// root is a directory below which paths are resolved. Every step that names a
// path of the container goes through one of these: absolute links resolve
// inside, and no component can lead out of it.
type root struct {
	p        *program
	fd       value
	any      value                             // struct open_how: O_PATH, in root
	dir      value                             // the same for directories
	unlinked value                             // O_PATH, no symbolic link in any component
	ask      func(name string, directory bool) // has the parent make a path along links that lead to nothing
}

func newRoot(p *program, fd value) root {
	how := func(flags uint64, resolve uint64) value {
		return p.words(num(flags|unix.O_CLOEXEC), num(0), num(resolve))
	}
	return root{p: p, fd: fd,
		any:      how(unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS),
		dir:      how(unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS),
		unlinked: how(unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS),
	}
}

// below turns a path of the container into one relative to its root.
func below(name string) string {
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	if rel == "" {
		return "."
	}
	return rel
}

// open resolves a path of the container into a slot.
func (r root) open(what, name string, how value) *step {
	s := r.p.slot()
	return r.p.do(what, name, unix.SYS_OPENAT2, r.fd, r.p.str(below(name)), how, num(24)).into(s)
}

// openFlags is a resolved open for other purposes than O_PATH.
func (r root) openFlags(what, name string, flags uint64) *step {
	how := r.p.words(num(flags|unix.O_CLOEXEC), num(0), num(unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS))
	return r.open(what, name, how)
}

// ensure opens a path, made first if it is missing: a directory, or an empty
// file to mount on. The slot of the descriptor is returned. What cannot be made
// here, because a link on the way leads to nothing, is asked for.
func (r root) ensure(what, name string, directory bool, how value) value {
	p, done, create, help := r.p, r.p.label(), r.p.label(), r.p.label()
	opened := r.open(what, name, how).then(done).when(unix.ENOENT, create)
	fd, link := opened.keep, p.label()
	if how == r.unlinked {
		opened.when(unix.ELOOP, link)
	}
	p.here(create)
	rel := below(name)
	parent, base := path.Split(rel)
	dir := r.mkdirs(what, strings.TrimSuffix(parent, "/"), help)
	if directory {
		p.do(what, name, unix.SYS_MKDIRAT, dir, p.str(base), num(0o755)).when(unix.EEXIST, following).otherwise(help)
	} else {
		made := p.slot()
		p.do(what, name, unix.SYS_OPENAT, dir, p.str(base),
			num(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC), num(0o644)).into(made).otherwise(help)
		p.close(made)
	}
	r.open(what, name, how).into(fd).then(done).otherwise(help)
	p.here(link)
	if how == r.unlinked {
		p.refuse("a file system that shows the kernel must be mounted on ordinary directory, not on a link:", name)
	}
	p.here(help)
	r.ask(name, directory)
	r.open(what, name, how).into(fd)
	p.here(done)
	return fd
}

// mkdirs opens a directory relative to the root, making what is missing. Errors
// go to help; unset is the program's end.
func (r root) mkdirs(what, rel string, help label) value {
	p := r.p
	if rel == "" || rel == "." {
		return r.fd
	}
	done, create := p.label(), p.label()
	fd := r.open(what, rel, r.dir).then(done).when(unix.ENOENT, create).otherwise(help).keep
	p.here(create)
	parent, base := path.Split(rel)
	dir := r.mkdirs(what, strings.TrimSuffix(parent, "/"), help)
	p.do(what, "/"+rel, unix.SYS_MKDIRAT, dir, p.str(base), num(0o755)).when(unix.EEXIST, following).otherwise(help)
	r.open(what, rel, r.dir).into(fd).otherwise(help)
	p.here(done)
	return fd
}

// place attaches a detached mount at an open target.
func (p *program) place(what, object string, tree, target value) *step {
	empty := p.str("")
	return p.do(what, object, unix.SYS_MOVE_MOUNT, tree, empty, target, empty,
		num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// attributes changes a mount (or with all its tree) by descriptor.
func (p *program) attributes(what, object string, mount value, set, clear uint64, propagation uintptr, all bool) *step {
	flags := unix.AT_EMPTY_PATH
	if all {
		flags |= unix.AT_RECURSIVE
	}
	attr := p.words(num(set), num(clear), num(propagation), num(0))
	return p.do(what, object, unix.SYS_MOUNT_SETATTR, mount, p.str(""), num(flags), attr, num(32))
}

func (p *program) close(fd value) { p.do("close", "", unix.SYS_CLOSE, fd).ignore() }

// enter changes the working directory to an open directory.
func (p *program) enter(what, object string, fd value) *step {
	return p.do(what, object, unix.SYS_FCHDIR, fd)
}
