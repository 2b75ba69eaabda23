#include "textflag.h"

// The handler may use every register: the kernel has kept them, and puts them
// back when restorer asks for it, to which the handler returns.
TEXT ·handler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	SUB  $16, RSP
	MOVB R0, (RSP) // the signal's number
	MOVD ·pipe(SB), R0
	MOVD RSP, R1
	MOVD $1, R2
	MOVD $64, R8 // write
	SVC
	ADD  $16, RSP
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVD $139, R8 // rt_sigreturn
	SVC
	BRK // not reached

// func entries() (handler, restorer uintptr)
TEXT ·entries(SB), NOSPLIT, $0-16
	MOVD $·handler(SB), R0
	MOVD R0, handler+0(FP)
	MOVD $·restorer(SB), R0
	MOVD R0, restorer+8(FP)
	RET
