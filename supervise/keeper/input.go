package keeper

import "github.com/tarehq/tare/logs"

// input moves a client's input to the process.
type input struct {
	s    *session
	keys detachKeys
	deaf bool // the process takes no more
}

// read passes on what comes until the session should end: at a detach, at the
// end of the client, at the end of its input where that ends the session.
func (in *input) read() {
	for {
		buf, n, err := readChunk(in.s.rc, nil)
		if err != nil {
			return // shut down by us, or the client is gone
		}
		if buf == nil {
			in.end()
			return
		}
		over := in.take((*buf)[logs.HeaderSize:][:n])
		chunks.Put(buf)
		if over {
			return
		}
	}
}

// take passes p on and tells whether the session is over.
func (in *input) take(p []byte) bool {
	s := in.s
	if !s.o.Stdin || s.stdio.in == nil || len(p) == 0 {
		return false
	}
	p, detach := in.keys.filter(p)
	if !in.deaf && len(p) > 0 {
		in.deaf = s.stdio.writeStdin(p) != nil
	}
	if detach {
		s.detached()
	}
	return detach
}

// end acts on the end of the client's input. Where that does not end the
// process's input it ends the session, as in Docker; a client that has no
// input to give goes on to read output, until it is gone.
func (in *input) end() {
	s := in.s
	if s.o.Stdin && s.stdio.in != nil {
		if !s.closeStdin || s.stdio.tty {
			return
		}
		s.stdio.closeStdin()
	}
	s.awaitHangup()
}

// detachKeys finds the key sequence that ends a session in its input. The
// beginning of the sequence is held back until it is clear whether it goes on;
// what turned out to be none is passed on whole, and the search starts anew
// behind it.
type detachKeys struct {
	keys []byte
	pos  int // so many of them were seen
}

// filter returns what of p is input for the process, and whether the sequence
// is complete; what follows it is dropped.
func (d *detachKeys) filter(p []byte) (out []byte, detach bool) {
	if len(d.keys) == 0 {
		return p, false
	}
	for _, c := range p {
		if c == d.keys[d.pos] {
			d.pos++
			if d.pos == len(d.keys) {
				return out, true
			}
			continue
		}
		out = append(out, d.keys[:d.pos]...)
		d.pos = 0
		if c == d.keys[0] && len(d.keys) > 1 {
			d.pos = 1
			continue
		}
		out = append(out, c)
	}
	return out, false
}
