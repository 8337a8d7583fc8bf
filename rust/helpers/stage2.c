// SPDX-License-Identifier: GPL-2.0

#include <linux/bitfield.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/memory.h>
#include <asm/virt.h>

#include "ftrace.h"
#include "prototype.h"
#include "stage2.h"

typedef int (*walk_fn)(struct kvm_pgtable *, u64, u64, struct kvm_pgtable_walker *);
typedef int (*map_fn)(struct kvm_pgtable *, u64, u64, u64, enum kvm_pgtable_prot, void *,
		      enum kvm_pgtable_walk_flags);
typedef void (*flush_fn)(struct kvm_s2_mmu *, phys_addr_t, size_t);

ASSERT_PROTOTYPE(kvm_pgtable_walk, walk_fn);
ASSERT_PROTOTYPE(kvm_pgtable_stage2_map, map_fn);
ASSERT_PROTOTYPE(kvm_tlb_flush_vmid_range, flush_fn);
ASSERT_PROTOTYPE(kvm_pgtable_stage2_unmap, int (*)(struct kvm_pgtable *, u64, u64));

bool stage2_is_protected(void)
{
	return is_protected_kvm_enabled();
}

bool stage2_is_of(struct kvm_pgtable *table, struct kvm *kvm)
{
	return table->mmu == &kvm->arch.mmu;
}

/* Memory that guests cache, as VM_PFNMAP and devices are not: all that an unmap cleans. */
static bool is_normal_leaf(kvm_pte_t pte)
{
	return kvm_pte_valid(pte) &&
	       FIELD_GET(KVM_PTE_LEAF_ATTR_LO_S2_MEMATTR, pte) == MT_S2_NORMAL;
}

/*
 * What stage2_unmap_walker() in arch/arm64/kvm/hyp/pgtable.c does with such a leaf, less its cleaning
 * and its TLB invalidation.
 */
static int drop_leaf(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags visit)
{
	struct stage2_left_out *left_out = ctx->arg;

	if (is_normal_leaf(ctx->old)) {
		WRITE_ONCE(*ctx->ptep, 0);
		ctx->mm_ops->put_page(ctx->ptep);
		left_out->bytes += kvm_granule_size(ctx->level);
		left_out->invalidations++;
	}
	return 0;
}

int stage2_drop_leaves(const struct stage2_functions *functions, struct kvm_pgtable *table, u64 addr,
		       u64 size, struct stage2_left_out *left_out)
{
	struct kvm_pgtable_walker walker = {
		.cb = drop_leaf,
		.arg = left_out,
		.flags = KVM_PGTABLE_WALK_LEAF,
	};
	int err;

	((walk_fn)functions->walk)(table, addr, size, &walker);
	/*
	 * The rest the kernel does: devices, annotations, and tables, whose TLB invalidation cannot
	 * wait, for their pages are freed at once.
	 */
	err = stage2_unmap_native(table, addr, size);

	/*
	 * The caller holds mmu_lock: until here nobody else has learnt from the table that the pages
	 * are free to go. As the kernel does where it puts TLB invalidations off, on CPUs with
	 * FEAT_S2FWB and FEAT_TLBIRANGE (stage2_unmap_defer_tlb_flush()).
	 */
	if (left_out->invalidations)
		((flush_fn)functions->flush)(table->mmu, addr, size);
	return err;
}

/*
 * A page that is mapped into a table which no CPU ever walks, to see what is done about its caches.
 * KVM's callbacks have no argument of the caller's, hence one at a time.
 */
static DEFINE_MUTEX(proof_lock);
static struct {
	void *page;
	kvm_pte_t *entry;
	bool cleaned;
	bool invalidated;
} proof;

static bool proof_concerns(const void *addr, size_t size)
{
	return addr == proof.page && size == PAGE_SIZE && !kvm_pte_valid(READ_ONCE(*proof.entry));
}

static void proof_clean(void *addr, size_t size)
{
	proof.cleaned |= proof_concerns(addr, size);
}

static void proof_invalidate(void *addr, size_t size)
{
	/* Behind the clean, or it would not see what that brings to the PoU. */
	proof.invalidated |= proof.cleaned && proof_concerns(addr, size);
}

static void proof_ignore(void *addr)
{
}

static void *proof_to_virt(phys_addr_t phys)
{
	return __va(phys);
}

static phys_addr_t proof_to_phys(void *addr)
{
	return __pa(addr);
}

int stage2_map_cleans(const struct stage2_functions *functions)
{
	static struct kvm_pgtable_mm_ops ops = {
		.get_page = proof_ignore,
		.put_page = proof_ignore,
		.phys_to_virt = proof_to_virt,
		.virt_to_phys = proof_to_phys,
		.dcache_clean_inval_poc = proof_clean,
		.icache_inval_pou = proof_invalidate,
	};
	struct kvm_s2_mmu *mmu = kzalloc(sizeof(*mmu), GFP_KERNEL);
	void *entries = (void *)get_zeroed_page(GFP_KERNEL);
	void *page = (void *)get_zeroed_page(GFP_KERNEL);
	/* One level, of the pages' own entries. */
	struct kvm_pgtable table = {
		.ia_bits = PAGE_SHIFT + PAGE_SHIFT - 3,
		.start_level = KVM_PGTABLE_LAST_LEVEL,
		.pgd = (kvm_pteref_t)entries,
		.mm_ops = &ops,
		.mmu = mmu,
	};
	int err = -ENOMEM;

	mutex_lock(&proof_lock);
	if (mmu && entries && page) {
		mmu->pgt = &table;
		proof.page = page;
		proof.entry = entries;
		proof.cleaned = false;
		proof.invalidated = false;
		err = ((map_fn)functions->map)(&table, 0, PAGE_SIZE, __pa(page),
					       KVM_PGTABLE_PROT_R | KVM_PGTABLE_PROT_W |
					       KVM_PGTABLE_PROT_X, NULL, 0);
		if (!err && (!kvm_pte_valid(*proof.entry) || !proof.cleaned || !proof.invalidated))
			err = -EOPNOTSUPP;
	}
	mutex_unlock(&proof_lock);
	free_page((unsigned long)page);
	free_page((unsigned long)entries);
	kfree(mmu);
	return err;
}
