// Package thread runs functions on operating-system threads of their own, for
// what Linux keeps per thread: namespaces, unshare(2), the working directory.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Own runs f on a thread that does nothing else meanwhile, and returns when f
// has. The thread is not the process's first, which stands for the process in
// /proc/self and never ends. When f returns false its thread ends with it, as it
// must when f has left it in another namespace.
func Own(f func() (clean bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			Own(f) // elsewhere, as this goroutine holds the first thread until it has run
			runtime.UnlockOSThread()
			return
		}
		if f() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}
