package ocirun

import (
	"bufio"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/seccomp"
	"golang.org/x/sys/unix"
)

// finishProcess appends everything from a complete file system view to the
// execution of the user's program. It is the same for a container's init and
// for a further process.
func (b *builder) finishProcess(proc *specs.Process) error {
	held := ownPermitted()
	if b.userNamespace() {
		held = ^uint64(0)
	}
	sets := parseCapabilities(proc.Capabilities, held, b.warn)
	b.standardFiles(proc)
	if err := b.limits(proc); err != nil {
		return err
	}
	b.keepOnly()
	b.rebirth()
	b.labels(proc)
	if proc.NoNewPrivileges {
		b.do("set no_new_privs", "", unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1))
	} else if err := b.filter(); err != nil {
		return err
	}
	cwdir := proc.Cwd
	if cwdir == "" {
		cwdir = "/"
	}
	what, there := "("+strconv.Quote(cwdir)+") set in config.json failed", b.slot()
	early, late := b.label(), b.label()
	// A directory may be open to us and closed to the user, or the other way round.
	b.do("chdir to cwd", what, unix.SYS_CHDIR, b.str(cwdir)).when(unix.EACCES, early)
	b.move("note that the directory is entered", there, num(1))
	b.here(early)
	b.bound(sets)
	b.user(&proc.User)
	b.applyCapabilities(sets)
	entered := b.do("compare", "", 0, there, num(1)).then(late).otherwise(following)
	entered.nr = opCompare
	b.do("chdir to cwd", what, unix.SYS_CHDIR, b.str(cwdir))
	b.here(late)
	b.staysInside(cwdir, "chdir to cwd", what)
	name := b.lookUp(proc)
	if proc.NoNewPrivileges && b.listens() { // while the parent is there to hand the listener on
		if err := b.filter(); err != nil {
			return err
		}
	}
	b.report(recordReady)
	filtered := b.waitsFiltered(proc)
	if !filtered {
		b.await()
	}
	if proc.NoNewPrivileges && !b.listens() {
		if err := b.filter(); err != nil {
			return err
		}
	}
	if filtered {
		b.await()
	}
	if err := b.startHooks(proc); err != nil {
		return err
	}
	b.execute(proc, name)
	return nil
}

// staysInside ends the program when the working directory is none of the root
// directory's, as one is that a descriptor of the host's led to. The kernel says so in
// the path that it gives. Where it gives none, of a directory that was removed or lies
// deeper than the configured name of it, ".." may lead out all the same.
func (b *builder) staysInside(cwd, what, object string) {
	out, inside := b.label(), b.label()
	path, size := b.mask, maskSize
	if len(cwd) >= size {
		size = unix.PathMax
		path = b.bytes(make([]byte, size))
	}
	b.do("ask for the working directory", "", unix.SYS_GETCWD, path, num(size)).otherwise(out)
	const unreachable = 0x68636165726e7528 // "(unreach", getcwd(2)
	b.do("compare", "", 0, slotAt(path, 0), num(uint64(unreachable))).then(out).otherwise(inside).nr = opCompare
	b.here(out)
	b.refuse(what, object+": it is outside of container mount namespace root -- possible container breakout detected")
	b.here(inside)
}

// waitsFiltered tells whether the filter can be loaded before the wait for the start,
// beside the parent's work: what the process does until it executes its program is then
// to read, and to end by a signal.
func (b *builder) waitsFiltered(proc *specs.Process) bool {
	if h := b.spec.Hooks; h != nil && len(h.StartContainer) > 0 {
		return false
	}
	return proc.NoNewPrivileges && !b.listens() && seccomp.Allows(b.seccomp, unix.SYS_READ) && seccomp.Allows(b.seccomp, unix.SYS_EXIT_GROUP)
}

// standardFiles puts descriptors 0, 1, 2 and the extra files in place. They are
// copied up first where the order could overwrite one that is still needed.
func (b *builder) standardFiles(proc *specs.Process) {
	var from []value
	if proc.Terminal {
		from = []value{b.terminal, b.terminal, b.terminal}
	} else {
		var null value
		for i, fd := range b.stdio {
			if b.null[i] && null.n == 0 {
				null = b.openNull()
			}
			if b.null[i] {
				from = append(from, null)
			} else {
				from = append(from, num(fd))
			}
		}
	}
	if len(b.extra) > 0 || !proc.Terminal && (b.stdio[0] < 3 || b.stdio[1] < 3 || b.stdio[2] < 3) {
		for _, fd := range b.extra {
			from = append(from, num(fd))
		}
		for i, fd := range from {
			from[i] = b.slot()
			b.do("copy descriptor", strconv.Itoa(i), unix.SYS_FCNTL, fd, num(unix.F_DUPFD_CLOEXEC), num(3+len(b.extra))).into(from[i])
		}
	}
	for i, fd := range from {
		b.do("set up descriptor", strconv.Itoa(i), unix.SYS_DUP3, fd, num(i), num(0))
	}
	if proc.Terminal {
		b.do("set the controlling terminal", "", unix.SYS_IOCTL, num(0), num(unix.TIOCSCTTY), num(0))
	}
	if proc.User.UID != 0 {
		for i := range 3 {
			if proc.Terminal || !b.null[i] {
				b.do("give to the user descriptor", strconv.Itoa(i), unix.SYS_FCHOWN, num(i), num(proc.User.UID), num(^uint32(0))).ignore()
			}
		}
	}
}

// openNull opens the container's own null device: the mode of the host's could be
// changed through a descriptor of it. Another file in its place is refused.
func (b *builder) openNull() value {
	what, name, is := "open inside the container", os.DevNull, b.label()
	file, null, st := b.slot(), b.slot(), b.bytes(make([]byte, 256)) // struct statx
	how := b.words(num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC), num(0), num(unix.RESOLVE_NO_MAGICLINKS))
	b.do(what, name, unix.SYS_OPENAT2, cwd, b.str(name), how, num(24)).into(file)
	b.do(what, name, unix.SYS_STATX, file, b.str(""), num(unix.AT_EMPTY_PATH), num(0), st)
	b.do("compare", "", 0, slotAt(st, 128), num(1|3<<32)).then(is).otherwise(following).nr = opCompare // stx_rdev_major, stx_rdev_minor
	b.refuse(what, name+": another file is in its place")
	b.here(is)
	b.do(what, name, unix.SYS_FCNTL, file, num(unix.F_DUPFD_CLOEXEC), num(3+len(b.extra))).into(null)
	return null
}

var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
	"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

// limits appends the rlimits. In a user namespace the process may raise none:
// there the parent sets them (see setLimits).
func (b *builder) limits(proc *specs.Process) error {
	seen := map[string]bool{}
	for _, r := range proc.Rlimits {
		n, ok := rlimitNumbers[r.Type]
		if !ok {
			return fault.New(fault.Invalid, "the rlimit type %q is not known", r.Type)
		}
		if seen[r.Type] {
			return fault.New(fault.Invalid, "the rlimit %s is set twice", r.Type)
		}
		seen[r.Type] = true
		if !b.userNamespace() {
			b.do("set rlimit", r.Type, unix.SYS_PRLIMIT64, num(0), num(n), b.words(num(r.Soft), num(r.Hard)))
		}
	}
	return nil
}

// setLimits sets the rlimits of a process that waits.
func setLimits(pid int, proc *specs.Process) error {
	for _, r := range proc.Rlimits {
		limit := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		if err := unix.Prlimit(pid, rlimitNumbers[r.Type], &limit, nil); err != nil {
			return fault.New(fault.Internal, "set rlimit %s: %w", r.Type, err)
		}
	}
	return nil
}

// keepOnly closes all descriptors but those of the user and the three that the
// child needs itself; the latter lie above.
func (b *builder) keepOnly() {
	what := "close inherited descriptors"
	from := uint(3 + len(b.extra))
	for _, fd := range sortedFDs(append(b.kept(), b.initFD)...) {
		if uint(fd) > from {
			b.do(what, "", unix.SYS_CLOSE_RANGE, num(from), num(uint(fd)-1), num(0))
		}
		from = uint(fd) + 1
	}
	b.do(what, "", unix.SYS_CLOSE_RANGE, num(from), num(^uint32(0)), num(0))
}

func sortedFDs(fds ...int) []int {
	var out []int
	for _, fd := range fds {
		i := len(out)
		for i > 0 && out[i-1] > fd {
			i--
		}
		if fd >= 0 {
			out = append(out[:i], append([]int{fd}, out[i:]...)...)
		}
	}
	return out
}

// kept are the descriptors that init needs to its end.
func (b *builder) kept() []int {
	return sortedFDs(b.sync, b.fifo, b.timeFDOr(), b.proc, b.inner.state, b.inner.out)
}

// timeFDOr is the descriptor of a time namespace to join, -1 if there is none.
func (b *builder) timeFDOr() int {
	if b.timeNS {
		return b.timeFD
	}
	return -1
}

// rebirth executes the memfd that holds this very program, which goes on there
// with memory of its own. The descriptors it needs pass the execution.
func (b *builder) rebirth() {
	if b.initFD < 0 {
		return
	}
	p := b.program
	for _, fd := range b.kept() {
		p.do("keep descriptor", strconv.Itoa(fd), unix.SYS_FCNTL, num(fd), num(unix.F_SETFD), num(0))
	}
	argv := p.words(p.str("init"), num(0))
	p.do("execute the container's init", "", unix.SYS_EXECVEAT, num(b.initFD), p.str(""), argv, p.words(num(0)), num(unix.AT_EMPTY_PATH))
	p.reborn = p.label()
	p.here(p.reborn)
	p.do("hide the container's init", "", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0))
	if b.timeNS {
		p.do("join the time namespace", "", unix.SYS_SETNS, num(b.timeFD), num(unix.CLONE_NEWTIME))
	}
	for _, fd := range b.kept() {
		p.do("close on execution descriptor", strconv.Itoa(fd), unix.SYS_FCNTL, num(fd), num(unix.F_SETFD), num(unix.FD_CLOEXEC))
	}
	b.endBySignal()
}

// endBySignal has a container that was created, and may wait for its start for
// long, end by the usual signals: the first process of a pid namespace gets those
// alone for which it has handlers, until it executes something else.
func (b *builder) endBySignal() {
	if b.fifo < 0 || !b.isNew(specs.PIDNamespace) {
		return
	}
	const restorer = 0x04000000 // SA_RESTORER, which the kernel asks for and nobody returns to
	handler := b.bytes(exitHandler())
	action := b.words(handler, num(restorer), handler, num(0))
	for _, sig := range [...]unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM} {
		b.do("be ready for", unix.SignalName(sig), unix.SYS_RT_SIGACTION, num(sig), action, num(0), num(8))
	}
}

// user appends groups, group and user.
func (b *builder) user(u *specs.User) {
	groups := make([]byte, 0, 4*len(u.AdditionalGids))
	for _, g := range u.AdditionalGids {
		groups = append(groups, byte(g), byte(g>>8), byte(g>>16), byte(g>>24))
	}
	set := b.do("set additional groups", "", unix.SYS_SETGROUPS, num(len(u.AdditionalGids)), b.bytes(groups))
	if len(u.AdditionalGids) == 0 {
		set.when(unix.EPERM, following) // a user namespace may deny setgroups; there is nothing to give then
	}
	b.do("set the group", strconv.Itoa(int(u.GID)), unix.SYS_SETRESGID, num(u.GID), num(u.GID), num(u.GID))
	b.do("set the user", strconv.Itoa(int(u.UID)), unix.SYS_SETRESUID, num(u.UID), num(u.UID), num(u.UID))
	mask := uint32(0o022)
	if u.Umask != nil {
		mask = *u.Umask
	}
	b.do("set the file mode mask", "", unix.SYS_UMASK, num(mask))
}

// lookUp appends the search of the program and returns the slot of its path.
// It happens inside the container with the process's credentials.
func (b *builder) lookUp(proc *specs.Process) value {
	p, arg0 := b.program, proc.Args[0]
	found := p.label()
	chosen, length := p.slot(), p.slot()
	b.pathLength = length
	candidates := []string{arg0}
	direct := strings.Contains(arg0, "/")
	if !direct {
		candidates = nil
		for _, dir := range strings.Split(environ(proc.Env, "PATH"), ":") {
			if path.IsAbs(dir) && arg0 != "" {
				candidates = append(candidates, path.Join(dir, arg0))
			}
		}
	}
	missing, denied := p.label(), p.label()
	for _, c := range candidates {
		name, next := p.str(c), p.label()
		fd, isFile, older, there := p.slot(), p.label(), p.label(), p.label()
		no, refused := next, next
		if direct {
			no, refused = missing, denied
		}
		// A filter that is loaded by now may know neither call; execve decides then.
		p.do("look for", c, unix.SYS_FACCESSAT2, cwd, name, num(unix.X_OK), num(unix.AT_EACCESS)).
			then(there).when(unix.ENOENT, no).when(unix.EACCES, refused).otherwise(older)
		p.here(older)
		p.do("look for", c, unix.SYS_FACCESSAT, cwd, name, num(unix.X_OK)).when(unix.EPERM, there).when(unix.ENOSYS, there).otherwise(no)
		p.here(there)
		p.do("look for", c, unix.SYS_OPENAT, cwd, name, num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).into(fd).otherwise(isFile)
		p.close(fd)
		if direct {
			p.refuse("exec: "+strconv.Quote(arg0)+":", "is a directory")
		} else {
			p.jump(next)
		}
		p.here(isFile)
		p.move("choose", chosen, name)
		p.move("choose", length, num(len(c))).then(found)
		p.here(next)
	}
	if !direct {
		p.refuse("exec: "+strconv.Quote(arg0)+":", "executable file not found in $PATH")
	}
	p.here(denied)
	if direct {
		p.refuse("exec: "+strconv.Quote(arg0)+":", "permission denied")
	}
	p.here(missing)
	if direct {
		p.refuse("exec: "+strconv.Quote(arg0)+":", "stat "+arg0+": no such file or directory")
	}
	p.here(found)
	return chosen
}

// environ gives the last value of a variable.
func environ(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// environment is what the program gets: of a variable that is set twice the last
// value, and HOME of the user when it is empty.
func (b *builder) environment(proc *specs.Process) []string {
	last := make(map[string]int, len(proc.Env))
	for i, e := range proc.Env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	home := environ(proc.Env, "HOME") == "" && b.home != ""
	env := make([]string, 0, len(proc.Env)+1)
	for i, e := range proc.Env {
		if name, _, _ := strings.Cut(e, "="); last[name] == i && !(home && name == "HOME") {
			env = append(env, e)
		}
	}
	if home {
		env = append(env, "HOME="+b.home)
	}
	return env
}

// execErrors are the errors of execve that get a sentence; others are told by
// number.
var execErrors = []unix.Errno{unix.ENOENT, unix.EACCES, unix.ENOEXEC, unix.EPERM, unix.E2BIG, unix.ENOMEM,
	unix.ETXTBSY, unix.ELOOP, unix.EINVAL, unix.EIO, unix.ENFILE, unix.EMFILE, unix.ELIBBAD, unix.EAGAIN, unix.EISDIR}

// execute appends the execution of the chosen file. When it fails there is
// nobody to tell but the process's own standard error.
func (b *builder) execute(proc *specs.Process, name value) {
	p := b.program
	env := b.environment(proc)
	failed := p.label()
	p.do("exec", proc.Args[0], unix.SYS_EXECVE, name, p.vector(proc.Args), p.vector(env)).otherwise(failed)
	p.here(failed)
	// Take the errno before another step fails.
	errno := p.slot()
	p.move("note the error", errno, value{failure, 0})
	write := p.label()
	head, colon := p.str("exec "), p.str(": ")
	vec := p.words(head, num(5), num(0), num(0), colon, num(2), num(0), num(0))
	textAt, textLen := slotAt(vec, 48), slotAt(vec, 56)
	p.move("note the path", slotAt(vec, 16), name)
	p.move("note the path", slotAt(vec, 24), b.pathLength)
	for _, e := range execErrors {
		next, msg := p.label(), e.Error()+"\n"
		c := p.do("compare", "", 0, errno, num(uint64(e))).otherwise(next)
		c.nr = opCompare
		p.move("choose the text", textAt, p.str(msg))
		p.move("choose the text", textLen, num(len(msg))).then(write)
		p.here(next)
	}
	other := "the kernel refused it\n"
	p.move("choose the text", textAt, p.str(other))
	p.move("choose the text", textLen, num(len(other)))
	p.here(write)
	p.do("tell", "", unix.SYS_WRITEV, num(2), vec, num(4)).ignore()
	p.do("exit", "", unix.SYS_EXIT_GROUP, num(255))
}

// vector lays a NULL-terminated array of strings down.
func (p *program) vector(list []string) value {
	ptrs := make([]value, 0, len(list)+1)
	for _, s := range list {
		ptrs = append(ptrs, p.str(s))
	}
	return p.words(append(ptrs, num(0))...)
}

// homeOf finds a user's home directory in an /etc/passwd, passwd(5).
func homeOf(passwd io.Reader, uid uint32) string {
	lines := bufio.NewScanner(passwd)
	lines.Buffer(make([]byte, 0, 2<<10), bufio.MaxScanTokenSize)
	for want := strconv.FormatUint(uint64(uid), 10); lines.Scan(); {
		f := strings.SplitN(lines.Text(), ":", 7)
		if len(f) >= 6 && f[2] == want {
			return f[5]
		}
	}
	return ""
}
