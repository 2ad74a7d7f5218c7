/* e^x, log and the noise, by operations that are fixed: the same bits from every compiler.
 *
 * The processor's own library differs by a last bit from another's, and then two honest machines
 * draw another token once in a long while. tests/node/worker/sampling_twin.py has the same lines in
 * Python. Series are Taylor's, long enough for the last bit of a double.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_SAMPLE_MATH_H
#define AYNI_SAMPLE_MATH_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "Doubles are computed with more bits here: compile for SSE2, or another processor."
#endif

#define LN2_HIGH 0x1.62e42fefa38p-1 /* 42 bits, so that its product with an exponent is exact. */
#define LN2_LOW 0x1.ef35793c76730p-45
#define LN2_INVERSE 0x1.71547652b82fep+0
#define SQRT2 0x1.6a09e667f3bcdp+0
#define ROUNDING 0x1.8p+52 /* Adding it leaves a whole number in the low bits. */
#define EXP_LEAST (-708.0) /* Below, e^x counts as 0: no denormal numbers. */

static inline uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double double_of(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* e^x for x <= 0, minus infinity allowed. No branch, so that loops of it become vectors. */
static inline double fixed_exp(double x) {
    double held = x < EXP_LEAST ? EXP_LEAST : x;
    double shifted = held * LN2_INVERSE + ROUNDING;
    double n = shifted - ROUNDING;
    double r = (held - n * LN2_HIGH) - n * LN2_LOW;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p = p * double_of((bits_of(shifted) + 1023) << 52); /* 2^n */
    return x < EXP_LEAST ? 0.0 : p;
}

/* The natural logarithm of a positive normal number: x = 2^e * m with m about 1, and the series of
 * log m = 2 artanh s in s = (m - 1) / (m + 1). */
static inline double fixed_log(double x) {
    uint64_t bits = bits_of(x);
    double e = (double)(int64_t)((bits >> 52) - 1023);
    double m = double_of((bits & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
    if (m > SQRT2) {
        m = m * 0.5;
        e = e + 1.0;
    }
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double p = 1.0 / 21.0;
    p = p * z + 1.0 / 19.0;
    p = p * z + 1.0 / 17.0;
    p = p * z + 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    double twice = s + s;
    double rest = twice * (z * p) + e * LN2_LOW;
    return e * LN2_HIGH + (twice + rest);
}

/* The 32 random bits of a token: the upper half of splitmix64 at its place. */
static inline uint32_t noise_bits(uint64_t key, int32_t token) {
    uint64_t z = key + ((uint64_t)(uint32_t)token + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z = z ^ (z >> 31);
    return (uint32_t)(z >> 32);
}

/* -log(-log1p(-v)) of v = (bits + 1/2) / 2^32. 1 - v has 33 bits and is exact, so that
 * log1p(-v) is log(1 - v) to the bit. */
static inline double noise_of(uint32_t bits) {
    double v = ((double)bits + 0.5) * 0x1p-32;
    return -fixed_log(-fixed_log(1.0 - v));
}

#endif
