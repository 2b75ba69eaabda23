#include "textflag.h"

// func rawClone(args unsafe.Pointer, size, header uintptr, born unsafe.Pointer, n, slack uintptr) (r, entered, stuck uintptr)
// The child never returns: it has no stack that it may touch. The thread enters the
// namespaces born, clones and goes back; Go's scheduler, which could bring the
// goroutine to another thread meanwhile, does not interrupt assembly. The child
// inherits slack, if it is not 0 (thread.Slack).
TEXT ·rawClone(SB), NOSPLIT, $0-72
	MOVD born+24(FP), R21
	MOVD n+32(FP), R22
	MOVD $0, R23
enter:
	CMP  R23, R22
	BEQ  clone
	MOVD 0(R21), R0
	MOVD 8(R21), R1
	MOVD $268, R8 // setns
	SVC
	CBNZ R0, back
	ADD  $24, R21
	ADD  $1, R23
	JMP  enter
clone:
	MOVD slack+40(FP), R1
	CBZ  R1, settled
	MOVD $29, R0 // PR_SET_TIMERSLACK
	MOVD $167, R8 // prctl
	SVC
settled:
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD header+16(FP), R19
	MOVD $435, R8 // clone3
	SVC
	CBZ  R0, child
back:
	MOVD R0, r+48(FP)
	MOVD R23, entered+56(FP)
	MOVD $0, R24
leave:
	CBZ  R23, done
	SUB  $24, R21
	SUB  $1, R23
	MOVD 16(R21), R0
	MOVD 8(R21), R1
	MOVD $268, R8 // setns
	SVC
	ORR  R0, R24
	JMP  leave
done:
	MOVD R24, stuck+64(FP)
	RET
child:
	MOVD 0(R19), R20
	JMP  ·interpret(SB)

// The interpreter of a program, position-independent and without a stack.
// R19 is the header, R20 the step at hand; the layouts are in program.go.
TEXT ·interpret(SB), NOSPLIT|NOFRAME, $0-0
loop:
	MOVD 56(R20), R21
	MOVD 8(R20), R0
	TBZ  $0, R21, arg1
	MOVD (R0), R0
arg1:
	MOVD 16(R20), R1
	TBZ  $1, R21, arg2
	MOVD (R1), R1
arg2:
	MOVD 24(R20), R2
	TBZ  $2, R21, arg3
	MOVD (R2), R2
arg3:
	MOVD 32(R20), R3
	TBZ  $3, R21, arg4
	MOVD (R3), R3
arg4:
	MOVD 40(R20), R4
	TBZ  $4, R21, arg5
	MOVD (R4), R4
arg5:
	MOVD 48(R20), R5
	TBZ  $5, R21, call
	MOVD (R5), R5
call:
	MOVD 0(R20), R8
	CMN  $1, R8
	BEQ  done
	CMN  $2, R8
	BEQ  compare
	SVC
	CMN  $4095, R0
	BCS  again
done:
	MOVD 64(R20), R21
	MOVD R0, (R21)
	MOVD 72(R20), R21
	CBZ  R21, next
	CMP  R21, R0
	BNE  short
next:
	MOVD 80(R20), R20
	JMP  loop
compare:
	CMP  R0, R1
	BEQ  next
again:
	CMN  $11, R0 // EAGAIN, at a walk that a rename elsewhere has disturbed
	BNE  failed
	TBZ  $6, R21, failed
	MOVD 32(R19), R21
	CBZ  R21, failed
	SUB  $1, R21, R21
	MOVD R21, 32(R19)
	JMP  loop
short:
	MOVD $-4095, R0
failed:
	NEG  R0, R0
	MOVD R20, 8(R19)
	MOVD R0, 16(R19)
	MOVD 88(R20), R21
	CMP  R21, R0
	BEQ  goto1
	MOVD 104(R20), R21
	CMP  R21, R0
	BEQ  goto2
	MOVD 120(R20), R20
	JMP  loop
goto1:
	MOVD 96(R20), R20
	JMP  loop
goto2:
	MOVD 112(R20), R20
	JMP  loop

// func interpreter() uintptr
TEXT ·interpreter(SB), NOSPLIT, $0-8
	MOVD $·interpret(SB), R0
	MOVD R0, ret+0(FP)
	RET
