package inflate

import "unsafe"

// What the fast loop may touch behind its two positions in one turn: of the
// input two refills, of the output three literals and a match, both written in
// pieces that may reach beyond their end.
const (
	inRoom  = 16
	outRoom = 3 + 258 + 16
)

// fast decodes a block of codes while there are inRoom bytes of input and
// outRoom bytes of output. It tells whether the block ended.
//
// Its loads and stores are not checked by the compiler: at the beginning of
// each turn ip <= len(d.in)-inRoom and op <= len(d.window)-outRoom, a turn moves
// ip by at most 14 and op by at most 3+258, and a match is copied from between
// d.base, the beginning of what was put out, and op.
func (d *decoder) fast() (ended bool, err error) {
	in, out := unsafe.Pointer(unsafe.SliceData(d.in)), unsafe.Pointer(&d.window)
	ip, op := d.pos, d.end
	inEnd, outEnd, base := len(d.in)-inRoom, len(d.window)-outRoom, d.base
	bits, n := d.bits, d.n // of n only the lowest six bits count within the loop

	if ip > inEnd || op > outEnd {
		return false, nil
	}
	bits |= load(in, ip) << (n & 63)
	ip += int(^n >> 3 & 7)
	n |= 56
	e := d.joined[bits&(1<<litBits-1)]
	for ip <= inEnd && op <= outEnd {
		was := bits
		bits >>= e & 63
		n -= e
		*(*uint32)(unsafe.Add(out, op)) = uint32(e >> 32)
		op += int(e >> 6 & 3)
		if uint32(e) >= firstMatch {
			if uint32(e) >= special {
				if e&isLink != 0 {
					was = bits
					e = d.lit[e>>32+bits&d.litSub]
					bits >>= e & 63
					n -= e
				}
				if uint32(e) < firstMatch {
					*(*byte)(unsafe.Add(out, op)) = byte(e >> 32)
					op++
					goto refill
				}
				if uint32(e) >= special {
					if ended = e&isEnd != 0; !ended {
						err = ErrCorrupt
					}
					break
				}
			}
			{
				length := int(uint32(e)>>lengthShift) + int(was>>(e>>codeShift&63)&(e>>maskShift&31))
				f := d.dist[bits&(1<<distBits-1)]
				if uint32(f) >= special {
					if f&isLink != 0 {
						bits >>= distBits
						n -= distBits
						f = d.dist[f>>32+bits&d.distSub]
					}
					if uint32(f) >= special {
						err = ErrCorrupt
						break
					}
				}
				dist := int(uint32(f)>>distShift) + int(bits>>(f>>codeShift&63)&(f>>32))
				bits >>= f & 63
				n -= f
				if dist > op-base {
					err = ErrCorrupt
					break
				}
				bits |= load(in, ip) << (n & 63)
				ip += int(^n >> 3 & 7)
				n |= 56
				e = d.joined[bits&(1<<litBits-1)]

				from, to := unsafe.Add(out, op-dist), unsafe.Add(out, op)
				op += length
				if dist >= 8 {
					*(*uint64)(to) = *(*uint64)(from)
					*(*uint64)(unsafe.Add(to, 8)) = *(*uint64)(unsafe.Add(from, 8))
					for i := 16; i < length; i += 8 {
						*(*uint64)(unsafe.Add(to, i)) = *(*uint64)(unsafe.Add(from, i))
					}
					continue
				}
				word, step := pattern(*(*uint64)(from), dist)
				for i := 0; i < length; i += step {
					*(*uint64)(unsafe.Add(to, i)) = word
				}
				continue
			}
		}
	refill:
		bits |= load(in, ip) << (n & 63)
		ip += int(^n >> 3 & 7)
		n |= 56
		e = d.joined[bits&(1<<litBits-1)]
	}
	n &= 63
	d.pos, d.end, d.bits, d.n = ip, op, bits&(1<<n-1), n
	return ended, err
}

func load(p unsafe.Pointer, at int) uint64 { return *(*uint64)(unsafe.Add(p, at)) }

// pattern repeats the first dist bytes of a word to its end, dist being less
// than 8. A row of such words, each step bytes behind the one before, repeats
// them without end.
func pattern(word uint64, dist int) (uint64, int) {
	n := uint(dist) * 8
	word &= 1<<n - 1
	word |= word << n
	word |= word << (2 * n)
	word |= word << (4 * n)
	return word, 8 - 8%dist
}
