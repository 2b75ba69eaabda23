package supervise

import (
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
)

// A container may have ended before the answer to its start is looked at: what
// that tells is known all the same.
func TestExitBeforeTheAnswer(t *testing.T) {
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	other, err := seqpacket.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	k := newKeeper("", ours, nil)
	defer k.Close()
	began := time.Now().Round(0)
	go func() {
		msg, _, err := other.Recv()
		var m Message
		if err != nil || json.Unmarshal(msg, &m) != nil {
			t.Errorf("the request: %q, %v", msg, err)
			return
		}
		other.Send(encode(Message{Method: EventExit, Body: encode(Exit{Code: 3})}))
		<-k.exited
		other.Send(encode(Message{ID: m.ID, Body: encode(Started{Pid: 7, Status: Status{Phase: PhaseRunning, Pid: 7, StartedAt: began}})}))
	}()
	pid, at, err := k.Start(t.Context())
	if err != nil || pid != 7 || !at.Equal(began) {
		t.Errorf("started as %d at %v: %v", pid, at, err)
	}
	if s := k.Status(); s.Phase != PhaseExited || s.Exit == nil || s.Exit.Code != 3 || s.Pid != 7 || !s.StartedAt.Equal(began) {
		t.Errorf("the status is %+v", s)
	}
}
