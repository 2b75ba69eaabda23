#include "textflag.h"

#define prctl 157
#define PR_SET_TIMERSLACK 29
#define PR_GET_TIMERSLACK 30
#define getrlimit 97
#define setrlimit 160
#define RLIMIT_NOFILE 7

// entry is where the kernel begins a program that is linked with it. On the stack
// lie argc, argv, NULL, envp, NULL and auxv, and Go reads on from one to the
// next: for one more variable, all before envp moves down by a word.
TEXT ·entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVQ 0(SP), CX
	ADDQ $2, CX // the words before envp
	LEAQ (SP)(CX*8), SI
	MOVQ $0x4f525058414d4f47, BX // "GOMAXPRO"
	MOVQ $0x3d53434f52505841, DX // "AXPROCS="
look:
	MOVQ (SI), AX
	ADDQ $8, SI
	TESTQ AX, AX
	JZ   absent
	CMPQ BX, (AX)
	JNE  look
	CMPQ DX, 3(AX)
	JNE  look
	JMP  begin
absent:
	LEAQ -8(SP), DI
	MOVQ SP, SI
	LEAQ -8(SP), SP
	CLD
	REP
	MOVSQ
	LEAQ processors<>(SB), AX
	MOVQ AX, (DI)
	MOVQ $1, ·added(SB)
begin:
	MOVQ ·rate(SB), AX
	MOVQ $0, (AX)
	MOVQ $prctl, AX
	MOVQ $PR_GET_TIMERSLACK, DI
	SYSCALL
	MOVQ AX, ·slack(SB)
	MOVQ $prctl, AX
	MOVQ $PR_SET_TIMERSLACK, DI
	MOVQ $5000000, SI // ns
	SYSCALL
	MOVQ $getrlimit, AX
	MOVQ $RLIMIT_NOFILE, DI
	LEAQ ·files(SB), SI
	SYSCALL
	TESTQ AX, AX
	JNZ  go
	MOVQ ·files+8(SB), AX
	MOVQ AX, few<>+8(SB)
	MOVQ $3, few<>+0(SB)
	CMPQ ·files+0(SB), $3
	JLS  go
	MOVQ $setrlimit, AX
	MOVQ $RLIMIT_NOFILE, DI
	LEAQ few<>(SB), SI
	SYSCALL
	TESTQ AX, AX
	JNZ  go
	MOVQ $1, ·lowered(SB)
go:
	JMP  _rt0_amd64_linux(SB)

// func settle()
TEXT ·settle(SB), NOSPLIT, $0-0
	MOVQ ·slack(SB), SI
	TESTQ SI, SI
	JLE  done // not begun at entry, or refused
	MOVQ $prctl, AX
	MOVQ $PR_SET_TIMERSLACK, DI
	SYSCALL
done:
	CMPQ ·lowered(SB), $0
	JEQ  same
	MOVQ $setrlimit, AX
	MOVQ $RLIMIT_NOFILE, DI
	LEAQ ·files(SB), SI
	SYSCALL
same:
	RET

// func deep()
TEXT ·deep(SB), 0, $10000-0
	RET

GLOBL few<>(SB), NOPTR, $16

DATA processors<>+0(SB)/8, $"GOMAXPRO"
DATA processors<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL processors<>(SB), RODATA|NOPTR, $16
