// Package supervise is the daemon's side of supervision, and the protocol
// that both sides speak.
//
// Each container has one process of its own, tare-supervise: parent of the
// container's init, holder of its stdio, log, exit status, published sockets
// and mount namespace. The daemon starts that process (Launcher), or finds it
// again after a restart (Connect), and talks to it through a Keeper. The
// process outlives the daemon, so a container notices nothing of a daemon that
// dies. The process's own side is package supervise/keeper; only that one
// links the OCI runtime.
//
// What lies in a container's directory, Config.Dir:
//
//	config.json  the OCI configuration, written by the daemon before Create
//	rootfs/      mount point of the root, empty outside the process's mount namespace
//	sock         SOCK_SEQPACKET socket of the process (protocol.go)
//	init         "PID STARTTIME\n" of the container's init, see KillInit
//	exit.json    the Exit, written atomically when all output has been stored
//	shm/         mount point of Config.Shm
//	m/           mount points of Config.Mounts
//	restored     log of the program that restored a container
//	rt/, rt.log  state and log of an OCI runtime that is executed
//
// Whoever owns the directory may keep files of other names there.
package supervise

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/logs"
)

// NetNSPath is what the network namespace entry of config.json names for the
// namespace handed over in Config.NetNS. It is valid inside the supervising
// process; for a runtime that is executed the process replaces it by a path
// that is valid there too.
const NetNSPath = "/proc/self/fd/100"

// UserNSPath is the same for the user namespace of Config.UserNS.
const UserNSPath = "/proc/self/fd/101"

// ShmName is where Config.Shm is mounted, below Config.Dir, in the mount
// namespace of the supervising process.
const ShmName = "shm"

// Mount is a tree to be mounted in a container by descriptor. It lies at
// MountPath in the mount namespace of the supervising process, which config.json
// binds.
type Mount struct {
	Tree    *os.File // detached mount
	Subpath string   // what of it is mounted: a directory or file below it, "" for all
}

// MountPath is where the i-th of Config.Mounts lies.
func MountPath(dir string, i int) string { return filepath.Join(dir, "m", strconv.Itoa(i)) }

// Config is all that the supervising process must know about a container
// beside its config.json.
type Config struct {
	ID  string // the container's ID, also its name towards the runtime
	Dir string // absolute; the bundle, see the package comment

	Rootfs  Rootfs // mounted at Dir/rootfs inside the process's mount namespace
	Runtime Runtime
	Log     Log

	OpenStdin bool // keep a stdin for attached clients; otherwise stdin is /dev/null
	StdinOnce bool // the end of a client's input ends the container's stdin (not with a TTY)
	TTY       bool // as process.terminal in config.json
	// ConsoleSize is the first size of the terminal: height, width in
	// characters. Zero leaves it to config.json.
	ConsoleSize [2]uint16

	// Restore has the container made of a checkpoint, and go on at its start.
	Restore *Restore `json:",omitempty"`

	// WatchOOM has Keeper.OOM tell of each process that the kernel kills for
	// want of memory; the Exit says it in any case.
	WatchOOM bool `json:",omitempty"`

	// Relays are the published ports among Held that the process serves itself.
	Relays []Relay `json:",omitempty"`

	Shm    *os.File   `json:"-"` // detached mount for Dir/shm, which config.json binds; nil for none
	NetNS  *os.File   `json:"-"` // network namespace for NetNSPath; nil if none is handed over
	UserNS *os.File   `json:"-"` // user namespace for UserNSPath, which the root's layers are shown in; nil for the host's
	Mounts []Mount    `json:"-"` // what config.json binds and no path leads to
	Held   []*os.File `json:"-"` // kept open until the container is released
}

// Restore says what a container is restored from.
type Restore struct {
	CRIU   string // path of the program
	Images string // absolute; the directory that a Checkpoint filled
	// Lazy has the container go on at once; its memory comes when it is touched.
	Lazy bool `json:",omitempty"`
}

// MemoryDir is the directory of a checkpoint's pre-dump, below its own.
const MemoryDir = "memory"

// Checkpoint says what becomes of a container's processes.
type Checkpoint struct {
	CRIU string // path of the program
	Dir  string // absolute; is there when the checkpoint is whole, and not before
	Exit bool   // the container ends then
	// PreDump has the memory be written to MemoryDir while the container goes on,
	// and the rest hold only what has changed since.
	PreDump bool `json:",omitempty"`
	// Notes are files that are kept among the images, by name.
	Notes map[string][]byte `json:",omitempty"`
}

// Relay has the process pass on what arrives at the sockets of published ports:
// those of the addresses Host and the ports First to Last lead to To, an address
// and a port, and the ports that follow.
type Relay struct {
	Proto       string // tcp or udp
	Host        string
	First, Last uint16
	To          string
	// Whole says that all that arrives is the process's to pass on; the sockets may
	// have been made for a part of it, or for nothing.
	Whole bool `json:",omitempty"`
}

// Rootfs says what is mounted as the container's root: an overlay, or a
// directory that holds all of it. With neither Dir nor Lower nothing is mounted
// and Dir/rootfs is the root as it stands. All paths are absolute.
type Rootfs struct {
	Dir string `json:",omitempty"` // the whole tree; the rest is of overlays but for ReadOnly

	Lower []string // read-only layers, the topmost first; two or more without Upper
	Upper string   // takes the changes; empty together with Work for a read-only mount
	Work  string   // empty directory of the kernel's own, on Upper's file system
	// Volatile says that Upper need not survive the container: nothing in it is
	// ever synced, and the mount is left to the end of the process.
	Volatile bool `json:",omitempty"`

	ReadOnly bool `json:",omitempty"` // the mount itself refuses all writing
	// Users is who root of Config.UserNS is outside; unused without that.
	Users Owner `json:",omitzero"`

	Label string `json:",omitempty"` // of SELinux, that all files of an overlay have
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Runtime says who makes the container. With an empty Path the supervising
// process does it itself by package ocirun.
type Runtime struct {
	Path string   // an OCI runtime with runc's command line
	Args []string // global arguments that come before the subcommand
	// Systemd says that systemd makes the control groups, and config.json names
	// its unit.
	Systemd bool `json:",omitempty"`
}

// Log says where the output goes.
type Log struct {
	Driver string // "json-file", or "none"
	Path   string // of the json-file; its directory must exist

	// How it is rotated and what each record carries: see logs.Options.
	MaxSize  int64  `json:",omitempty"`
	MaxFiles int    `json:",omitempty"`
	Attrs    string `json:",omitempty"`
	// Buffer is how many bytes of output may wait for the disk; more is lost.
	// 0: the container waits.
	Buffer int64 `json:",omitempty"`
}

// Phase is how far a container has come.
type Phase string

// The phases, in their order.
const (
	PhaseWaiting Phase = "waiting" // in the pool: no container yet
	PhaseCreated Phase = "created" // OCI "created": the init waits to execute the program
	PhaseRunning Phase = "running"
	PhaseExited  Phase = "exited"
)

// Status is what the supervising process told when the connection was made,
// kept up to date by Start and by its exit event.
type Status struct {
	Phase     Phase
	Pid       int       // of the container's init in the daemon's pid namespace; 0 before create
	StartedAt time.Time // zero before Start
	Paused    bool      `json:",omitempty"` // by Pause; its processes stand still
	Exit      *Exit     `json:",omitempty"` // with PhaseExited
}

// Exit is how a container ended. All its output has been stored before an
// Exit exists.
type Exit struct {
	Code      int // exit status, or 128 + the signal that ended it
	ExitedAt  time.Time
	OOMKilled bool
	// Error is empty in the ordinary case; otherwise what the user should know,
	// in one sentence.
	Error string `json:",omitempty"`
	// LogDropped counts the log records that could not be stored, LogError says
	// why, such as a full disk. The container's end is none the worse for it.
	LogDropped int64  `json:",omitempty"`
	LogError   string `json:",omitempty"`
}

// StreamExit is none of a process's streams: see AttachOptions.Exit.
const StreamExit logs.Stream = 4

// AttachOptions say what passes between a client's socket and a container or
// an exec.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	// Multiplexed puts Docker's 8-byte header (stream 1 or 2, three zero bytes,
	// big-endian length) before each chunk. Otherwise the bytes are raw, as they
	// must be with a terminal.
	Multiplexed bool
	// Exit ends the output of an exec, where it is Multiplexed, by its exit code:
	// a frame of StreamExit, with four bytes, big-endian.
	Exit bool `json:",omitempty"`
	// DetachKeys is the byte sequence in the input that ends the session and
	// leaves the container alone; empty for none.
	DetachKeys []byte `json:",omitempty"`
	// Buffered are bytes of input that were already read from the socket.
	Buffered []byte `json:",omitempty"`
	// Logs replays the log first, from LogsAt on, without compressed files. No
	// byte is lost or doubled between the replay and what follows.
	Logs   bool
	LogsAt logs.Position
	// LogsFrom is the offset of LogsAt, for processes from before there was
	// rotation.
	LogsFrom int64 `json:",omitempty"`
	// NoStream ends the session after the replay, without live output and input.
	NoStream bool `json:",omitempty"`
}

// ExecConfig describes a further process in a container.
type ExecConfig struct {
	ID      string        // chosen by the daemon, unique among the container's execs
	Process specs.Process // Terminal and ConsoleSize are obeyed
	Attach  AttachOptions // what the client's socket gets; unused without one
	// Keep is how many bytes of what it writes its ExecExit tells, of both
	// streams as they came; the rest is read and dropped. Such an exit is told
	// once, and forgotten.
	Keep int `json:",omitempty"`
	// Note is what the daemon wants to be told by Execs.
	Note []byte `json:",omitempty"`
}

// ExecStatus is an exec as the supervising process knows it.
type ExecStatus struct {
	ID   string
	Pid  int // in the daemon's pid namespace, of the past when it has ended
	Args []string
	TTY  bool
	Note []byte    `json:",omitempty"`
	Exit *ExecExit `json:",omitempty"` // nil while it runs
}

// ExecExit is how an exec ended.
type ExecExit struct {
	Code    int // exit status, or 128 + the signal that ended it
	EndedAt time.Time
	Output  []byte `json:",omitempty"` // the first ExecConfig.Keep bytes
	More    bool   `json:",omitempty"` // there was more
}

// DetachEvent tells that a client typed its detach keys.
type DetachEvent struct {
	ExecID string // "" for the container itself
}
