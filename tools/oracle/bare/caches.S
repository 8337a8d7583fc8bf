// SPDX-License-Identifier: GPL-2.0

// A host at EL2 and its guest, with nothing between them and the oracle: each section does one thing with the caches,
// and its name ends in what the oracle must find: stale fetches, dirty reads, dirty writes, guest instructions. See
// scripts/tests/oracle, which says what CPU this is for: FWB, DIC and IDC are 0 or 1.
//
// RAM is at 0x40000000. The host sees it there and, as its linear map, at LINEAR; the guest sees it GUEST higher, by
// the second stage, and its own first stage changes nothing.

#define LINEAR	0x100000000
#define GUEST	0x40000000

#define HCR_VM	(1 << 0)
#define HCR_FB	(1 << 9)
#define HCR_RW	(1 << 31)
#define HCR_FWB	(1 << 46)
#define MMU_ON	0x1005		// SCTLR_ELx.M, C and I
#define STALE	(1 - DIC)

	.arch	armv8.2-a
	.text

// Two CPUs come here, each with its number in x0.
	.global	_start
_start:
	mov	x0, #0
start:
	adr	x1, vectors
	msr	vbar_el2, x1
	mov	x1, #0xff			// attribute 0: normal memory, write-back
	msr	mair_el2, x1
	msr	mair_el1, x1
	adr	x1, host_table
	msr	ttbr0_el2, x1
	ldr	x1, =0x80803519			// 39 bits, 4K, inner shareable, write-back
	msr	tcr_el2, x1
	ldr	x1, =0x803519			// the same for EL1, no second range
	msr	tcr_el1, x1
	ldr	x1, =guest_table + GUEST
	msr	ttbr0_el1, x1
	adr	x1, stage2_table
	msr	vttbr_el2, x1
	ldr	x1, =0x80003560			// 32 bits, 4K, from level 1
	msr	vtcr_el2, x1
	tlbi	alle2
	tlbi	alle1
	dsb	sy
	isb
	ldr	x1, =0x30c50830 | MMU_ON
	msr	sctlr_el2, x1
	isb
	cbz	x0, main

// PE 1 does what PE 0 leaves for it in `work`.
1:	adr	x9, work
2:	ldar	x10, [x9]
	cbz	x10, 2b
	blr	x10
	adr	x9, work
	stlr	xzr, [x9]
	b	1b

	.balign	8
work:	.quad	0

// PE 1 calls \function, and PE 0 waits for it.
	.macro	on_pe1 function
	adr	x9, work
	adr	x10, \function
	stlr	x10, [x9]
1:	ldar	x10, [x9]
	cbnz	x10, 1b
	.endm

// The guest's way out is an exception, and goes back to who let it run.
	.balign	2048
vectors:
	.rept	8
	b	power_off
	.balign	128
	.endr
	mrs	x30, tpidr_el2
	ret
	.balign	128
	.rept	7
	b	power_off
	.balign	128
	.endr

// Runs the guest at x0, until its `hvc`. x23 and x24 are its HCR_EL2 and SCTLR_EL1.
guest:
	msr	tpidr_el2, x30
	msr	hcr_el2, x23
	msr	sctlr_el1, x24
	msr	elr_el2, x0
	mov	x0, #0x3c5			// EL1h, all masked
	msr	spsr_el2, x0
	isb
	eret

power_off:
	ldr	x0, =0x84000008			// SYSTEM_OFF
	smc	#0

// A section, in which \stale, \reads, \writes and \instructions are to be found. Each has a page of its own:
// x19 is where the host writes, x20 where it maintains and x21 where the guest sees it.
	.macro	section name, stale, reads, writes, instructions
	ldr	x25, =number
	ldr	x0, [x25]
	add	x0, x0, #1
	str	x0, [x25]
	hint	#0x70
	adr	x1, 1f
	mov	x0, #2f - 1f
	hint	#0x71
	b	3f
1:	.ascii	"\name = "
	.byte	'0' + \stale, ' ', '0' + \reads, ' ', '0' + \writes, ' ', '0' + \instructions
2:	.balign	4
3:	add	x19, x19, #0x1000
	add	x20, x20, #0x1000
	add	x21, x21, #0x1000
	ldr	x23, =HCR_RW | HCR_VM
	ldr	x24, =0x30d00800 | MMU_ON
	.endm
	.macro	mmu_off
	ldr	x24, =0x30d00800
	.endm

// The guest executes its page: two instructions.
	.macro	fetch
	bl	do_fetch
	.endm
do_fetch:
	mov	x0, x21
	b	guest

// It executes a routine from its own page, with x2 as the address: so many instructions as the routine says.
	.macro	run routine
	ldr	x0, =\routine + GUEST
	mov	x2, x21
	bl	guest
	.endm

// The host writes another first instruction to the page, as far as its own caches.
	.macro	write
	add	w22, w22, #1 << 5
	str	w22, [x19]
	.endm

// The same, as far as the PoU.
	.macro	rewrite
	write
	dc	cvau, x20
	dsb	ish
	.endm

main:
	ldr	x19, =pages
	ldr	x20, =pages + LINEAR
	ldr	x21, =pages + GUEST
	ldr	w22, =0x52800000		// mov w0, #0

// While PE 0 is alone, the host's own instructions can be told to the last one.
	section	"nothing", 0, 0, 0, 0
	section	"ten instructions more than nothing", 0, 0, 0, 0
	.rept	10
	nop
	.endr
	section	"on with another PE", 0, 0, 0, 0
	ldr	x0, =0xc4000003			// CPU_ON
	mov	x1, #1
	adr	x2, start
	mov	x3, #1
	smc	#0

// The instruction side.
	section	"rewritten", STALE, 0, 0, 4
	fetch
	rewrite
	fetch

	section	"only the code of the host", 0, 0, 0, 0
	ldr	w0, =0xd65f03c0			// ret
	str	w0, [x19]
	blr	x19
	str	w22, [x19]
	str	w0, [x19, #4]
	blr	x19

	section	"all invalidated", 0, 0, 0, 4
	fetch
	rewrite
	ic	ialluis
	dsb	ish
	fetch

	section	"without a dsb", STALE, 0, 0, 4
	fetch
	rewrite
	ic	ialluis
	fetch

	section	"with a dsb that is too narrow", STALE, 0, 0, 4
	fetch
	rewrite
	ic	ialluis
	dsb	nsh
	fetch

	section	"with a dsb for stores", STALE, 0, 0, 4
	fetch
	rewrite
	ic	ialluis
	dsb	ishst
	fetch

	section	"with a dsb of another PE", STALE, 0, 0, 4
	fetch
	rewrite
	ic	ialluis
	on_pe1	do_dsb
	fetch
	dsb	ish

	section	"by another PE", 0, 0, 0, 4
	fetch
	rewrite
	on_pe1	do_ialluis
	fetch

	section	"before the write", STALE, 0, 0, 4
	fetch
	ic	ialluis
	dsb	ish
	rewrite
	fetch

	section	"by line, through the linear map", 0, 0, 0, 4
	fetch
	rewrite
	ic	ivau, x20
	dsb	ish
	fetch

	section	"by another line", STALE, 0, 0, 4
	fetch
	rewrite
	add	x0, x20, #256
	ic	ivau, x0
	dsb	ish
	fetch

	section	"local", 0, 0, 0, 4
	fetch
	rewrite
	ic	iallu
	dsb	nsh
	fetch

	section	"local to another PE", STALE, 0, 0, 4
	fetch
	rewrite
	on_pe1	do_iallu
	fetch

	section	"executed by another PE", STALE, 0, 0, 4
	fetch
	rewrite
	ic	iallu
	dsb	nsh
	on_pe1	do_fetch_at

	section	"executed by both", 2 * STALE, 0, 0, 6
	fetch
	rewrite
	fetch
	on_pe1	do_fetch_at

	section	"back to what it was", STALE, 0, 0, 6
	ldr	w27, [x19]
	fetch
	rewrite
	ic	ialluis
	dsb	ish
	fetch
	str	w27, [x19]
	dc	cvau, x20
	dsb	ish
	fetch

	section	"by the guest, by address", 0, 0, 0, 7
	fetch
	rewrite
	run	guest_ivau
	fetch

	section	"by the guest, local to another PE", STALE, 0, 0, 7
	fetch
	rewrite
	on_pe1	do_guest_iallu
	fetch

	section	"by the guest, made to be broadcast", 0, 0, 0, 7
	fetch
	rewrite
	on_pe1	do_guest_iallu_fb
	fetch

	section	"written by the guest itself", 0, 0, 0, 6
	fetch
	mov	w1, #0x52800000			// mov w0, #0x3ff: no other page's
	orr	w1, w1, #0x7fe0
	run	guest_write_code
	fetch

	section	"not at the PoU", STALE * (1 - IDC), 0, 0, 4
	fetch
	write
	ic	ialluis
	dsb	ish
	fetch

	section	"a marker of the guest", 0, 0, 0, 5
	fetch
	run	guest_marker

// The data side.
	section	"dirty read", 0, 1, 0, 2
	write
	mmu_off
	run	guest_read

	section	"dirty write", 0, 0, 1, 2
	write
	mmu_off
	run	guest_write

	section	"dirty fetch", 0, 1, 0, 2
	write
	mmu_off
	fetch

	section	"dirty fetch of what was fetched before", 0, 1, 0, 4
	mmu_off
	fetch
	str	w22, [x19, #8]
	fetch

	section	"with the MMU on", 0, 0, 0, 6
	write
	run	guest_read
	run	guest_write
	fetch

	section	"with FWB", 0, 1 - FWB, 1 - FWB, 6
	write
	mmu_off
	ldr	x23, =HCR_RW | HCR_VM | HCR_FWB
	adr	x0, fwb_table
	movk	x0, #1, lsl #48			// another VMID
	msr	vttbr_el2, x0
	run	guest_read
	run	guest_write
	fetch
	adr	x0, stage2_table
	msr	vttbr_el2, x0

	section	"clean", 0, 0, 0, 6
	mmu_off
	run	guest_read
	run	guest_write
	fetch

	section	"cleaned", 0, 0, 0, 4
	write
	dc	cvac, x20
	dsb	ish
	mmu_off
	run	guest_read
	fetch

	section	"cleaned and invalidated", 0, 0, 0, 2
	write
	dc	civac, x20
	dsb	sy
	mmu_off
	run	guest_read

	section	"cleaned without a dsb", 0, 1, 0, 2
	write
	dc	cvac, x20
	mmu_off
	run	guest_read

	section	"cleaned as far as the PoU", 0, 1, 0, 2
	rewrite
	mmu_off
	run	guest_read

	section	"another line cleaned", 0, 1, 0, 2
	write
	add	x0, x20, #256
	dc	cvac, x0
	dsb	ish
	mmu_off
	run	guest_read

	section	"dirty by dc zva", 0, 1, 0, 2
	dc	zva, x19
	mmu_off
	run	guest_read

	section	"dirty by the end of an unaligned store", 0, 1, 0, 2
	sub	x0, x19, #4
	str	x0, [x0]
	mmu_off
	run	guest_read

	section	"dirty by a vector", 0, 1, 0, 2
	msr	cptr_el2, xzr
	isb
	st1	{v0.16b}, [x19]
	mmu_off
	run	guest_read

	section	"dirty by an exclusive", 0, 1, 0, 2
1:	ldxr	w0, [x19]
	stxr	w1, w0, [x19]
	cbnz	w1, 1b
	mmu_off
	run	guest_read

	section	"dirty by the guest", 0, 1, 0, 4
	run	guest_write
	mmu_off
	run	guest_read

	b	power_off

// What PE 1 may be asked to do.
do_dsb:
	dsb	ish
	ret
do_ialluis:
	ic	ialluis
	dsb	ish
	ret
do_iallu:
	ic	iallu
	dsb	ish
	ret
do_fetch_at:
	ldr	x0, =pages + GUEST
	ldr	x1, =number
	ldr	x1, [x1]
	add	x21, x0, x1, lsl #12
	ldr	x23, =HCR_RW | HCR_VM
	ldr	x24, =0x30d00800 | MMU_ON
	mov	x26, x30
	bl	do_fetch
	ret	x26
do_guest_iallu_fb:
	ldr	x23, =HCR_RW | HCR_VM | HCR_FB
	b	1f
do_guest_iallu:
	ldr	x23, =HCR_RW | HCR_VM
1:	ldr	x24, =0x30d00800 | MMU_ON
	mov	x26, x30
	ldr	x0, =guest_iallu + GUEST
	bl	guest
	ret	x26

	.balign	8
number:	.quad	0
	.ltorg

// The guest's own routines.
	.balign	4096
guest_read:
	ldr	w1, [x2]
	hvc	#0
guest_write:
	str	w1, [x2, #8]
	hvc	#0
guest_write_code:
	str	w1, [x2]
	hvc	#0
guest_ivau:
	ic	ivau, x2
	dsb	ish
	hvc	#0
guest_iallu:
	ic	iallu
	dsb	ish
	hvc	#0
guest_marker:
	mov	x0, #99
	hint	#0x70
	hvc	#0

// Blocks of 1 GiB: 0x701 is normal memory, inner shareable, accessed.
	.balign	4096
host_table:
	.quad	0, 0x40000701, 0, 0, 0, 0x40000701
	.balign	4096
guest_table:
	.quad	0, 0, 0x80000701
	.balign	4096
stage2_table:
	.quad	0, 0, 0x400007fd		// the same, if the first stage does not object
	.balign	4096
fwb_table:
	.quad	0, 0, 0x400007d9		// the same, whatever the first stage says
	.balign	4096

// A page for each section. The first is nobody's.
pages:
	.rept	64
	mov	w0, #0
	hvc	#0
	.balign	4096
	.endr
