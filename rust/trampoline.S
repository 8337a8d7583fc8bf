/* SPDX-License-Identifier: GPL-2.0 */

#include <linux/linkage.h>
#include <asm/assembler.h>

	.text

/*
 * void redirect_call_original(void *argument, unsigned long original)
 *
 * Calls a redirected function behind its patched entry, so that the call is not redirected again.
 * RET and not BLR: what lies behind the patch site need not be a landing pad for branch target
 * identification (Arm ARM, "FEAT_BTI"). ftrace itself goes there in the same way.
 */
SYM_FUNC_START(redirect_call_original)
	stp	x29, x30, [sp, #-16]!
	mov	x29, sp
	adr	x30, 0f
	ret	x1
0:	ldp	x29, x30, [sp], #16
	ret
SYM_FUNC_END(redirect_call_original)

/*
 * Where calls of kvm_arch_vcpu_ioctl_run() go while the gate is open: the handler may sleep, then
 * the original runs in its caller's frame as if it had been called directly. Nothing of this module
 * stays on the stack of a vCPU that runs for hours.
 */
SYM_CODE_START(run_entry_trampoline)
	bti	c
	stp	x29, x30, [sp, #-32]!
	mov	x29, sp
	str	x0, [sp, #16]
	bl	run_entry_handler
	ldr	x0, [sp, #16]
	ldp	x29, x30, [sp], #32
	adrp	x10, run_entry_original
	ldr	x10, [x10, #:lo12:run_entry_original]
	ret	x10
SYM_CODE_END(run_entry_trampoline)

/*
 * int stage2_unmap_native(struct kvm_pgtable *table, u64 addr, u64 size)
 *
 * kvm_pgtable_stage2_unmap() behind its patched entry, as in redirect_call_original(), but in the
 * caller's frame: all arguments are where they were.
 */
SYM_FUNC_START(stage2_unmap_native)
	adrp	x10, stage2_unmap_original
	ldr	x10, [x10, #:lo12:stage2_unmap_original]
	ret	x10
SYM_FUNC_END(stage2_unmap_native)

	.pushsection ".data", "aw"
	.balign 8
SYM_DATA(stage2_unmap_original, .quad 0)
SYM_DATA(run_entry_original, .quad 0)
	.popsection
