package keeper

import (
	"context"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// frost is who wants the container to stand still.
type frost struct {
	mu     sync.Mutex
	wants  []*want // of connections, for as long as these last
	paused bool    // by pause, until it is taken back
}

// heldLocked tells whether anybody wants the processes to stand still.
func (f *frost) heldLocked() bool { return f.paused || len(f.wants) > 0 }

// want is one freeze that was not taken back.
type want struct{ stop func() bool }

// freeze stops the container's processes until a thaw, or until ctx, which is
// the connection's, ends.
func (k *keeper) freeze(ctx context.Context) error {
	k.frost.mu.Lock()
	defer k.frost.mu.Unlock()
	if err := k.standStillLocked(); err != nil {
		return err
	}
	w := &want{}
	w.stop = context.AfterFunc(ctx, func() {
		k.frost.mu.Lock()
		defer k.frost.mu.Unlock()
		_ = k.dropLocked(w) // nobody is left to be told
	})
	k.frost.wants = append(k.frost.wants, w)
	return nil
}

// standStillLocked stops the processes unless they are stopped already.
func (k *keeper) standStillLocked() error {
	if phase := k.current().Phase; phase != supervise.PhaseRunning {
		return fault.New(fault.Conflict, "the container cannot be frozen: it is %s", phase)
	}
	if k.frost.heldLocked() {
		return nil
	}
	err := k.box.freeze(true)
	if err != nil {
		_ = k.box.freeze(false) // some may stand still already
	}
	return err
}

// pause stops the container's processes until unpause; connections may come and
// go.
func (k *keeper) pause() (supervise.Status, error) {
	k.frost.mu.Lock()
	defer k.frost.mu.Unlock()
	if k.frost.paused {
		return supervise.Status{}, fault.New(fault.Conflict, "the container is paused already")
	}
	if err := k.standStillLocked(); err != nil {
		return supervise.Status{}, err
	}
	return k.pausedLocked(true), nil
}

// unpause takes pause back.
func (k *keeper) unpause() (supervise.Status, error) {
	k.frost.mu.Lock()
	defer k.frost.mu.Unlock()
	if !k.frost.paused {
		return supervise.Status{}, fault.New(fault.Conflict, "the container is not paused")
	}
	if len(k.frost.wants) == 0 && k.current().Phase == supervise.PhaseRunning {
		if err := k.box.freeze(false); err != nil {
			return supervise.Status{}, err
		}
	}
	return k.pausedLocked(false), nil
}

// pausedLocked records what was done, and gives the status with it.
func (k *keeper) pausedLocked(on bool) supervise.Status {
	k.frost.paused = on
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Paused = on
	return k.status
}

// thaw takes one freeze back.
func (k *keeper) thaw() error {
	k.frost.mu.Lock()
	defer k.frost.mu.Unlock()
	if len(k.frost.wants) == 0 {
		return fault.New(fault.Conflict, "the container is not frozen")
	}
	w := k.frost.wants[len(k.frost.wants)-1]
	w.stop()
	return k.dropLocked(w)
}

// dying is how long a killed process may take before it is thawed unasked.
const dying = 200 * time.Millisecond

// thawToDie lets processes go on that were killed: those that stand still in a
// control group of version 1 do not even die. Whoever wants them to stand still
// gets what he is after, and takes his freeze back later. Somebody else may have
// frozen the group: what does not die is thawed after a while.
func (k *keeper) thawToDie() {
	k.frost.mu.Lock()
	defer k.frost.mu.Unlock()
	if k.frost.heldLocked() {
		_ = k.box.freeze(false) // which fails where they have died by now
		return
	}
	k.stir()
	time.AfterFunc(dying, func() {
		defer k.calm()
		k.frost.mu.Lock()
		defer k.frost.mu.Unlock()
		if k.current().Phase == supervise.PhaseRunning {
			_ = k.box.freeze(false)
		}
	})
}

// dropLocked lets the processes go on when nobody else wants them frozen.
func (k *keeper) dropLocked(w *want) error {
	for i, other := range k.frost.wants {
		if other != w {
			continue
		}
		k.frost.wants = append(k.frost.wants[:i], k.frost.wants[i+1:]...)
		if !k.frost.heldLocked() && k.current().Phase == supervise.PhaseRunning {
			return k.box.freeze(false)
		}
	}
	return nil
}
