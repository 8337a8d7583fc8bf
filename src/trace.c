// SPDX-License-Identifier: GPL-2.0
/* Emits the trace events: while one is off, its function is a branch that is not taken. */

#define CREATE_TRACE_POINTS
#include "trace.h"

void emit_vcpu_reset(const char *vm, int vcpu, u8 policy, u8 remedy, bool busy,
		     u64 ns);
void emit_busy(const char *vm, int vcpu);
void emit_icache_invalidate(const char *vm, bool native, u64 ns);
void emit_stage2_unmap(const char *vm, u64 ns);
void emit_pay(const char *vm, u64 ns);
void emit_stage2_flush(const char *vm, u64 ns);
void emit_clean_elide(const char *vm, u64 bytes, u64 tlbi);

void emit_vcpu_reset(const char *vm, int vcpu, u8 policy, u8 remedy, bool busy, u64 ns)
{
	trace_vcpu_reset(vm, vcpu, policy, remedy, busy, ns);
}

void emit_busy(const char *vm, int vcpu)
{
	trace_busy(vm, vcpu);
}

void emit_icache_invalidate(const char *vm, bool native, u64 ns)
{
	trace_icache_invalidate(vm, native, ns);
}

void emit_stage2_unmap(const char *vm, u64 ns)
{
	trace_stage2_unmap(vm, ns);
}

void emit_pay(const char *vm, u64 ns)
{
	trace_pay(vm, ns);
}

void emit_stage2_flush(const char *vm, u64 ns)
{
	trace_stage2_flush(vm, ns);
}

void emit_clean_elide(const char *vm, u64 bytes, u64 tlbi)
{
	trace_clean_elide(vm, bytes, tlbi);
}
