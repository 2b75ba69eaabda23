#include "textflag.h"

// The handler may use every register: the kernel has kept them, and puts them
// back when restorer asks for it, to which the handler returns.
TEXT ·handler(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	PUSHQ DI // the signal's number
	MOVQ ·pipe(SB), DI
	MOVQ SP, SI
	MOVQ $1, DX
	MOVQ $1, AX // write
	SYSCALL
	POPQ DI
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT  $3 // not reached

// func entries() (handler, restorer uintptr)
TEXT ·entries(SB), NOSPLIT, $0-16
	LEAQ ·handler(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ ·restorer(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
