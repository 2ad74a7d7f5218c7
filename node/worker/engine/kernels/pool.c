/* Threads that share the work of a step, meet at barriers within it, and sleep between steps.
 *
 * Who waits at a barrier fetches the weights that it will read after it, since memory is what a
 * step waits for.
 *
 * A wait spins for a moment, because most waits inside a step are shorter than falling asleep
 * and waking; then it sleeps, because a peer that lost its core to another program comes back after
 * milliseconds, and burning a core meanwhile takes it from that same program.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "internal.h"
#include "system.h"

#include <stdlib.h>

#define SPIN_NS 40000 /* About the usual difference between two threads' shares of a phase. */
#define SPIN_BETWEEN_NS 200000 /* And what the caller usually does between two steps. */
#define PAUSES_PER_LOOK 32 /* Between two looks at the clock. */
#define SOON_BYTES_MAX (128 << 10) /* Fetched while waiting: it has to stay in a cache. */
#define CACHE_LINE 64

/* Words that threads write stand on cache lines of their own. */
typedef struct {
    _Alignas(64) word value;
    word sleepers;
} gate;

typedef struct {
    ayni_pool *pool;
    int number;
} member;

struct ayni_pool {
    gate start;   /* Goes up by one with each piece of work. */
    gate barrier; /* Goes up by one when all have arrived. */
    _Alignas(64) word arrived;
    _Alignas(64) _Atomic size_t next;
    _Alignas(64) pool_work *work;
    void *argument;
    int threads, stopping;
    uint32_t paths;
    int64_t process;
    bed sleeping;
    thread_handle handles[AYNI_THREADS_MAX];
    member members[AYNI_THREADS_MAX];
};

/* Order: who sleeps counts itself and then looks at the value; who opens changes the value and then
 * looks at the count. So one of the two sees the other (the order is sequentially consistent). */
static void gate_wait(bed *sleeping, gate *g, uint32_t value, int64_t spin_ns, soon next) {
    size_t bytes = size_min(next.bytes, SOON_BYTES_MAX);
    for (size_t at = 0; at < bytes; at += CACHE_LINE) {
        if (atomic_load_explicit(&g->value, memory_order_acquire) != value)
            return;
        __builtin_prefetch(next.first + at, 0, 2);
    }
    int64_t until = time_ns() + spin_ns;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (atomic_load_explicit(&g->value, memory_order_acquire) != value)
                return;
            pause_briefly();
        }
    } while (time_ns() < until);
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->value) == value)
        sleep_while(sleeping, &g->value, value);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(bed *sleeping, gate *g) {
    atomic_fetch_add(&g->value, 1);
    if (atomic_load(&g->sleepers))
        wake_all(sleeping, &g->value);
}

void pool_barrier(ayni_pool *pool, soon next) {
    uint32_t value = atomic_load_explicit(&pool->barrier.value, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 < (uint32_t)pool->threads) {
        gate_wait(&pool->sleeping, &pool->barrier, value, SPIN_NS, next);
        return;
    }
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    gate_open(&pool->sleeping, &pool->barrier);
}

size_t pool_next(ayni_pool *pool) {
    return atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
}

int pool_threads(const ayni_pool *pool) { return pool->threads; }

uint32_t pool_paths(const ayni_pool *pool) { return pool->paths; }

int pool_usable(const ayni_pool *pool) { return pool->process == process_id(); }

/* Sets rounding to nearest and keeps the smallest numbers (no flush to zero), whatever a library
 * made of it in this thread: both change bits. Returns what was set before. */
static uint64_t arithmetic_set(void) {
#if defined(__x86_64__)
    uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80);
    return before;
#elif defined(__aarch64__)
    uint64_t before, plain = 0;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(before));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(plain));
    return before;
#else
    return 0;
#endif
}

static void arithmetic_restore(uint64_t before) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((uint32_t)before);
#elif defined(__aarch64__)
    __asm__ __volatile__("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

static void pool_share(ayni_pool *pool, int number) {
    uint64_t before = arithmetic_set();
    pool->work(pool->argument, number);
    pool_barrier(pool, NOTHING_SOON);
    arithmetic_restore(before);
}

static thread_result THREAD_CALL pool_thread(void *argument) {
    member *self = argument;
    ayni_pool *pool = self->pool;
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&pool->sleeping, &pool->start, seen, SPIN_BETWEEN_NS, NOTHING_SOON);
        if (pool->stopping)
            return 0;
        pool_share(pool, self->number);
    }
}

void pool_run(ayni_pool *pool, pool_work *work, void *argument) {
    pool->work = work;
    pool->argument = argument;
    gate_open(&pool->sleeping, &pool->start);
    pool_share(pool, 0);
}

/* Ends the threads 1 to count - 1. */
static void pool_stop(ayni_pool *pool, int count) {
    pool->stopping = 1;
    gate_open(&pool->sleeping, &pool->start);
    for (int i = 1; i < count; i++)
        thread_join(pool->handles[i]);
}

static void *aligned_zeros(size_t bytes) {
#if defined(_WIN32)
    void *memory = _aligned_malloc(bytes, 64);
#else
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes))
        memory = NULL;
#endif
    if (memory)
        for (size_t i = 0; i < bytes; i++)
            ((char *)memory)[i] = 0;
    return memory;
}

static void aligned_free(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

ayni_pool *ayni_pool_open(int32_t threads) {
    if (threads < 1 || threads > AYNI_THREADS_MAX)
        return NULL;
    ayni_pool *pool = aligned_zeros(sizeof *pool);
    if (!pool)
        return NULL;
    if (!bed_open(&pool->sleeping)) {
        aligned_free(pool);
        return NULL;
    }
    pool->threads = threads;
    pool->paths = ayni_paths();
    pool->process = process_id();
    for (int i = 1; i < threads; i++) {
        pool->members[i] = (member){pool, i};
        if (!thread_start(&pool->handles[i], pool_thread, &pool->members[i])) {
            pool_stop(pool, i);
            bed_close(&pool->sleeping);
            aligned_free(pool);
            return NULL;
        }
    }
    return pool;
}

/* In a forked child the threads were never there: only the memory is given back. */
void ayni_pool_close(ayni_pool *pool) {
    if (!pool)
        return;
    if (pool_usable(pool)) {
        pool_stop(pool, pool->threads);
        bed_close(&pool->sleeping);
    }
    aligned_free(pool);
}
