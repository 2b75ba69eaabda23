#include "textflag.h"

#define prlimit64 302
#define NOFILE 7
#define prctl 157
#define SET_TIMERSLACK 29

// tare_start_brief is tare_start, for a program whose threads may be woken late by
// a millisecond and which hands that on to nobody: see thread.Prompt.
TEXT tare_start_brief(SB), NOSPLIT|NOFRAME, $0
	MOVQ	$prctl, AX
	MOVQ	$SET_TIMERSLACK, DI
	MOVQ	$1000000, SI // ns
	XORQ	DX, DX
	XORQ	R10, R10
	SYSCALL
	JMP	tare_start(SB)

// tare_start stands in the place of _rt0_amd64_linux and goes on there. At the
// stack's end lie the number of arguments, the arguments, a zero, the environment
// and a zero (the System V ABI for x86-64, Initial Stack and Register State).
TEXT tare_start(SB), NOSPLIT|NOFRAME, $0
	MOVQ	0(SP), R12
	LEAQ	16(SP)(R12*8), DX
	MOVQ	$0x4f525058414d4f47, DI // "GOMAXPRO"
next:
	MOVQ	(DX), CX
	TESTQ	CX, CX
	JZ	unnamed
	ADDQ	$8, DX
	CMPQ	DI, (CX)
	JNE	next
	JMP	_rt0_amd64_linux(SB) // the user has a number
unnamed:
	MOVQ	·rate(SB), CX
	MOVQ	$0, (CX)

	// No file but the standard streams, where they are missing, can be opened until
	// restore.
	LEAQ	·files(SB), R10
	XORQ	DX, DX
	MOVQ	$prlimit64, AX
	XORQ	DI, DI
	MOVQ	$NOFILE, SI
	SYSCALL
	TESTQ	AX, AX
	JNZ	move
	MOVQ	·files+8(SB), CX
	MOVQ	CX, ·none+8(SB)
	LEAQ	·none(SB), DX
	XORQ	R10, R10
	MOVQ	$prlimit64, AX
	XORQ	DI, DI
	MOVQ	$NOFILE, SI
	SYSCALL
	MOVB	$1, ·limited(SB)

move:	// What lies before the environment goes down by a word, for a variable more.
	MOVQ	SP, SI
	SUBQ	$8, SP
	MOVQ	SP, DI
	LEAQ	2(R12), CX
	CLD
	REP
	MOVSQ
	LEAQ	variable<>(SB), CX
	MOVQ	CX, (DI)
	MOVB	$1, ·began(SB)
	JMP	_rt0_amd64_linux(SB)

DATA variable<>+0(SB)/8, $"GOMAXPRO"
DATA variable<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL variable<>(SB), RODATA, $16

// func restore()
TEXT ·restore(SB), NOSPLIT, $0
	LEAQ	·files(SB), DX
	XORQ	R10, R10
	MOVQ	$prlimit64, AX
	XORQ	DI, DI
	MOVQ	$NOFILE, SI
	SYSCALL
	RET
