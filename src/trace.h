/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trace events of the system kvm_fwb_reset. A VM goes by its name in vms/, and by `?` where
 * there was no memory to know it; durations are in ns.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_fwb_reset

#if !defined(TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define TRACE_H

#include <linux/tracepoint.h>

/* A vCPU that had run was initialised again, and its cache maintenance is done or owed. */
TRACE_EVENT(vcpu_reset,
	TP_PROTO(const char *vm, int vcpu, u8 policy, u8 remedy, bool busy, u64 ns),
	TP_ARGS(vm, vcpu, policy, remedy, busy, ns),
	TP_STRUCT__entry(
		__string(vm, vm)
		__field(int, vcpu)
		__field(u8, policy)
		__field(u8, remedy)
		__field(bool, busy)
		__field(u64, duration_ns)
	),
	TP_fast_assign(
		__assign_str(vm);
		__entry->vcpu = vcpu;
		__entry->policy = policy;
		__entry->remedy = remedy;
		__entry->busy = busy;
		__entry->duration_ns = ns;
	),
	TP_printk("vm=%s vcpu=%d policy=%s remedy=%s busy=%d duration_ns=%llu",
		  __get_str(vm), __entry->vcpu,
		  __print_symbolic(__entry->policy,
				   { 0, "native" }, { 1, "fwb" }, { 2, "once" }, { 3, "unmap" },
				   { 4, "lazy" }),
		  /* trace.rs has the numbers. */
		  __print_symbolic(__entry->remedy,
				   { 0, "native" }, { 1, "none" }, { 2, "icache" }, { 3, "unmap" },
				   { 4, "icache_owed" }, { 5, "unmap_once" }, { 6, "unmap_lazily" }),
		  __entry->busy, __entry->duration_ns)
);

/* A re-init found another vCPU of the VM in KVM_RUN, so that nothing could be put off or shared. */
TRACE_EVENT(busy,
	TP_PROTO(const char *vm, int vcpu),
	TP_ARGS(vm, vcpu),
	TP_STRUCT__entry(
		__string(vm, vm)
		__field(int, vcpu)
	),
	TP_fast_assign(
		__assign_str(vm);
		__entry->vcpu = vcpu;
	),
	TP_printk("vm=%s vcpu=%d", __get_str(vm), __entry->vcpu)
);

/* All PEs' instruction caches were invalidated, by the kernel itself or by this module. */
TRACE_EVENT(icache_invalidate,
	TP_PROTO(const char *vm, bool native, u64 ns),
	TP_ARGS(vm, native, ns),
	TP_STRUCT__entry(
		__string(vm, vm)
		__field(bool, native)
		__field(u64, duration_ns)
	),
	TP_fast_assign(
		__assign_str(vm);
		__entry->native = native;
		__entry->duration_ns = ns;
	),
	TP_printk("vm=%s native=%d duration_ns=%llu", __get_str(vm),
		  __entry->native, __entry->duration_ns)
);

DECLARE_EVENT_CLASS(vm_work,
	TP_PROTO(const char *vm, u64 ns),
	TP_ARGS(vm, ns),
	TP_STRUCT__entry(
		__string(vm, vm)
		__field(u64, duration_ns)
	),
	TP_fast_assign(
		__assign_str(vm);
		__entry->duration_ns = ns;
	),
	TP_printk("vm=%s duration_ns=%llu", __get_str(vm), __entry->duration_ns)
);

/* All of a VM's RAM was unmapped at stage 2. */
DEFINE_EVENT(vm_work, stage2_unmap, TP_PROTO(const char *vm, u64 ns), TP_ARGS(vm, ns));

/* A KVM_RUN found its VM in debt, and paid or waited for another one that did. */
DEFINE_EVENT(vm_work, pay, TP_PROTO(const char *vm, u64 ns), TP_ARGS(vm, ns));

/* All that is mapped of a VM was cleaned: a vCPU turned its MMU on, or cleans by set and way. */
DEFINE_EVENT(vm_work, stage2_flush, TP_PROTO(const char *vm, u64 ns), TP_ARGS(vm, ns));

/*
 * An unmap cleaned nothing: so many bytes are left to the faults that map them again; and it left out
 * so many TLB invalidations of one entry.
 */
TRACE_EVENT(clean_elide,
	TP_PROTO(const char *vm, u64 bytes, u64 tlbi),
	TP_ARGS(vm, bytes, tlbi),
	TP_STRUCT__entry(
		__string(vm, vm)
		__field(u64, bytes)
		__field(u64, tlbi)
	),
	TP_fast_assign(
		__assign_str(vm);
		__entry->bytes = bytes;
		__entry->tlbi = tlbi;
	),
	TP_printk("vm=%s bytes=%llu tlbi=%llu", __get_str(vm), __entry->bytes, __entry->tlbi)
);

#endif

/* Beside this file, wherever trace/define_trace.h includes it from. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
