// SPDX-License-Identifier: GPL-2.0
/* Emits the trace events: while one is off, its function is a branch that is not taken. */

#define CREATE_TRACE_POINTS
#include "trace.h"

void emit_vcpu_reset(struct kvm_vcpu *vcpu, u8 policy, u8 remedy, bool busy, u64 ns);
void emit_busy(struct kvm_vcpu *vcpu);
void emit_icache_invalidate(struct kvm *kvm, bool own, u64 ns);
void emit_stage2_unmap(struct kvm *kvm, u64 ns);
void emit_pay(struct kvm *kvm, u64 ns);

void emit_vcpu_reset(struct kvm_vcpu *vcpu, u8 policy, u8 remedy, bool busy, u64 ns)
{
	trace_vcpu_reset(vcpu, policy, remedy, busy, ns);
}

void emit_busy(struct kvm_vcpu *vcpu)
{
	trace_busy(vcpu);
}

void emit_icache_invalidate(struct kvm *kvm, bool own, u64 ns)
{
	trace_icache_invalidate(kvm, own, ns);
}

void emit_stage2_unmap(struct kvm *kvm, u64 ns)
{
	trace_stage2_unmap(kvm, ns);
}

void emit_pay(struct kvm *kvm, u64 ns)
{
	trace_pay(kvm, ns);
}
