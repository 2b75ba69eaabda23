#include "textflag.h"

// func rawClone(args unsafe.Pointer, size, header uintptr, born unsafe.Pointer, n, slack uintptr) (r, entered, stuck uintptr)
// The child never returns: it has no stack that it may touch. The thread enters the
// namespaces born, clones and goes back; Go's scheduler, which could bring the
// goroutine to another thread meanwhile, does not interrupt assembly. The child
// inherits slack, if it is not 0 (thread.Slack).
TEXT ·rawClone(SB), NOSPLIT, $0-72
	MOVQ born+24(FP), BX
	MOVQ n+32(FP), R13
	MOVQ $0, R9
enter:
	CMPQ R9, R13
	JEQ  clone
	MOVQ 0(BX), DI
	MOVQ 8(BX), SI
	MOVQ $308, AX // setns
	SYSCALL
	TESTQ AX, AX
	JNZ  back
	ADDQ $24, BX
	INCQ R9
	JMP  enter
clone:
	MOVQ slack+40(FP), SI
	TESTQ SI, SI
	JZ   settled
	MOVQ $29, DI // PR_SET_TIMERSLACK
	MOVQ $157, AX // prctl
	SYSCALL
settled:
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ header+16(FP), R12
	MOVQ $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JZ   child
back:
	MOVQ AX, r+48(FP)
	MOVQ R9, entered+56(FP)
	MOVQ $0, R10
leave:
	TESTQ R9, R9
	JZ   done
	SUBQ $24, BX
	DECQ R9
	MOVQ 16(BX), DI
	MOVQ 8(BX), SI
	MOVQ $308, AX // setns
	SYSCALL
	ORQ  AX, R10
	JMP  leave
done:
	MOVQ R10, stuck+64(FP)
	RET
child:
	MOVQ 0(R12), R13
	JMP  ·interpret(SB)

// The interpreter of a program, position-independent and without a stack.
// R12 is the header, R13 the step at hand; the layouts are in program.go.
TEXT ·interpret(SB), NOSPLIT|NOFRAME, $0-0
loop:
	MOVQ 56(R13), BX
	MOVQ 8(R13), DI
	BTQ  $0, BX
	JCC  arg1
	MOVQ (DI), DI
arg1:
	MOVQ 16(R13), SI
	BTQ  $1, BX
	JCC  arg2
	MOVQ (SI), SI
arg2:
	MOVQ 24(R13), DX
	BTQ  $2, BX
	JCC  arg3
	MOVQ (DX), DX
arg3:
	MOVQ 32(R13), R10
	BTQ  $3, BX
	JCC  arg4
	MOVQ (R10), R10
arg4:
	MOVQ 40(R13), R8
	BTQ  $4, BX
	JCC  arg5
	MOVQ (R8), R8
arg5:
	MOVQ 48(R13), R9
	BTQ  $5, BX
	JCC  call
	MOVQ (R9), R9
call:
	MOVQ 0(R13), AX
	CMPQ AX, $-1
	JEQ  move
	CMPQ AX, $-2
	JEQ  compare
	SYSCALL
	CMPQ AX, $-4095
	JCC  again
done:
	MOVQ 64(R13), BX
	MOVQ AX, (BX)
	MOVQ 72(R13), BX
	TESTQ BX, BX
	JZ   next
	CMPQ AX, BX
	JNE  short
next:
	MOVQ 80(R13), R13
	JMP  loop
move:
	MOVQ DI, AX
	JMP  done
compare:
	CMPQ DI, SI
	JEQ  next
again:
	CMPQ AX, $-11 // EAGAIN, at a walk that a rename elsewhere has disturbed
	JNE  failed
	BTQ  $6, BX
	JCC  failed
	MOVQ 32(R12), BX
	TESTQ BX, BX
	JZ   failed
	DECQ BX
	MOVQ BX, 32(R12)
	JMP  loop
short:
	MOVQ $-4095, AX
failed:
	NEGQ AX
	MOVQ R13, 8(R12)
	MOVQ AX, 16(R12)
	CMPQ AX, 88(R13)
	JEQ  goto1
	CMPQ AX, 104(R13)
	JEQ  goto2
	MOVQ 120(R13), R13
	JMP  loop
goto1:
	MOVQ 96(R13), R13
	JMP  loop
goto2:
	MOVQ 112(R13), R13
	JMP  loop

// func interpreter() uintptr
TEXT ·interpreter(SB), NOSPLIT, $0-8
	LEAQ ·interpret(SB), AX
	MOVQ AX, ret+0(FP)
	RET
