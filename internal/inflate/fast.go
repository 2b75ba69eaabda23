package inflate

import "unsafe"

// What the fast loop may touch behind its two positions in one turn: of the
// input two refills of 7 bytes, the last one reading 8, of the output three
// literals, and a match that is written in pieces beyond its end.
const (
	inRoom  = 7 + 8
	outRoom = 3 + 258 + 16
)

// fast decodes a block of codes while there are inRoom bytes of input and
// outRoom bytes of output. It tells whether the block ended.
//
// Its loads and stores are not checked by the compiler: at the beginning of
// each turn ip <= len(d.in)-inRoom and op <= len(d.window)-outRoom, a turn moves
// them by no more than that, and a match is copied from between d.base, the
// beginning of what was put out, and op.
//
// After a refill there are at least 56 bits. Three literals use up 33 of them,
// a length behind two 42, a distance 28, and litBits more are looked at before
// the next refill.
func (d *decoder) fast() (ended bool, err error) {
	in, out := unsafe.Pointer(unsafe.SliceData(d.in)), unsafe.Pointer(&d.window)
	ip, op := d.pos, d.end
	inEnd, outEnd, base := len(d.in)-inRoom, len(d.window)-outRoom, d.base
	bits, n := d.bits, d.n // of n only the lowest six bits count within the loop

	if ip > inEnd || op > outEnd {
		return false, nil
	}
	bits, ip, n = refill(bits, in, ip, n)
	e := d.lit[bits&(1<<litBits-1)]
	for ip <= inEnd && op <= outEnd {
		bits, ip, n = refill(bits, in, ip, n)
		was := bits
		bits, n = bits>>(e&63), n-e
		if uint32(e) < firstMatch {
			op = put(out, op, e)
			e = d.lit[bits&(1<<litBits-1)]
			was, bits, n = bits, bits>>(e&63), n-e
			if uint32(e) < firstMatch {
				op = put(out, op, e)
				e = d.lit[bits&(1<<litBits-1)]
				was, bits, n = bits, bits>>(e&63), n-e
				if uint32(e) < firstMatch {
					op = put(out, op, e)
					e = d.lit[bits&(1<<litBits-1)]
					continue
				}
			}
		}
		if uint32(e) >= special {
			if e&isLink != 0 {
				was, e = bits, d.lit[e>>32+bits&d.litSub]
				bits, n = bits>>(e&63), n-e
			}
			if uint32(e) < firstMatch {
				op = put(out, op, e)
				bits, ip, n = refill(bits, in, ip, n)
				e = d.lit[bits&(1<<litBits-1)]
				continue
			}
			if uint32(e) >= special {
				if ended = e&isEnd != 0; !ended {
					err = ErrCorrupt
				}
				break
			}
		}
		bits, ip, n = refill(bits, in, ip, n)
		f := d.dist[bits&(1<<distBits-1)]
		length := int(uint32(e)>>lengthShift) + int(was>>(e>>codeShift&63)&(e>>maskShift&31))
		if uint32(f) >= special {
			if f&isLink != 0 {
				bits, n = bits>>distBits, n-distBits
				f = d.dist[f>>32+bits&d.distSub]
			}
			if uint32(f) >= special {
				err = ErrCorrupt
				break
			}
		}
		dist := int(uint32(f)>>distShift) + int(bits>>(f>>codeShift&63)&(f>>32))
		bits, n = bits>>(f&63), n-f
		if dist > op-base {
			err = ErrCorrupt
			break
		}
		e = d.lit[bits&(1<<litBits-1)]

		from, to := unsafe.Add(out, op-dist), unsafe.Add(out, op)
		op += length
		if dist < 8 {
			repeat(to, le.Uint64(eight(from, 0)[:]), dist, length)
			continue
		}
		*eight(to, 0) = *eight(from, 0)
		*eight(to, 8) = *eight(from, 8)
		for i := 16; i < length; i += 8 {
			*eight(to, i) = *eight(from, i)
		}
	}
	n &= 63
	d.pos, d.end, d.bits, d.n = ip, op, bits&(1<<n-1), n
	return ended, err
}

// eight is the bytes from an offset on, on machines of any byte order and
// alignment.
func eight(p unsafe.Pointer, at int) *[8]byte { return (*[8]byte)(unsafe.Add(p, at)) }

// refill takes as many whole bytes as there is room for.
func refill(bits uint64, in unsafe.Pointer, ip int, n uint64) (uint64, int, uint64) {
	return bits | le.Uint64(eight(in, ip)[:])<<(n&63), ip + int(^n>>3&7), n | 56
}

// put puts out a literal.
func put(out unsafe.Pointer, op int, e uint64) int {
	*(*byte)(unsafe.Add(out, op)) = byte(e >> 32)
	return op + 1
}

// repeat writes the first dist bytes of a word, dist being less than 8, over and
// over, length bytes and up to 7 more.
func repeat(to unsafe.Pointer, word uint64, dist, length int) {
	n := uint(dist) * 8
	word &= 1<<n - 1
	word |= word << n
	word |= word << (2 * n)
	word |= word << (4 * n)
	for i, step := 0, int(steps[dist&7]); i < length; i += step {
		le.PutUint64(eight(to, i)[:], word)
	}
}

// steps are the largest multiples of their index that are at most 8.
var steps = [8]uint8{1: 8, 2: 8, 3: 6, 4: 8, 5: 5, 6: 6, 7: 7}
