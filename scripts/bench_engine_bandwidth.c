/* How many bytes a second this machine reads from memory: the limit of decoding at batch 1.
 *
 * usage: bandwidth THREADS MEBIBYTES PASSES
 *
 * Each thread reads a share of one region that is far larger than the caches, again and again, and
 * does nothing with it but a sum that keeps the compiler from leaving the reads out. Prints bytes
 * a second of each pass, a line each, all threads together. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 256, LANES = 32 }; /* So many sums that none waits for the one before it. */

typedef struct {
    const uint64_t *words;
    size_t count;
    uint64_t sum;
} share_t;

static void *read_share(void *argument) {
    share_t *share = argument;
    uint64_t sums[LANES] = {0};
    for (size_t i = 0; i + LANES <= share->count; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) sums[lane] += share->words[i + lane];
    for (size_t lane = 0; lane < LANES; lane++) share->sum += sums[lane];
    return NULL;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int count, char **words) {
    size_t threads = count == 4 ? strtoul(words[1], NULL, 10) : 0;
    size_t bytes = count == 4 ? strtoul(words[2], NULL, 10) << 20 : 0;
    size_t passes = count == 4 ? strtoul(words[3], NULL, 10) : 0;
    if (!threads || threads > THREADS_MAX || !bytes || !passes) {
        fprintf(stderr, "usage: bandwidth THREADS MEBIBYTES PASSES\n");
        return 2;
    }
    void *region = aligned_alloc(4096, bytes);
    if (!region) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        return 1;
    }
    memset(region, 1, bytes);
    share_t shares[THREADS_MAX] = {0};
    pthread_t others[THREADS_MAX];
    size_t each = bytes / sizeof(uint64_t) / threads;
    for (size_t i = 0; i < threads; i++)
        shares[i] = (share_t){(const uint64_t *)region + i * each, each, 0};
    for (size_t pass = 0; pass < passes; pass++) {
        double began = seconds_now();
        size_t started = 1;
        while (started < threads &&
               !pthread_create(&others[started], NULL, read_share, &shares[started]))
            started++;
        read_share(&shares[0]);
        for (size_t i = 1; i < started; i++) pthread_join(others[i], NULL);
        if (started < threads) {
            fprintf(stderr, "only %zu threads could be started\n", started);
            return 1;
        }
        printf("%.0f\n", (double)(threads * each * sizeof(uint64_t)) / (seconds_now() - began));
    }
    uint64_t sum = 0; /* Shown, so that it is needed. */
    for (size_t i = 0; i < threads; i++) sum += shares[i].sum;
    fprintf(stderr, "sum %llu\n", (unsigned long long)sum);
    free(region);
    return 0;
}
